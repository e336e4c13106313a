#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "app/node/job_plan.hpp"
#include "app/options/commands.hpp"
#include "app/options/solver_options.hpp"
#include "app/report/certificate_report.hpp"
#include "app/report/path_report.hpp"
#include "app/report/summary.hpp"
#include "app/report/targets_report.hpp"
#include "app/report/text.hpp"
#include "app/run/faults.hpp"
#include "app/run/problem.hpp"
#include "app/run/session.hpp"
#include "attnreg/files.hpp"
#include "attnreg/regression.hpp"
#include "errors/printable.hpp"
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
    const Problem problem = load(files[0]);
    inject_fault(communicator_.rank(), "after-load");
    if (has_targets(arguments_)) return solve_several(problem, files);
    const std::vector<double> weights = weights_path(arguments_);
    std::vector<RegressionResult> path;
    if (weights.empty())
      path.push_back(solve_regression(problem.A, problem.b, problem.w, options(problem.A)));
    else
      path = solve_path(problem.A, problem.b, weights, options(problem.A));
    const RegressionResult& result = path.back();
    inject_fault(communicator_.rank(), "before-write");
    const ExitCode code = worst_code(path);
    SolveReport report{arguments_,
                       result,
                       problem.A.rows_global(),
                       problem.A.columns(),
                       "float64",
                       communicator_.size(),
                       session_.threads().threads,
                       {},
                       {}};
    if (problem.A.storage() == Storage::float32) report.storage = "float32";
    if (!weights.empty()) report.path = path_table(weights, path);
    try {
      if (!weights.empty()) session_.directory().write_path(weights, path);
      write(result, problem.A, files, code);
    } catch (const OutputError&) {
      print_result(communicator_, summary_text(report));  // x is lost, what is known of it is not
      throw;
    }
    if (session_.directory().is_used()) report.files = written_files();
    print_result(communicator_, summary_text(report));
    return code;
  }

  ExitCode solve_several(const Problem& problem, const std::vector<InputFile>& files) {
    const RowMatrix& A = problem.A;
    const auto& shape = files[1].header.shape;
    const RowMajorMatrix B = load_matrix_rows(communicator_, arguments_.text("targets"), "targets", A.partition(),
                                              shape.size() > 1 ? shape[1] : 1);
    const auto results = solve_targets(A, B, problem.w, options(A), session_.on_target_iteration());
    inject_fault(communicator_.rank(), "before-write");
    const TargetsReport report{
        arguments_, results, A.rows_global(), A.columns(), communicator_.size(), session_.threads().threads};
    const ExitCode code = worst_code(results);
    try {
      write_several(results, A, files, code);
    } catch (const OutputError&) {
      print_result(communicator_, targets_text(report, {}));
      throw;
    }
    print_result(communicator_,
                 targets_text(report, session_.directory().is_used() ? targets_files() : std::vector<std::string>{}));
    return code;
  }

  void write_several(const std::vector<RegressionResult>& results, const RowMatrix& A,
                     const std::vector<InputFile>& files, ExitCode code) {
    RunDirectory& directory = session_.directory();
    const auto targets = static_cast<Index>(results.size());
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
    directory.write_arrays({{"X.npy", span_of(X), {X.rows(), X.cols()}}});
    if (arguments_.on("write-fitted"))
      directory.write_rows("F.npy", F, A.partition());
    else
      stale.push_back("F.npy");
    directory.write_text("targets.csv", targets_csv(results));
    directory.finish(worst_result(results).summary, {}, stale, run, code);
  }

  std::vector<std::string> targets_files() const {
    std::vector<std::string_view> names{"X.npy", "targets.csv", "run.json", "history.csv", "status.json"};
    if (arguments_.on("write-fitted")) names.insert(names.begin() + 1, "F.npy");
    std::vector<std::string> files;
    for (const auto name : names) files.push_back(session_.directory().file(name));
    return files;
  }

  std::vector<InputFile> examine_files() {
    std::vector<InputFile> files;
    communicator_.agree([&] {
      files = examine_problem(arguments_);
      if (const auto start = start_file(arguments_)) files.push_back(examine("start", *start));
    });
    if (communicator_.is_root()) session_.describe(files, bytes_needed(files[0]));
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

  Problem load(const InputFile& A) const {
    require_memory(communicator_, bytes_needed(A),
                   printable(A.header.path) + ": a solve with shape " + A.header.shape_text());
    return load_problem(communicator_, arguments_);
  }

  RegressionOptions options(const RowMatrix& A) {
    RegressionOptions options = regression_options(arguments_, communicator_.size());
    if (const auto file = start_file(arguments_)) options.x0 = load_vector(communicator_, *file, "start", A.columns());
    options.newton.on_iteration = session_.on_iteration();
    options.on_start_iteration = session_.on_start_iteration();
    return options;
  }

  void write(const RegressionResult& result, const RowMatrix& A, const std::vector<InputFile>& files, ExitCode code) {
    nlohmann::ordered_json run = session_.run_json(files, tile_rows(A.columns()));
    run.update({{"seed", arguments_.integer("seed")},
                {"summary", summary_json(result)},
                {"certificate", certificate_json(result.certificate)},
                {"minima", minima_json(result.minima)},
                {"sketched_steps", sketched_json(result.sketched_steps)},
                {"notes", result.notes},
                {"warnings", result.warnings}});
    session_.directory().finish(result, A.partition(), arguments_.on("write-fitted"), run, code);
  }

  std::vector<std::string> written_files() const {
    const RunDirectory& directory = session_.directory();
    std::vector<std::string> files{directory.file("x.npy")};
    if (arguments_.on("write-fitted")) files.push_back(directory.file("f.npy"));
    if (arguments_.has("weights-path"))
      for (const std::string_view name : {"x_path.npy", "path.csv"}) files.push_back(directory.file(name));
    for (const std::string_view name : {"run.json", "history.csv", "status.json"})
      files.push_back(directory.file(name));
    return files;
  }

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
