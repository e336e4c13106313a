#include "attnreg/attention_regression.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>

#include "app/commands/attention_heads.hpp"
#include "app/commands/attention_layer.hpp"
#include "app/options/commands.hpp"
#include "app/options/solver_options.hpp"
#include "app/report/summary.hpp"
#include "app/report/text.hpp"
#include "app/report/verdict.hpp"
#include "app/run/sequence_list.hpp"
#include "app/run/session.hpp"
#include "attnreg/files.hpp"
#include "errors/faults.hpp"
#include "errors/printable.hpp"
#include "losses/losses.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kAttentionEpilogue = R"(Examples:
  attnreg attention --queries A1.npy --keys A2.npy --target B.npy -o run
  attnreg attention --queries A1.npy --keys A2.npy --target B.npy --rank 8 -o run
  attnreg attention --queries A1.npy --keys A2.npy --values A3.npy --target B.npy --method joint
  attnreg attention --queries A1.npy --keys A2.npy --target B.npy --mask causal -o run
  mpirun -n 2 attnreg attention --sequences list.txt --rtol 1e-12 -o run

Matrices are .npy, float32 or float64, held in double. The summary goes to stdout, the steps to stderr.
Exit code 0: converged; 4: stopped before, X is written all the same.
)";

const Syntax kAttentionSyntax{
    "attention",
    "Find X, and with values Y, so that softmax(A1 X A2^T) reproduces B, or softmax(A1 X A2^T) A3 Y does.",
    {},
    {attention_options(true),
     {"Iteration",
      {{"method", 0, "NAME", Choice{{"varpro", "joint"}}, "varpro",
        "with --values, the iteration on X in place of the recovery of layers. varpro: X alone is iterated, Y is the "
        "best one for it; joint: X and Y together"},
       {"rank", 0, "R", Text{}, "auto",
        "X = P Q^T with R columns each, as in an attention head; full or 0: any X; auto: where log-odds are the start, "
        "by the gap of their spectrum, else by hold-out; full elsewhere"},
       {"start", 0, "START", Text{}, "auto",
        "where the iteration starts. zero: X = 0; cross-entropy: a rough minimiser of that form; auto: log-odds for "
        "large X without values and weights, else cross-entropy where form and data allow it; else the name of a run "
        "directory with X.npy and Y.npy"},
       {"starts", 0, "K", Integer{0, 100000}, "0",
        "solve from K random points as well, and keep the lowest L; of layers, up to 23 without this option, 3 of "
        "large ones, none where these have a known Y"},
       {"seed", 0, "S", Integer{0}, "1", "of the random starts; the same on any number of ranks"},
       {"model", 0, "NAME", Choice{{"auto", "dense", "kronecker"}}, "auto",
        "preconditioner: all of the positive curvature, or a Kronecker product; auto: dense up to --dense-limit "
        "unknowns"},
       {"dense-limit", 0, "D", Integer{1, 100000}, "4096",
        "of --model auto: a dense model takes 24 D^2 bytes on rank 0"},
       {"rtol", 0, "R", Number{0, true, 1}, "1e-10",
        "stop when |g| <= R times |g| at X = 0, Y = 0 (at the start with --rank)"},
       {"max-iterations", 0, "N", Integer{0, 1000000000}, "200", "stop after N iterations"},
       time_limit_option()}},
     head_options(),
     layer_options(),
     {"Certificate",
      {{"certificate", 0, "LEVEL", Choice{{"none", "gradient", "full"}}, "gradient",
        "what is looked at afterwards. full: the smallest eigenvalue of the Hessian, by products, and so whether X is "
        "a "
        "minimum, up to 300 passes (varpro: 600)"}}},
     {"Computing", {threads_option(), watchdog_option(), progress_option()}},
     reproducible_group(),
     session_options(
         "run directory for X.npy (Y.npy, P.npy, Q.npy), run.json, history.csv, status.json; default: none")},
    kAttentionEpilogue};

constexpr std::string_view kStartDirectory = "a directory, such as ./run";

void check(const Arguments& arguments) {
  check_attention_options(arguments);
  check_session_options(arguments);
  start_file(arguments, kStartDirectory);
  check_head_options(arguments);
}

std::string shape_text(const RowMajorMatrix& matrix) {
  return std::to_string(matrix.rows()) + " x " + std::to_string(matrix.cols());
}

/// One solve: what is shared by its steps.
class Attention : public Session {
 public:
  Attention(const Communicator& communicator, const Arguments& arguments, std::vector<SequenceFiles> files)
      : Session(communicator, arguments), files_(std::move(files)), inputs_(list_of(files_)) {}

 private:
  ExitCode load_and_solve() override {
    begin(inputs_, attention_bytes(files_, communicator_.size(), threads_of_rank(), dense_limit()),
          "an attention regression over " + counted(std::ssize(files_), "sequence"));
    const auto sequences = load_sequences(communicator_, files_);
    faults::at("after-load");
    missing_mask_ = missing_mask(communicator_, sequences);
    if (!missing_mask_.empty() && communicator_.is_root() && !arguments_.on("quiet"))
      print_line("attnreg: warning: " + missing_mask_);
    const AttentionOptions chosen = options(sequences[0]);
    ready(arrays(sequences[0], chosen.rank), true);
    timing_.loading = clock_.seconds();
    AttentionResult result = solve_attention(communicator_, sequences, chosen);
    result.summary.seconds = timing_.solve = clock_.seconds() - timing_.loading;
    const ExitCode code = code_of(result.summary.termination);
    end({result.summary, code, [&] { return json_of(result, sequences[0]); }, [&] { write(result); },
         [&](const std::vector<std::string>& written) { return summary(result, sequences, written); }});
    return code;
  }

  static std::vector<RunDirectory::Array> arrays(const AttentionSequence& first, Index rank) {
    const Index d1 = first.queries.cols(), d2 = first.keys.cols();
    std::vector<RunDirectory::Array> arrays{{"X.npy", d1 * d2}};
    if (first.values) arrays.push_back({"Y.npy", first.values->cols() * first.target.cols()});
    if (rank > 0) arrays.insert(arrays.end(), {{"P.npy", d1 * rank}, {"Q.npy", d2 * rank}});
    return arrays;
  }

  /// Of the unknowns of a dense model; -1: there is none whatever their number.
  std::int64_t dense_limit() const {
    if (arguments_.text("model") == "kronecker") return -1;
    return arguments_.text("model") == "dense" ? std::numeric_limits<std::int64_t>::max()
                                               : arguments_.integer("dense-limit");
  }

  AttentionOptions options(const AttentionSequence& first) {
    AttentionOptions options;
    options.loss = form_loss(arguments_);
    if (arguments_.text("method") == "joint") options.method = AttentionMethod::joint;
    options.model = static_cast<AttentionModel>(arguments_.choice("model"));
    options.dense_limit = arguments_.integer("dense-limit");
    options.rank = std::max<Index>(rank_option(arguments_), 0);
    options.start = start_option(arguments_);
    if (const auto directory = start_file(arguments_, kStartDirectory)) {
      options.x0.X = load_replicated_matrix(communicator_, *directory + "/X.npy");
      if (first.values) options.x0.Y = load_replicated_matrix(communicator_, *directory + "/Y.npy");
    }
    options.random_starts = arguments_.count("starts");
    options.seed = arguments_.seed();
    options.certificate = std::array{CertificateLevel::none, CertificateLevel::gradient, CertificateLevel::full}.at(
        arguments_.choice("certificate"));
    options.newton = newton_options(arguments_);
    options.newton.on_iteration = on_iteration();
    options.newton.journal = journal_;
    options.on_start_iteration = on_start_iteration();
    return options;
  }

  nlohmann::ordered_json json_of(const AttentionResult& result, const AttentionSequence& first) const {
    nlohmann::ordered_json summary = result_json(result);
    summary.update({{"method", method_name(result)},
                    {"model", model_name(result.model)},
                    {"relative_error", result.error},
                    {"verdict", verdict_text(arguments_, result)},
                    {"reading", reading(result)}});
    nlohmann::ordered_json run = run_json(inputs_, tile_rows(first.keys.rows()));
    summary.update(timing_json(timing_));
    run.update({{"summary", summary}, {"certificate", certificate_json(result.certificate)}});
    run.update(remarks_json(result));
    return run;
  }

  void write(const AttentionResult& result) {
    directory_.write_matrix("X.npy", result.unknowns.X);
    directory_.write_matrix("Y.npy", result.unknowns.Y);
    directory_.write_matrix("P.npy", result.P);
    directory_.write_matrix("Q.npy", result.Q);
  }

  static std::string reading(const AttentionResult& result) {
    return residual_reading(result.error, result.unknowns.Y.size() > 0 ? "F A3 Y" : "F", "B");
  }

  std::string method_name(const AttentionResult& result) const {
    return result.unknowns.Y.size() == 0 ? "newton-cg" : arguments_.text("method");
  }

  std::string start_text(const AttentionResult& result) const {
    switch (result.start) {
      case Start::random: return "a random X";
      case Start::cross_entropy: return "the cross-entropy minimiser";
      case Start::given: return printable(arguments_.text("start"));
      default: return result.unknowns.Y.size() > 0 || result.P.size() > 0 ? "a descent step from X = 0" : "X = 0";
    }
  }

  std::string reference_name(const AttentionResult& result) const {
    if (result.P.size() > 0) return "|g(start)|";
    return make_loss(form_loss(arguments_))->form() == HessianForm::centred ? "|g(0)|" : "|g| ref";
  }

  std::string summary(const AttentionResult& result, const std::vector<AttentionSequence>& sequences,
                      const std::vector<std::string>& written) const {
    const AttentionUnknowns& found = result.unknowns;
    const std::string low_rank = result.P.size() > 0 ? " = P Q^T of rank " + std::to_string(result.P.cols()) : "";
    const std::string Y = found.Y.size() > 0 ? ", Y " + shape_text(found.Y) : "";
    const std::string error = found.Y.size() > 0 ? "  (|F A3 Y - B| / |B|, F = " : "  (|F - B| / |B|, F = ";
    const std::string warning = missing_mask_.empty() ? "" : "WARNING: " + missing_mask_ + "\n";
    const SummaryPage page{
        arguments_,
        result,
        communicator_.processes(),
        threads_.threads,
        reference_name(result),
        verdict_text(arguments_, result),
        sequences_text(sequences, found.X.rows(), found.X.cols()) + low_rank + Y + ", form " +
            (arguments_.text("form") == "auto" ? "normalised" : arguments_.text("form")),
        method_name(result) + " from " + start_text(result) + ", " + std::string(model_name(result.model)) + " model",
        summary_line("passes", fixed(result.summary.reads_of_a, 0)),
        "\nFit\n" + summary_line("relative error", scientific(result.error, 4) + error + result.fitted + ")") +
            summary_line("reading", reading(result)) + certificate_text(result.certificate),
        timing_};
    return warning + page_text(page, written);
  }

  std::vector<SequenceFiles> files_;
  std::vector<InputFile> inputs_;
  Timing timing_;
  std::string missing_mask_;
};

ExitCode attention(const Communicator& communicator, const Arguments& arguments) {
  check(arguments);
  std::vector<SequenceFiles> files;
  bool heads = false, layer = false;
  communicator.agree([&] {
    files = examine_sequences(arguments);
    heads = are_heads(arguments, files);
    layer = is_layer(arguments, files);
  });
  if (heads) return recover_heads(communicator, arguments, std::move(files));
  if (layer) return recover_layer(communicator, arguments, std::move(files));
  return Attention(communicator, arguments, std::move(files)).run();
}

}  // namespace

Command attention_command() { return {kAttentionSyntax, attention}; }

}  // namespace attnreg::app
