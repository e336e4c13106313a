#include "attnreg/attention_regression.hpp"

#include <limits>
#include <nlohmann/json.hpp>

#include "app/options/commands.hpp"
#include "app/report/summary.hpp"
#include "app/report/text.hpp"
#include "app/run/attention_problem.hpp"
#include "app/run/faults.hpp"
#include "app/run/session.hpp"
#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "ranks/memory.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kAttentionEpilogue = R"(Examples:
  attnreg attention --queries A1.npy --keys A2.npy --target B.npy -o run
  attnreg attention --queries A1.npy --keys A2.npy --target B.npy --rank 8 -o run
  attnreg attention --queries A1.npy --keys A2.npy --values A3.npy --target B.npy --method joint
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
       {"rank", 0, "R", Integer{0, 1000000}, "0", "X = P Q^T with R columns each, as in an attention head; 0: any X"},
       {"start", 0, "START", Text{}, "auto",
        "where the iteration starts. zero: X = 0; cross-entropy: a rough minimiser of that form; auto: cross-entropy "
        "where form and data allow it; else the name of a run directory with X.npy and Y.npy"},
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
     {"Computing",
      {{"threads", 0, "N", Integer{1, 4096}, "",
        "threads per rank; default: OMP_NUM_THREADS if set, else the cores that this rank may use, divided by the "
        "ranks that share them"}}},
     session_options(
         "run directory for X.npy (Y.npy, P.npy, Q.npy), run.json, history.csv, status.json; default: none")},
    kAttentionEpilogue};

/// The directory that --start names, if it names one.
std::optional<std::string> start_directory(const Arguments& arguments) {
  const std::string start = arguments.text("start");
  for (const std::string_view name : {"auto", "zero", "cross-entropy"})
    if (start == name) return std::nullopt;
  return start;
}

void check(const Arguments& arguments) {
  check_attention_options(arguments);
  check_session_options(arguments);
  const auto start = start_directory(arguments);
  if (start && start->find_first_of("./") == std::string::npos)
    throw UsageError("--start is '" + printable(*start) +
                     "'; expected auto, zero, cross-entropy or a directory, such as ./run");
}

/// One solve: what is shared by its steps.
class Attention {
 public:
  Attention(const Communicator& communicator, const Arguments& arguments)
      : communicator_(communicator), arguments_(arguments), session_(communicator, arguments) {}

  ExitCode run() {
    return session_.run([this] { return load_and_solve(); });
  }

 private:
  ExitCode load_and_solve() {
    std::vector<SequenceFiles> files;
    communicator_.agree([&] { files = examine_sequences(arguments_); });
    const double bytes = attention_bytes(files, communicator_.size(), session_.threads().threads, dense_limit());
    if (communicator_.is_root()) session_.describe(list_of(files), bytes);
    require_memory(communicator_, bytes,
                   "an attention regression over " + counted(static_cast<std::int64_t>(files.size()), "sequence"));
    const auto sequences = load_sequences(communicator_, files);
    inject_fault(communicator_.rank(), "after-load");
    const AttentionResult result = solve_attention(communicator_, sequences, options(sequences[0]));
    inject_fault(communicator_.rank(), "before-write");
    const ExitCode code = exit_code(result.summary.termination);
    try {
      write(result, list_of(files), sequences[0], code);
    } catch (const OutputError&) {
      print_result(communicator_, summary(result, sequences, {}));  // X is lost, what is known of it is not
      throw;
    }
    print_result(communicator_, summary(result, sequences, written_files(result)));
    return code;
  }

  /// Of the unknowns of a dense model; -1: there is none whatever their number.
  std::int64_t dense_limit() const {
    if (arguments_.text("model") == "kronecker") return -1;
    return arguments_.text("model") == "dense" ? std::numeric_limits<std::int64_t>::max()
                                               : arguments_.integer("dense-limit");
  }

  AttentionOptions options(const AttentionSequence& first) {
    AttentionOptions options;
    options.form = attention_form(arguments_);
    if (arguments_.text("method") == "joint") options.method = AttentionMethod::joint;
    for (const AttentionModel model : {AttentionModel::dense, AttentionModel::kronecker})
      if (arguments_.text("model") == model_name(model)) options.model = model;
    options.dense_limit = arguments_.integer("dense-limit");
    options.rank = arguments_.integer("rank");
    if (arguments_.text("start") == "zero") options.start = AttentionStart::zero;
    if (arguments_.text("start") == "cross-entropy") options.start = AttentionStart::cross_entropy;
    if (const auto directory = start_directory(arguments_)) {
      options.start = AttentionStart::given;
      options.x0.X = load_replicated_matrix(communicator_, *directory + "/X.npy");
      if (first.values) options.x0.Y = load_replicated_matrix(communicator_, *directory + "/Y.npy");
    }
    options.random_starts = static_cast<int>(arguments_.integer("starts"));
    options.seed = static_cast<std::uint64_t>(arguments_.integer("seed"));
    options.newton.relative_tolerance = arguments_.number("rtol");
    options.newton.max_iterations = static_cast<int>(arguments_.integer("max-iterations"));
    if (arguments_.has("time-limit")) options.newton.time_limit_seconds = arguments_.number("time-limit");
    options.newton.on_iteration = session_.on_iteration();
    options.on_start_iteration = session_.on_start_iteration();
    return options;
  }

  struct NamedMatrix {
    std::string_view name;
    const RowMajorMatrix& matrix;
  };
  static std::vector<NamedMatrix> matrices(const AttentionResult& result) {
    return {{"X.npy", result.unknowns.X}, {"Y.npy", result.unknowns.Y}, {"P.npy", result.P}, {"Q.npy", result.Q}};
  }

  void write(const AttentionResult& result, const std::vector<InputFile>& files, const AttentionSequence& first,
             ExitCode code) {
    nlohmann::ordered_json run = session_.run_json(files, tile_rows(first.keys.rows()));
    nlohmann::ordered_json summary = newton_json(result.summary);
    summary.update({{"method", method_name(result)},
                    {"model", model_name(result.model)},
                    {"start_iterations", result.start_iterations},
                    {"values", result.values},
                    {"best_start", result.best_start},
                    {"relative_error", result.error}});
    run.update({{"summary", summary}, {"notes", result.notes}, {"warnings", result.warnings}});
    std::vector<RunDirectory::Array> arrays;
    std::vector<std::string_view> stale;
    for (const auto& [name, matrix] : matrices(result)) {
      if (matrix.size() == 0)
        stale.push_back(name);
      else
        arrays.push_back({name, span_of(matrix), {matrix.rows(), matrix.cols()}});
    }
    session_.directory().finish(result.summary, arrays, stale, run, code);
  }

  std::vector<std::string> written_files(const AttentionResult& result) const {
    if (!session_.directory().is_used()) return {};
    std::vector<std::string> files;
    for (const auto& [name, matrix] : matrices(result))
      if (matrix.size() > 0) files.push_back(session_.directory().file(name));
    for (const std::string_view name : {"run.json", "history.csv", "status.json"})
      files.push_back(session_.directory().file(name));
    return files;
  }

  std::string method_name(const AttentionResult& result) const {
    return result.unknowns.Y.size() == 0 ? "newton-cg" : arguments_.text("method");
  }

  std::string start_text(const AttentionResult& result) const {
    if (result.best_start > 0) return "random start " + std::to_string(result.best_start);
    switch (result.start) {
      case AttentionStart::cross_entropy: return "the cross-entropy minimiser";
      case AttentionStart::given: return printable(arguments_.text("start"));
      default: return result.unknowns.Y.size() > 0 || result.P.size() > 0 ? "a descent step from X = 0" : "X = 0";
    }
  }

  std::string summary(const AttentionResult& result, const std::vector<AttentionSequence>& sequences,
                      const std::vector<std::string>& files) const {
    const NewtonSummary& newton = result.summary;
    const AttentionUnknowns& found = result.unknowns;
    const bool with_values = found.Y.size() > 0;
    const auto shape = [](const RowMajorMatrix& matrix) {
      return std::to_string(matrix.rows()) + " x " + std::to_string(matrix.cols());
    };
    const std::string reference = result.P.size() > 0 ? "|g(start)|" : "|g(0)|";
    const std::string unknowns = "X " + shape(found.X) +
                                 (result.P.size() > 0 ? " = P Q^T of rank " + std::to_string(result.P.cols()) : "") +
                                 (with_values ? ", Y " + shape(found.Y) : "");
    const std::string start_iterations =
        result.start_iterations > 0 ? " + " + std::to_string(result.start_iterations) + " for the start" : "";
    std::string text =
        termination_text(arguments_, newton, reference) + "\n" +
        summary_line("problem", counted(static_cast<std::int64_t>(sequences.size()), "sequence") + ", the first " +
                                    std::to_string(sequences[0].partition.rows_global()) + " queries x " +
                                    std::to_string(sequences[0].keys.rows()) + " keys, " + unknowns + ", form " +
                                    arguments_.text("form")) +
        summary_line("method", method_name(result) + " from " + start_text(result) + ", " +
                                   std::string(model_name(result.model)) + " model") +
        summary_line("L", scientific(newton.value, 9)) + summary_line("|g|", scientific(newton.gradient_norm, 4)) +
        summary_line("|g| / " + reference, scientific(newton.relative_gradient, 4));
    if (newton.gradient_floor > 0) text += summary_line("rounding floor", scientific(newton.gradient_floor, 4));
    return text + summary_line("iterations", std::to_string(newton.iterations) + start_iterations) +
           summary_line("passes", fixed(newton.reads_of_a, 0)) +
           summary_line("collectives", std::to_string(newton.collectives)) +
           summary_line("seconds", fixed(newton.seconds, 3) + " on " + counted(communicator_.size(), "rank") +
                                       " with " + counted(session_.threads().threads, "thread") + " each") +
           "\nFit\n" +
           summary_line("relative error",
                        scientific(result.error, 4) + (with_values ? "  (|F A3 Y - B| / |B|, F = softmax(A1 X A2^T))"
                                                                   : "  (|F - B| / |B|, F = softmax(A1 X A2^T))")) +
           list_text("Notes", result.notes) + list_text("Warnings", result.warnings) + list_text("Files", files);
  }

  const Communicator& communicator_;
  const Arguments& arguments_;
  Session session_;
};

ExitCode attention(const Communicator& communicator, const Arguments& arguments) {
  check(arguments);
  return Attention(communicator, arguments).run();
}

}  // namespace

Command attention_command() { return {kAttentionSyntax, attention}; }

}  // namespace attnreg::app
