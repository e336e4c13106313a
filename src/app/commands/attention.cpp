#include "attnreg/attention_regression.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "app/options/commands.hpp"
#include "app/options/solver_options.hpp"
#include "app/report/head_report.hpp"
#include "app/report/summary.hpp"
#include "app/report/text.hpp"
#include "app/run/sequence_list.hpp"
#include "app/run/session.hpp"
#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "losses/losses.hpp"
#include "ranks/span_of.hpp"

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
        "with --values. varpro: X alone is iterated, Y is the best one for it; joint: X and Y together"},
       {"rank", 0, "R", Text{}, "auto",
        "X = P Q^T with R columns each, as in an attention head; full or 0: any X; auto: where log-odds are the start, "
        "by the gap of their spectrum, else by hold-out; full elsewhere"},
       {"holdout", 0, "LIST|FRACTION", Text{}, "",
        "where log-odds are the start: other sequences, or the last ones, this share of all, to measure how X predicts "
        "what it has not seen"},
       {"weight", 0, "W", Number{0}, "0",
        "where log-odds are the start: W of 1/2 W^2 |Z|^2; 0 with --rank full: by "
        "hold-out"},
       {"split", 0, "NAME", Choice{{"sqrt", "orthogonal"}}, "sqrt",
        "where log-odds are the start, of X = P Q^T = U S V^T: the root of S goes to both factors, or all of it to P"},
       {"start", 0, "START", Text{}, "auto",
        "where the iteration starts. zero: X = 0; cross-entropy: a rough minimiser of that form; auto: log-odds for "
        "large X without values and weights, else cross-entropy where form and data allow it; else the name of a run "
        "directory with X.npy and Y.npy"},
       {"starts", 0, "K", Integer{0, 100000}, "0", "solve from K random X as well; the lowest L is kept"},
       {"seed", 0, "S", Integer{0}, "1", "of the random starts; the same on any number of ranks"},
       {"model", 0, "NAME", Choice{{"auto", "dense", "kronecker"}}, "auto",
        "preconditioner: all of the positive curvature, or a Kronecker product; auto: dense up to --dense-limit "
        "unknowns"},
       {"dense-limit", 0, "D", Integer{1, 100000}, "4096",
        "of --model auto: a dense model takes 24 D^2 bytes on rank 0"},
       {"rtol", 0, "R", Number{0, true, 1}, "1e-10",
        "stop when |g| <= R times |g| at X = 0, Y = 0 (at the start with --rank)"},
       {"max-iterations", 0, "N", Integer{0, 1000000000}, "200", "stop after N iterations"},
       {"time-limit", 0, "SECONDS", Number{0, true}, "", "stop after the iteration in which this time is over"}}},
     {"Certificate",
      {{"certificate", 0, "LEVEL", Choice{{"none", "gradient", "full"}}, "gradient",
        "what is looked at afterwards. full: the smallest eigenvalue of the Hessian, by products, and so whether X is "
        "a "
        "minimum, up to 300 passes (varpro: 600)"}}},
     {"Computing", {threads_option()}},
     session_options(
         "run directory for X.npy (Y.npy, P.npy, Q.npy), run.json, history.csv, status.json; default: none")},
    kAttentionEpilogue};

constexpr std::string_view kStartDirectory = "a directory, such as ./run";

/// -1: auto.
Index rank_option(const Arguments& arguments) {
  constexpr Index kMost = 1000000;
  const std::string text = arguments.text("rank");
  if (text == "auto") return HeadOptions::rank_from_data;
  if (text == "full") return 0;
  Index rank = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rank);
  if (error != std::errc() || end != text.data() + text.size() || rank < 0 || rank > kMost)
    throw UsageError("--rank is '" + printable(text) + "'; expected auto, full or a number from 0 to " +
                     std::to_string(kMost));
  return rank;
}

/// The share of --holdout; none: a list, or nothing.
std::optional<double> held_out_share(const Arguments& arguments) {
  if (!arguments.given("holdout")) return std::nullopt;
  const std::string text = arguments.text("holdout");
  double share = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), share);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (!(share > 0 && share < 1))
    throw UsageError("--holdout is '" + printable(text) + "'; a share is between 0 and 1, a list is a file");
  return share;
}

void check(const Arguments& arguments) {
  check_attention_options(arguments);
  check_session_options(arguments);
  start_file(arguments, kStartDirectory);
  rank_option(arguments);
  held_out_share(arguments);
}

std::string shape_text(const RowMajorMatrix& matrix) {
  return std::to_string(matrix.rows()) + " x " + std::to_string(matrix.cols());
}

/// One solve: what is shared by its steps.
class Attention : public Session {
 public:
  using Session::Session;

 private:
  ExitCode load_and_solve() override {
    std::vector<SequenceFiles> files, held_out;
    communicator_.agree([&] {
      files = examine_sequences(arguments_);
      log_odds_ = starts_from_log_odds(files);
      if (log_odds_) held_out = hold_out(files);
    });
    std::vector<SequenceFiles> all = files;
    all.insert(all.end(), held_out.begin(), held_out.end());
    inputs_ = list_of(all);
    begin(inputs_, attention_bytes(all, communicator_.size(), threads_.threads, log_odds_ ? -1 : dense_limit()),
          "an attention regression over " + counted(std::ssize(files), "sequence"));
    const auto sequences = load_sequences(communicator_, files, log_odds_);
    inject_fault(communicator_.rank(), "after-load");
    missing_mask_ = missing_mask(communicator_, sequences);
    if (!missing_mask_.empty() && communicator_.is_root() && !arguments_.on("quiet"))
      print_line("attnreg: warning: " + missing_mask_);
    if (log_odds_) return recover(files, sequences, held_out);
    const AttentionOptions chosen = options(sequences[0]);
    timing_.loading = clock_.seconds();
    AttentionResult result = solve_attention(communicator_, sequences, chosen);
    result.summary.seconds = timing_.solve = clock_.seconds() - timing_.loading;
    const ExitCode code = exit_code(result.summary.termination);
    end([&] { write(result, sequences[0], code); },
        [&](const std::vector<std::string>& written) { return summary(result, sequences, written); });
    return code;
  }

  /// Whether the data and the options are those of a head that log-odds find; the options that only the iteration on X
  /// has choose that. Throws `UsageError` where --form log-odds asks for what there is not.
  bool starts_from_log_odds(const std::vector<SequenceFiles>& files) const {
    const std::string form = arguments_.text("form");
    const bool plain = std::ranges::none_of(files, [](const auto& file) { return file.values || file.weights; });
    std::string other;
    for (const auto name :
         {"method", "start", "starts", "model", "rtol", "max-iterations", "time-limit", "certificate"})
      if (other.empty() && arguments_.given(name)) other = name;
    if (form == "log-odds") {
      if (!plain) throw UsageError("--form log-odds goes with neither values nor weights of single entries");
      if (!other.empty()) throw UsageError("--form log-odds has no use for --" + other);
      return true;
    }
    const auto columns = [](const InputFile& file) { return std::max<std::int64_t>(file.header.columns(), 1); };
    const bool is_large = columns(files[0].queries) > dense_limit() / columns(files[0].keys);
    const bool asked = arguments_.given("holdout") || arguments_.given("weight") || arguments_.given("split");
    const bool serves = plain && other.empty() && (form == "auto" || form == "cross-entropy" || form == "normalised");
    if (asked && !serves)
      throw UsageError(
          "--holdout, --weight and --split go with heads that log-odds find: without values, weights, "
          "another form than cross-entropy or normalised" +
          (other.empty() ? "" : ", and --" + other));
    return serves && (is_large || asked);
  }

  /// Throws `InvalidArgument` for what X of the first sequence cannot predict.
  void check_held_out(const SequenceFiles& other, const SequenceFiles& first) const {
    const std::string list = "--holdout " + printable(arguments_.text("holdout")) + ": ";
    if (other.values || other.weights)
      throw InvalidArgument(list + "held-out sequences have queries, keys and target, and no values or weights");
    for (const auto file : {&SequenceFiles::queries, &SequenceFiles::keys})
      if ((other.*file).header.columns() != (first.*file).header.columns())
        throw InvalidArgument(list + printable((other.*file).header.path) + " has " +
                              counted((other.*file).header.columns(), "column") + ", those of the fit have " +
                              std::to_string((first.*file).header.columns()));
  }

  /// Takes what --holdout says from the files, or from another list.
  std::vector<SequenceFiles> hold_out(std::vector<SequenceFiles>& files) const {
    if (!arguments_.given("holdout")) return {};
    const auto share = held_out_share(arguments_);
    if (!share) {
      auto others = examine_list(arguments_.text("holdout"), arguments_.text("mask"));
      for (const auto& other : others) check_held_out(other, files[0]);
      return others;
    }
    const auto count = static_cast<std::ptrdiff_t>(std::ceil(*share * static_cast<double>(files.size())));
    if (count >= std::ssize(files))
      throw InvalidArgument("--holdout leaves none of the " + counted(std::ssize(files), "sequence"));
    std::vector<SequenceFiles> last(files.end() - count, files.end());
    files.resize(files.size() - last.size());
    return last;
  }

  ExitCode recover(const std::vector<SequenceFiles>& files, const std::vector<AttentionSequence>& sequences,
                   const std::vector<SequenceFiles>& held_out_files) {
    const auto held_out = load_sequences(communicator_, held_out_files, true);
    HeadOptions options;
    const std::string form = arguments_.text("form");
    options.loss = form == "auto" ? "cross-entropy" : form == "normalised" ? "softmax" : form;
    options.rank = rank_option(arguments_);
    options.weight = arguments_.number("weight");
    const NpyHeader& target = files[0].target.header;
    options.rounding = target.is_half ? 0x1p-10 : target.type == Storage::float32 ? 0x1p-23 : 0x1p-52;
    options.split = static_cast<HeadSplit>(arguments_.choice("split"));
    options.seed = arguments_.seed();
    timing_.loading = clock_.seconds();
    HeadResult head = std::move(recover_heads(communicator_, sequences, {}, options)[0]);
    timing_.solve = clock_.seconds() - timing_.loading;
    HeadReport report{head, head_quality(communicator_, sequences, head.X), std::nullopt};
    if (!held_out.empty()) report.held_out = head_quality(communicator_, held_out, head.X);
    const NewtonSummary outcome{.termination = head.converged ? Termination::converged : Termination::iteration_limit,
                                .relative_gradient = std::numeric_limits<double>::quiet_NaN(),
                                .iterations = head.steps + head.polish_steps};
    const ExitCode code = exit_code(outcome.termination);
    if (!missing_mask_.empty()) head.warnings.insert(head.warnings.begin(), missing_mask_);
    end(
        [&] {
          nlohmann::ordered_json run = run_json(inputs_, tile_rows(sequences[0].keys.rows()));
          nlohmann::ordered_json summary{{"termination", termination_name(outcome.termination)},
                                         {"method", "log-odds"},
                                         {"form", options.loss},
                                         {"relative_error", head.error}};
          summary.update(timing_json(timing_));
          run.update({{"summary", summary}, {"head", head_json(report)}});
          run.update({{"notes", head.notes}, {"warnings", head.warnings}});
          write_matrices(head.X, {}, head.P, head.Q, outcome, run, code);
        },
        [&](const std::vector<std::string>& written) { return summary(report, sequences, options.loss, written); });
    return code;
  }

  std::string summary(const HeadReport& report, const std::vector<AttentionSequence>& sequences,
                      const std::string& loss, const std::vector<std::string>& written) const {
    const HeadResult& head = report.result;
    const std::string rank = head.rank > 0 ? " = P Q^T of rank " + std::to_string(head.rank) : "";
    const std::string polish = head.polish_steps > 0 ? ", " + counted(head.polish_steps, "step") + " on " + loss : "";
    return std::string(head.converged ? "recovered" : "stopped at the limit of steps") +
           ": |F - B| / |B| = " + scientific(head.error, 3) + ", F = softmax(A1 X A2^T)\n" +
           summary_line("problem", problem_text(sequences, head.X) + rank) +
           summary_line("method", "log-odds, " + counted(head.steps, "step") + polish) +
           summary_line("reads of B", std::to_string(head.reads) + ", and " + counted(head.products, "product")) +
           summary_line("seconds", seconds_text(timing_, communicator_.size(), threads_.threads)) + head_text(report) +
           list_text("Notes", head.notes) + list_text("Warnings", head.warnings) + list_text("Files", written);
  }

  std::string problem_text(const std::vector<AttentionSequence>& sequences, const RowMajorMatrix& X) const {
    const auto masked =
        std::ranges::count_if(sequences, [](const auto& sequence) { return sequence.mask.has_value(); });
    const std::string masks = masked == 0                       ? ""
                              : masked == std::ssize(sequences) ? ", masked"
                                                                : ", " + std::to_string(masked) + " of them masked";
    return counted(std::ssize(sequences), "sequence") + masks + ", the first " +
           std::to_string(sequences[0].partition.rows_global()) + " queries x " +
           std::to_string(sequences[0].keys.rows()) + " keys, X " + shape_text(X);
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
    options.on_start_iteration = on_start_iteration();
    return options;
  }

  void write(const AttentionResult& result, const AttentionSequence& first, ExitCode code) {
    nlohmann::ordered_json summary = result_json(result);
    summary.update(
        {{"method", method_name(result)}, {"model", model_name(result.model)}, {"relative_error", result.error}});
    nlohmann::ordered_json run = run_json(inputs_, tile_rows(first.keys.rows()));
    summary.update(timing_json(timing_));
    run.update({{"summary", summary}, {"certificate", certificate_json(result.certificate)}});
    run.update(remarks_json(result));
    write_matrices(result.unknowns.X, result.unknowns.Y, result.P, result.Q, result.summary, run, code);
  }

  void write_matrices(const RowMajorMatrix& X, const RowMajorMatrix& Y, const RowMajorMatrix& P,
                      const RowMajorMatrix& Q, const NewtonSummary& outcome, const nlohmann::ordered_json& run,
                      ExitCode code) {
    std::vector<std::string_view> stale;
    const auto write_matrix = [&](std::string_view name, const RowMajorMatrix& matrix) {
      if (matrix.size() > 0)
        directory_.write_array(name, span_of(matrix), {matrix.rows(), matrix.cols()});
      else
        stale.push_back(name);
    };
    write_matrix("X.npy", X);
    write_matrix("Y.npy", Y);
    write_matrix("P.npy", P);
    write_matrix("Q.npy", Q);
    directory_.finish(outcome, stale, run, code);
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
        communicator_.size(),
        threads_.threads,
        reference_name(result),
        "",
        problem_text(sequences, found.X) + low_rank + Y + ", form " +
            (arguments_.text("form") == "auto" ? "normalised" : arguments_.text("form")),
        method_name(result) + " from " + start_text(result) + ", " + std::string(model_name(result.model)) + " model",
        summary_line("passes", fixed(result.summary.reads_of_a, 0)),
        "\nFit\n" + summary_line("relative error", scientific(result.error, 4) + error + result.fitted + ")") +
            certificate_text(result.certificate),
        timing_};
    return warning + page_text(page, written);
  }

  Timing timing_;
  std::string missing_mask_;
  std::vector<InputFile> inputs_;  ///< also of what is held out
  bool log_odds_ = false;
};

ExitCode attention(const Communicator& communicator, const Arguments& arguments) {
  check(arguments);
  return Attention(communicator, arguments).run();
}

}  // namespace

Command attention_command() { return {kAttentionSyntax, attention}; }

}  // namespace attnreg::app
