#include <algorithm>
#include <nlohmann/json.hpp>

#include "app/options/commands.hpp"
#include "app/options/solver_options.hpp"
#include "app/report/row_names.hpp"
#include "app/report/summary.hpp"
#include "app/report/text.hpp"
#include "app/report/verdict.hpp"
#include "app/run/problem.hpp"
#include "app/run/session.hpp"
#include "attnreg/files.hpp"
#include "attnreg/regression.hpp"
#include "errors/faults.hpp"
#include "errors/printable.hpp"
#include "files/text_table.hpp"
#include "losses/losses.hpp"
#include "ranks/memory.hpp"
#include "ranks/span_of.hpp"
#include "regression/row_space.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kSolveEpilogue = R"(Examples:
  attnreg solve A.npy b.npy --weight 1e-4
  mpirun -n 4 attnreg solve A.npy b.npy --weight 1e-5 --certificate full -o run --write-fitted
  attnreg solve A.npy b.npy --weights-path 1e-2:1e-7:10 -o path
  attnreg solve A.npy --targets B.npy --weight 1e-4 -o runs
  attnreg solve A.npy counts.npy --loss cross-entropy --normalise-b --offset log_exposure.npy -o rates
  attnreg solve A.npy b.npy --weights w.npy --start run/x.npy --rtol 1e-12 -o refined

A.npy is n x d, b.npy has n values; both float32 or float64. The summary goes to stdout, the steps to stderr.
Exit code 0: converged; 4: stopped before, x is written all the same.
)";

const Syntax kSolveSyntax{
    "solve",
    "Find x so that softmax(A x) reproduces b: minimise L(x) = phi(A x) + 1/2 |diag(w) A x|^2.",
    {{"A", "n x d matrix, .npy"}, {"b", "n target values, .npy"}},
    [] {
      std::vector<OptionGroup> groups = solve_options();
      groups.push_back(
          session_options("run directory for x.npy, run.json, history.csv, status.json; default: none",
                          {{"write-fitted", 0, "", Switch{}, "", "also write f = softmax(A x) to f.npy there"},
                           {"labels", 0, "FILE", Text{}, "",
                            "names of the rows of A, one a line, or in the first column of a .csv: the summary then "
                            "names the rows where f, b and f - b are largest"}}));
      return groups;
    }(),
    kSolveEpilogue,
    {},
    "targets"};

/// "0", "1", ...
std::vector<std::string> numbers_to(std::size_t count) {
  std::vector<std::string> numbers;
  for (std::size_t k = 0; k < count; ++k) numbers.push_back(std::to_string(k));
  return numbers;
}

/// One solve: what is shared by its steps.
class Solve : public Session {
 public:
  using Session::Session;

 private:
  ExitCode load_and_solve() override {
    const std::vector<InputFile> files = examine_files();
    begin(files, bytes_needed(files),
          printable(files[0].header.path) + ": a solve with shape " + files[0].header.shape_text() +
              advice(files[0].header));
    const Problem problem = load_problem(communicator_, arguments_);
    faults::at("after-load");
    return has_targets(arguments_) ? solve_several(problem, files) : solve_one(problem, files);
  }

  /// One regression, or a path of weights.
  ExitCode solve_one(const Problem& problem, const std::vector<InputFile>& files) {
    const RowMatrix& A = problem.A;
    const std::vector<double> weights = weights_path(arguments_);
    const RegressionOptions chosen = options(problem);
    std::vector<RegressionResult> path;
    std::vector<RunDirectory::Array> arrays{{"x.npy", A.columns()}};
    if (!weights.empty()) arrays.push_back({"x_path.npy", std::ssize(weights) * A.columns()});
    ready(arrays, true);
    timing_.loading = clock_.seconds();
    if (weights.empty())
      path.push_back(solve_regression(A, problem.b, problem.w, chosen));
    else
      path = solve_path(A, problem.b, weights, chosen);
    take_time(path);
    RegressionResult& result = path.back();
    result.summary.seconds = timing_.solve;
    if (problem.b_sum) result.notes.push_back(normalised_text(*problem.b_sum));
    for (const auto& note : rounding_note(A, files[0].header.type, "A")) result.notes.push_back(note);
    const bool cut_off = !weights.empty() && path.size() < weights.size();
    const ExitCode code = cut_off ? code_of(Termination::time_limit) : code_of(worst_result(path).summary.termination);
    std::vector<std::string> shown, exactly;
    for (std::size_t k = 0; k < path.size() && !weights.empty(); ++k) {
      shown.push_back(scientific(weights[k], 3));
      exactly.push_back(exact(weights[k]));
    }
    std::string table = weights.empty() ? "" : results_table("w        ", shown, path, true);
    for (const auto& line : failures_text(arguments_, path, "weight"))
      if (!weights.empty()) table += "  NOT converged, " + line + "\n";
    if (cut_off)
      table += std::string("  NOT solved, ") + (communicator_.is_stopped() ? "stopped: " : "time limit: ") +
               counted(std::ssize(weights) - std::ssize(path), "weight") + " from " +
               scientific(weights[path.size()], 3) + " on" + cut_off_text(arguments_, communicator_.is_stopped()) +
               "\n";
    const LargestNames names = largest_names(problem, result, files[0].header);
    const SolveReport report{arguments_, result, A, threads_.threads, timing_, table, names.text};
    end({result.summary, code,
         [&] {
           nlohmann::ordered_json run = run_json(files, tile_rows(A.columns()));
           run["seed"] = arguments_.integer("seed");
           run.update(regression_json(report));
           run["summary"].update(timing_json(timing_));
           if (!names.json.is_null()) run["largest"] = names.json;
           return run;
         },
         [&] {
           directory_.write_array("x.npy", span_of(result.x), {result.x.size()});  // first: it must not be lost
           if (with_fitted()) directory_.write_rows("f.npy", span_of(result.fitted), A.partition(), {A.rows_global()});
           if (!weights.empty()) {
             RowMajorMatrix X(std::ssize(path), A.columns());
             for (Index k = 0; k < X.rows(); ++k) X.row(k) = path[static_cast<std::size_t>(k)].x.transpose();
             directory_.write_array("x_path.npy", span_of(X), {X.rows(), X.cols()});
             directory_.write_text("path.csv", results_csv("weight", exactly, path, false));
           }
         },
         [&](const std::vector<std::string>& written) { return summary_text(report, written); }});
    return code;
  }

  /// The largest rows and columns by name, as the page and as run.json have them.
  struct LargestNames {
    std::string text;
    nlohmann::ordered_json json = nullptr;
  };

  /// Collective. Of rows with --labels, of columns where the file has their names.
  LargestNames largest_names(const Problem& problem, const RegressionResult& result, const Source& A) {
    LargestNames found;
    std::vector<NamedValues> rows, columns;
    if (arguments_.given("labels")) {
      std::vector<std::string> labels;
      communicator_.agree_on_root([&] { labels = read_labels(arguments_.text("labels"), problem.A.rows_global()); });
      rows = {largest_rows(problem.A, "f", result.fitted, labels), largest_rows(problem.A, "b", problem.b, labels),
              largest_rows(problem.A, "f - b", result.fitted - problem.b, labels)};
    }
    if (A.table && !A.table->names().empty()) columns = {largest_columns(result.x, A.table->names())};
    found.text = named_text("Largest rows", rows) + named_text("Largest columns", columns);
    rows.insert(rows.end(), columns.begin(), columns.end());
    if (!rows.empty()) found.json = named_json(rows);
    return found;
  }

  ExitCode solve_several(const Problem& problem, const std::vector<InputFile>& files) {
    const RowMatrix& A = problem.A;
    Eigen::MatrixXd B = load_matrix_rows(communicator_, arguments_.text("targets"), "targets", A.partition(),
                                         files[1].header.columns());
    std::vector<double> sums;
    if (arguments_.on("normalise-b"))
      for (Index k = 0; k < B.cols(); ++k) {
        Eigen::VectorXd b = B.col(k);
        sums.push_back(
            normalise(communicator_, b, A.rows_global(), "target " + std::to_string(k), problem.offset.get()));
        B.col(k) = b;
      }
    require_squares(A, B, arguments_.text("targets"), false);
    RegressionOptions chosen = options(problem);
    // Whose passes the targets share after a checkpoint is not the same, and neither are their roundings.
    if (communicator_.is_of_blocks()) chosen.newton.journal = nullptr;
    ready({{"X.npy", A.columns() * B.cols()}}, true);
    timing_.loading = clock_.seconds();
    auto results = solve_targets(A, B, problem.w, chosen, on_target_iteration());
    take_time(results);
    for (std::size_t k = 0; k < sums.size(); ++k) results[k].notes.push_back(normalised_text(sums[k]));
    for (auto& result : results)
      for (const auto& note : rounding_note(A, files[0].header.type, "A")) result.notes.push_back(note);
    const ExitCode code = code_of(worst_result(results).summary.termination);
    B.resize(0, 0);
    end({worst_result(results).summary, code, [&] { return targets_json(results, A, files); },
         [&] { write_several(results, A); },
         [&](const std::vector<std::string>& written) { return targets_text(results, A, written); }});
    return code;
  }

  nlohmann::ordered_json targets_json(const std::vector<RegressionResult>& results, const RowMatrix& A,
                                      const std::vector<InputFile>& files) const {
    auto summaries = nlohmann::ordered_json::array();
    for (const auto& result : results) {
      nlohmann::ordered_json summary = summary_json(arguments_, result, A.rows_global());
      summary.update({{"certificate", certificate_json(result.certificate)},
                      {"notes", result.notes},
                      {"warnings", result.warnings}});
      if (result.audit.rate > 0) summary["audit"] = audit_json(result.audit);
      summaries.push_back(std::move(summary));
    }
    nlohmann::ordered_json run = run_json(files, tile_rows(A.columns()));
    run.update({{"seed", arguments_.integer("seed")}, {"timing", timing_json(timing_)}, {"targets", summaries}});
    return run;
  }

  void write_several(const std::vector<RegressionResult>& results, const RowMatrix& A) {
    const auto targets = std::ssize(results);
    RowMajorMatrix X(A.columns(), targets), F(with_fitted() ? A.rows_local() : 0, targets);
    for (Index k = 0; k < targets; ++k) {
      const RegressionResult& result = results[static_cast<std::size_t>(k)];
      X.col(k) = result.x;
      if (with_fitted()) F.col(k) = result.fitted;
    }
    directory_.write_matrix("X.npy", X);
    if (with_fitted()) directory_.write_rows("F.npy", span_of(F), A.partition(), {A.rows_global(), targets});
    directory_.write_text("targets.csv", results_csv("target", numbers_to(results.size()), results, true));
  }

  /// The page of several targets: a line for each, what all of them cost, notes and warnings.
  std::string targets_text(const std::vector<RegressionResult>& results, const RowMatrix& A,
                           const std::vector<std::string>& written) const {
    double reads = 0;
    std::size_t converged = 0;
    for (const auto& result : results) {
      converged += exit_code(result.summary.termination) == ExitCode::converged ? 1 : 0;
      reads += result.summary.reads_of_a;
    }
    const bool parts = make_loss(arguments_.text("loss"))->fits_distribution();
    std::string failures;
    for (const auto& line : failures_text(arguments_, results, "target")) failures += summary_line("verdict", line);
    return std::to_string(converged) + " of " + counted(std::ssize(results), "target") + " converged\n\n" +
           results_table("target ", numbers_to(results.size()), results, parts) + "\n" + failures +
           summary_line("problem", std::to_string(A.rows_global()) + " x " + std::to_string(A.columns()) + ", " +
                                       arguments_.text("loss") + " loss, w = " + weight_text(arguments_)) +
           summary_line("reads of A", fixed(reads, 1) + " in all; a read that several targets share is counted once") +
           audit_text(results) +
           summary_line("seconds", seconds_text(timing_, communicator_.processes(), threads_.threads)) +
           folded_text("Notes", of_all_targets(results, &SolveResult::notes), arguments_) +
           folded_text("Warnings", of_all_targets(results, &SolveResult::warnings), arguments_) +
           list_text("Files", written);
  }

  std::vector<InputFile> examine_files() const {
    std::vector<InputFile> files;
    communicator_.agree([&] {
      files = examine_problem(arguments_);
      if (const auto start = start_file(arguments_)) files.push_back(examine("start", *start));
    });
    return files;
  }

  /// What a solve of more columns than rows takes, and how it takes less.
  std::string advice(const Source& A) const {
    if (A.shape.empty() || A.columns() <= A.shape[0]) return "";
    if (solves_in_row_space(A.shape[0], A.columns(), options()))
      return ", more columns than rows, for which rank 0 holds A four times in double";
    return ", more columns than rows, which takes less with --certificate gradient, without --epsilon and "
           "--method sketched-newton";
  }

  /// Bytes that a rank takes at least.
  double bytes_needed(const std::vector<InputFile>& files) const {
    constexpr double kSure = 0.9;  // the model is right to a tenth
    const auto& shape = files[0].header.shape;
    if (shape.empty() || shape[0] < 1) return 0;
    const SolveLayout layout{.ranks = communicator_.size(),
                             .ranks_per_node = communicator_.ranks_on_node(),
                             .threads = threads_of_rank(),
                             .node_bytes = available_node_memory()};
    return kSure * solve_bytes(solve_shape(arguments_, files), layout, options());
  }

  RegressionOptions options() const { return regression_options(arguments_, communicator_.size()); }

  RegressionOptions options(const Problem& problem) {
    RegressionOptions options = this->options();
    options.offset = problem.offset;
    if (const auto file = start_file(arguments_))
      options.x0 = load_vector(communicator_, *file, "start", problem.A.columns());
    options.audit = arguments_.number("audit");
    options.newton.on_iteration = on_iteration();
    options.newton.journal = journal_;
    options.on_start_iteration = on_start_iteration();
    return options;
  }

  void take_time(const std::vector<RegressionResult>& results) {
    timing_.solve = clock_.seconds() - timing_.loading;
    for (const auto& result : results) timing_.certificate += result.certificate.seconds;
    timing_.solve -= timing_.certificate;
  }

  bool with_fitted() const { return arguments_.on("write-fitted"); }

  Timing timing_;
};

ExitCode solve(const Communicator& communicator, const Arguments& arguments) {
  check_solve_options(arguments, communicator.size());
  check_session_options(arguments, {"write-fitted"});
  arguments.exclude("targets", "labels");
  return Solve(communicator, arguments).run();
}

}  // namespace

std::vector<OptionGroup> solve_options() {
  std::vector<OptionGroup> groups = solver_options();
  groups.insert(groups.begin(),
                model_options({{"targets", 0, "FILE", Text{}, "",
                                "B, n x k, in place of b: k regressions with the same A, one for each column, "
                                "that share the reads of A"}}));
  groups.push_back({"Audit",
                    {{"audit", 0, "RATE", Number{0, false, 1}, "0",
                      "look for silent data corruption: in every evaluation of L and g another rank makes each block "
                      "of rows again with probability RATE, 0.01 for example, and a third one decides; what is not "
                      "settled ends the run with code 9"}}});
  groups.push_back(computing_options());
  groups.push_back(reproducible_group());
  return groups;
}

void check_solve_options(const Arguments& arguments, int ranks) {
  arguments.exclude("weight", "weights");
  check_solver_options(arguments, ranks);
  arguments.exclude("targets", "weights-path");
  arguments.exclude("ridge", "ridge-scaled");
}

SolveShape solve_shape(const Arguments& arguments, const std::vector<InputFile>& files) {
  const InputFile& A = files.at(0);
  SolveShape shape{.rows = A.header.shape.empty() ? 0 : A.header.shape[0],
                   .columns = A.header.columns(),
                   .entries = A.nonzeros.value_or(0),
                   .sparse = A.nonzeros.has_value(),
                   .storage = held_as(storage_choice(arguments), A.header.type),
                   .row_weights = arguments.given("weights"),
                   .offsets = arguments.given("offset")};
  if (has_targets(arguments)) shape.targets = files.at(1).header.columns();
  return shape;
}

Command solve_command() { return {kSolveSyntax, solve}; }

}  // namespace attnreg::app
