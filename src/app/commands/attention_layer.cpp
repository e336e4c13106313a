#include "app/commands/attention_layer.hpp"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "app/commands/attention_heads.hpp"
#include "app/report/layer_report.hpp"
#include "app/report/summary.hpp"
#include "app/report/text.hpp"
#include "app/report/verdict.hpp"
#include "app/run/sequence_list.hpp"
#include "app/run/session.hpp"
#include "errors/faults.hpp"
#include "ranks/activity.hpp"

namespace attnreg::app {

namespace {

class LayerSession : public Session {
 public:
  LayerSession(const Communicator& communicator, const Arguments& arguments, std::vector<SequenceFiles> files)
      : Session(communicator, arguments), files_(std::move(files)), inputs_(list_of(files_)) {}

 private:
  ExitCode load_and_solve() override {
    if (arguments_.given("values-known"))
      communicator_.agree([&] { inputs_.push_back(examine("Y", arguments_.text("values-known"))); });
    begin(inputs_, bytes(), "a layer over " + counted(std::ssize(files_), "sequence"));
    const auto sequences = load_sequences(communicator_, files_, dealt(files_, communicator_.size()));
    const LayerOptions chosen = options();
    faults::at("after-load");
    ready({{"X.npy", sequences[0].queries.cols() * sequences[0].keys.cols()}}, false);
    timing_.loading = clock_.seconds();
    std::optional<InPhase> solving(Phase::solve);
    const LayerResult layer = attnreg::recover_layer(communicator_, sequences, chosen);
    solving.reset();
    timing_.solve = clock_.seconds() - timing_.loading;
    const NewtonSummary outcome{.termination = layer.converged ? Termination::converged : Termination::iteration_limit,
                                .relative_gradient = std::numeric_limits<double>::quiet_NaN(),
                                .iterations = layer.steps};
    const ExitCode code = code_of(outcome.termination);
    end({outcome, code, [&] { return json_of(layer, sequences, outcome); }, [&] { write(layer); },
         [&](const std::vector<std::string>& written) { return summary(layer, sequences, written); }});
    return code;
  }

  /// What a rank holds at least: the data, stacked twice, for the starts and for all, and F at two points.
  double bytes() const {
    constexpr double kTimesStacked = 2, kPoints = 2;
    const auto rows = [](const InputFile& file) {
      return static_cast<double>(file.header.elements()) /
             static_cast<double>(std::max<std::int64_t>(file.header.columns(), 1));
    };
    double attention = 0;
    for (const auto& file : files_) attention += rows(file.queries) * rows(file.keys);
    return (1 + kTimesStacked) * attention_bytes(files_, communicator_.size(), threads_of_rank(), -1) +
           kPoints * 8 * attention / communicator_.size();
  }

  LayerOptions options() const {
    LayerOptions options;
    options.journal = journal_;
    options.rank = rank_option(arguments_);
    options.dense_limit = arguments_.integer("dense-limit");
    if (arguments_.given("values-known"))
      options.Y = load_replicated_matrix(communicator_, arguments_.text("values-known"));
    if (arguments_.given("starts")) options.starts = arguments_.count("starts") + 1;
    options.rounding = rounding_of(files_[0].target.header, StorageChoice::as_file);
    options.seed = arguments_.seed();
    return options;
  }

  nlohmann::ordered_json json_of(const LayerResult& layer, const std::vector<AttentionSequence>& sequences,
                                 const NewtonSummary& outcome) const {
    nlohmann::ordered_json run = run_json(inputs_, tile_rows(sequences[0].keys.rows()));
    nlohmann::ordered_json summary{{"termination", termination_name(outcome.termination)},
                                   {"method", "gauss-newton"},
                                   {"form", "softmax"},
                                   {"relative_error", layer.error},
                                   {"verdict", verdict_text(arguments_, layer)},
                                   {"reading", residual_reading(layer.error, "F A3 Y", "B")}};
    summary.update(timing_json(timing_));
    run.update({{"summary", summary}, {"layer", layer_json(layer)}});
    run.update({{"notes", layer.notes}, {"warnings", layer.warnings}});
    return run;
  }

  void write(const LayerResult& layer) {
    directory_.write_matrix("X.npy", layer.unknowns.X);
    directory_.write_matrix("Y.npy", layer.unknowns.Y);
    directory_.write_matrix("P.npy", layer.P);
    directory_.write_matrix("Q.npy", layer.Q);
  }

  std::string summary(const LayerResult& layer, const std::vector<AttentionSequence>& sequences,
                      const std::vector<std::string>& written) const {
    const auto& [X, Y] = layer.unknowns;
    const std::string word = !layer.converged ? "stopped at the limit of steps"
                             : layer.is_exact ? "recovered"
                                              : "converged";
    return word + ": |F A3 Y - B| / |B| = " + scientific(layer.error, 3) + ", F = softmax(A1 X A2^T)\n" +
           summary_line("verdict", verdict_text(arguments_, layer)) +
           summary_line("reading", residual_reading(layer.error, "F A3 Y", "B")) +
           summary_line("problem", sequences_text(sequences, X.rows(), X.cols()) +
                                       (layer.rank > 0 ? " = P Q^T of rank " + std::to_string(layer.rank) : "") +
                                       ", Y " + std::to_string(Y.rows()) + " x " + std::to_string(Y.cols()) +
                                       (arguments_.given("values-known") ? ", known" : "")) +
           summary_line("method", "Gauss-Newton, Y eliminated: " + counted(layer.steps, "step") + " from " +
                                      counted(std::ssize(layer.ends), "start")) +
           summary_line("reads of B", std::to_string(layer.reads) + ", and " + counted(layer.products, "product")) +
           summary_line("seconds", seconds_text(timing_, communicator_.processes(), threads_.threads)) +
           layer_text(layer) + folded_text("Notes", layer.notes, arguments_) +
           folded_text("Warnings", layer.warnings, arguments_) + list_text("Files", written);
  }

  std::vector<SequenceFiles> files_;
  std::vector<InputFile> inputs_;
  Timing timing_;
};

}  // namespace

OptionGroup layer_options() {
  return {"Layers: outputs in place of attention matrices",
          {{"values-known", 0, "FILE", Text{}, "",
            "with --values: Y, d3 x dv, .npy; X alone is unknown, and easy to find"}}};
}

bool is_layer(const Arguments& arguments, const std::vector<SequenceFiles>& files) {
  const bool with_values = std::ranges::all_of(files, [](const auto& file) { return file.values.has_value(); });
  std::string other;
  for (const auto name : {"method", "start", "model", "rtol", "max-iterations", "time-limit", "certificate"})
    if (other.empty() && arguments.given(name)) other = name;
  if (arguments.given("values-known") && !with_values)
    throw UsageError("--values-known goes with the values of all sequences");
  if (arguments.given("values-known") && !other.empty()) throw UsageError("--values-known has no use for --" + other);
  return with_values && other.empty() && form_loss(arguments) == "softmax";
}

ExitCode recover_layer(const Communicator& communicator, const Arguments& arguments, std::vector<SequenceFiles> files) {
  return LayerSession(communicator, arguments, std::move(files)).run();
}

}  // namespace attnreg::app
