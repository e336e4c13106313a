#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "app/node/job_plan.hpp"
#include "app/options/commands.hpp"
#include "app/options/solver_options.hpp"
#include "app/report/certificate_report.hpp"
#include "app/report/results_table.hpp"
#include "app/report/summary.hpp"
#include "app/report/text.hpp"
#include "app/run/faults.hpp"
#include "app/run/problem.hpp"
#include "app/run/session.hpp"
#include "attnreg/files.hpp"
#include "attnreg/regression.hpp"
#include "errors/printable.hpp"
#include "losses/losses.hpp"
#include "ranks/memory.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kSolveEpilogue = R"(Examples:
  attnreg solve A.npy b.npy --weight 1e-4
  mpirun -n 4 attnreg solve A.npy b.npy --weight 1e-5 --certificate full -o run --write-fitted
  attnreg solve A.npy b.npy --weights-path 1e-2:1e-7:10 -o path
  attnreg solve A.npy --targets B.npy --weight 1e-4 -o runs
  attnreg solve A.npy b.npy --weights w.npy --start run/x.npy --rtol 1e-12 -o refined

A.npy is n x d, b.npy has n values; both float32 or float64. The summary goes to stdout, the steps to stderr.
Exit code 0: converged; 4: stopped before, x is written all the same.
)";

const Syntax kSolveSyntax{
    "solve",
    "Find x so that softmax(A x) reproduces b: minimise L(x) = phi(A x) + 1/2 |diag(w) A x|^2.",
    {{"A", "n x d matrix, .npy"}, {"b", "n target values, .npy"}},
    [] {
      std::vector<OptionGroup> groups{model_options()};
      groups[0].options.push_back(
          {"targets", 0, "FILE", Text{}, "",
           "B, n x k, in place of b: k regressions with the same A, one for each column, that share "
           "the reads of A"});
      for (auto& group : solver_options()) groups.push_back(std::move(group));
      groups.push_back(computing_options());
      groups.push_back(
          session_options("run directory for x.npy, run.json, history.csv, status.json; default: none",
                          {{"write-fitted", 0, "", Switch{}, "", "also write f = softmax(A x) to f.npy there"}}));
      return groups;
    }(),
    kSolveEpilogue,
    {},
    "targets"};

void check(const Arguments& arguments, int ranks) {
  arguments.exclude("weight", "weights");
  check_solver_options(arguments, ranks);
  check_session_options(arguments, {"write-fitted"});
  arguments.exclude("targets", "weights-path");
}

/// "0", "1", ...
std::vector<std::string> numbers_to(std::size_t count) {
  std::vector<std::string> numbers;
  for (std::size_t k = 0; k < count; ++k) numbers.push_back(std::to_string(k));
  return numbers;
}

/// One solve: what is shared by its steps.
class Solve {
 public:
  Solve(const Communicator& communicator, const Arguments& arguments)
      : communicator_(communicator), arguments_(arguments), session_(communicator, arguments) {}

  ExitCode run() {
    return session_.run([this] { return load_and_solve(); });
  }

 private:
  ExitCode load_and_solve() {
    const std::vector<InputFile> files = examine_files();
    session_.begin(files, bytes_needed(files[0]),
                   printable(files[0].header.path) + ": a solve with shape " + files[0].header.shape_text());
    const Problem problem = load_problem(communicator_, arguments_);
    inject_fault(communicator_.rank(), "after-load");
    return has_targets(arguments_) ? solve_several(problem, files) : solve_one(problem, files);
  }

  /// One regression, or a path of weights.
  ExitCode solve_one(const Problem& problem, const std::vector<InputFile>& files) {
    const RowMatrix& A = problem.A;
    const std::vector<double> weights = weights_path(arguments_);
    std::vector<RegressionResult> path;
    if (weights.empty())
      path.push_back(solve_regression(A, problem.b, problem.w, options(A)));
    else
      path = solve_path(A, problem.b, weights, options(A));
    const RegressionResult& result = path.back();
    const ExitCode code = exit_code(worst_result(path).summary.termination);
    std::vector<std::string> shown, exactly;
    for (const double weight : weights) {
      shown.push_back(scientific(weight, 3));
      exactly.push_back(exact(weight));
    }
    const SolveReport report{arguments_,
                             result,
                             A.rows_global(),
                             A.columns(),
                             A.storage() == Storage::float32 ? "float32" : "float64",
                             communicator_.size(),
                             session_.threads().threads,
                             weights.empty() ? "" : results_table("w          ", shown, path, true)};
    session_.end(
        [&] {
          RunDirectory& directory = session_.directory();
          directory.write_array("x.npy", span_of(result.x), {result.x.size()});  // first: it must not be lost
          if (with_fitted()) directory.write_rows("f.npy", span_of(result.fitted), A.partition(), {A.rows_global()});
          if (!weights.empty()) {
            RowMajorMatrix X(std::ssize(path), A.columns());
            for (Index k = 0; k < X.rows(); ++k) X.row(k) = path[static_cast<std::size_t>(k)].x.transpose();
            directory.write_array("x_path.npy", span_of(X), {X.rows(), X.cols()});
            directory.write_text("path.csv", results_csv("weight", exactly, path, false));
          }
          nlohmann::ordered_json run = session_.run_json(files, tile_rows(A.columns()));
          run.update({{"seed", arguments_.integer("seed")},
                      {"summary", summary_json(result)},
                      {"certificate", certificate_json(result.certificate)},
                      {"sketched_steps", sketched_json(result.sketched_steps)}});
          run.update(remarks_json(result));
          std::vector<std::string_view> stale;
          if (!with_fitted()) stale.push_back("f.npy");
          directory.finish(result.summary, stale, run, code);
        },
        [&](const std::vector<std::string>& written) { return summary_text(report, written); });
    return code;
  }

  ExitCode solve_several(const Problem& problem, const std::vector<InputFile>& files) {
    const RowMatrix& A = problem.A;
    const auto& shape = files[1].header.shape;
    const RowMajorMatrix B = load_matrix_rows(communicator_, arguments_.text("targets"), "targets", A.partition(),
                                              shape.size() > 1 ? shape[1] : 1);
    const auto results = solve_targets(A, B, problem.w, options(A), session_.on_target_iteration());
    const ExitCode code = exit_code(worst_result(results).summary.termination);
    session_.end([&] { write_several(results, A, files, code); },
                 [&](const std::vector<std::string>& written) { return targets_text(results, A, written); });
    return code;
  }

  void write_several(const std::vector<RegressionResult>& results, const RowMatrix& A,
                     const std::vector<InputFile>& files, ExitCode code) {
    RunDirectory& directory = session_.directory();
    const auto targets = std::ssize(results);
    RowMajorMatrix X(A.columns(), targets), F(A.rows_local(), targets);
    auto summaries = nlohmann::ordered_json::array();
    for (Index k = 0; k < targets; ++k) {
      const RegressionResult& result = results[static_cast<std::size_t>(k)];
      X.col(k) = result.x;
      F.col(k) = result.fitted;
      nlohmann::ordered_json summary = summary_json(result);
      summary.update({{"certificate", certificate_json(result.certificate)},
                      {"notes", result.notes},
                      {"warnings", result.warnings}});
      summaries.push_back(std::move(summary));
    }
    nlohmann::ordered_json run = session_.run_json(files, tile_rows(A.columns()));
    run.update({{"seed", arguments_.integer("seed")}, {"targets", summaries}});
    std::vector<std::string_view> stale{"x.npy", "f.npy"};
    directory.write_array("X.npy", span_of(X), {X.rows(), X.cols()});
    if (with_fitted())
      directory.write_rows("F.npy", span_of(F), A.partition(), {A.rows_global(), targets});
    else
      stale.push_back("F.npy");
    directory.write_text("targets.csv", results_csv("target", numbers_to(results.size()), results, true));
    directory.finish(worst_result(results).summary, stale, run, code);
  }

  /// The page of several targets: a line for each, what all of them cost, notes and warnings.
  std::string targets_text(const std::vector<RegressionResult>& results, const RowMatrix& A,
                           const std::vector<std::string>& written) const {
    double reads = 0, seconds = 0;
    std::size_t converged = 0;
    for (const auto& result : results) {
      converged += exit_code(result.summary.termination) == ExitCode::converged ? 1 : 0;
      reads += result.summary.reads_of_a;
      seconds = std::max(seconds, result.summary.seconds);
    }
    const bool parts = make_loss(arguments_.text("loss"))->fits_distribution();
    return std::to_string(converged) + " of " + counted(std::ssize(results), "target") + " converged\n\n" +
           results_table("target  ", numbers_to(results.size()), results, parts) + "\n" +
           summary_line("problem", std::to_string(A.rows_global()) + " x " + std::to_string(A.columns()) + ", " +
                                       arguments_.text("loss") + " loss, w = " + weight_text(arguments_)) +
           summary_line("reads of A", fixed(reads, 1) + " in all; a read that several targets share is counted once") +
           summary_line("seconds", seconds_text(seconds, communicator_.size(), session_.threads().threads)) +
           list_text("Notes", of_all_targets(results, &SolveResult::notes)) +
           list_text("Warnings", of_all_targets(results, &SolveResult::warnings)) + list_text("Files", written);
  }

  std::vector<InputFile> examine_files() const {
    std::vector<InputFile> files;
    communicator_.agree([&] {
      files = examine_problem(arguments_);
      if (const auto start = start_file(arguments_)) files.push_back(examine("start", *start));
    });
    return files;
  }

  /// Bytes that a rank takes at least.
  double bytes_needed(const InputFile& A) const {
    const auto& shape = A.header.shape;
    if (shape.empty() || shape[0] < 1) return 0;
    const StorageChoice storage = storage_choice(arguments_);
    const bool single =
        storage == StorageChoice::float32 || (storage == StorageChoice::as_file && A.header.type == Storage::float32);
    return solve_bytes({shape[0], shape.size() > 1 ? shape[1] : 1, A.nonzeros.value_or(0), A.nonzeros.has_value(),
                        single ? Storage::float32 : Storage::float64},
                       communicator_.size(), session_.threads().threads,
                       linear_solver_options(arguments_, communicator_.size()), arguments_.integer("sketch-rows"));
  }

  RegressionOptions options(const RowMatrix& A) {
    RegressionOptions options = regression_options(arguments_, communicator_.size());
    if (const auto file = start_file(arguments_)) options.x0 = load_vector(communicator_, *file, "start", A.columns());
    options.newton.on_iteration = session_.on_iteration();
    options.on_start_iteration = session_.on_start_iteration();
    return options;
  }

  bool with_fitted() const { return arguments_.on("write-fitted"); }

  const Communicator& communicator_;
  const Arguments& arguments_;
  Session session_;
};

ExitCode solve(const Communicator& communicator, const Arguments& arguments) {
  check(arguments, communicator.size());
  return Solve(communicator, arguments).run();
}

}  // namespace

Command solve_command() { return {kSolveSyntax, solve}; }

}  // namespace attnreg::app
