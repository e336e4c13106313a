#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "attnreg/npy.hpp"
#include "attnreg/regression.hpp"
#include "certificate_report.hpp"
#include "commands.hpp"
#include "faults.hpp"
#include "job_plan.hpp"
#include "memory.hpp"
#include "path_report.hpp"
#include "printable.hpp"
#include "problem.hpp"
#include "run_directory.hpp"
#include "solver_options.hpp"
#include "step_log.hpp"
#include "summary.hpp"
#include "text.hpp"
#include "threads.hpp"
#include "version.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kEpilogue = R"(Examples:
  attnreg solve A.npy b.npy --weight 1e-4
  mpirun -n 4 attnreg solve A.npy b.npy --weight 1e-5 --certificate full -o run --write-fitted
  attnreg solve A.npy b.npy --weights-path 1e-2:1e-7:10 -o path
  attnreg solve A.npy b.npy --weights w.npy --start run/x.npy --rtol 1e-12 -o refined

A.npy is n x d, b.npy has n values; both float32 or float64. The summary goes to stdout, the steps to stderr.
Exit code 0: converged; 4: stopped before, x is written all the same.
)";

const Syntax kSyntax{
    "solve",
    "Find x so that softmax(A x) reproduces b: minimise L(x) = phi(A x) + 1/2 |diag(w) A x|^2.",
    {{"A", "n x d matrix, .npy"}, {"b", "n target values, .npy"}},
    [] {
      std::vector<OptionGroup> groups{model_options()};
      for (auto& group : solver_options()) groups.push_back(std::move(group));
      groups.push_back(computing_options());
      groups.push_back({"Output",
                        {{"output", 'o', "DIR", Text{}, "",
                          "run directory for x.npy, run.json, history.csv, status.json; default: none"},
                         {"write-fitted", 0, "", Switch{}, "", "also write f = softmax(A x) to f.npy there"},
                         {"force", 0, "", Switch{}, "", "replace a finished run in DIR"},
                         {"quiet", 'q', "", Switch{}, "", "no step lines"},
                         {"verbose", 'v', "", Switch{}, "", "say more about files, ranks and memory"},
                         help_option()}});
      return groups;
    }(),
    kEpilogue};

void check(const Arguments& arguments, int ranks) {
  arguments.exclude("weight", "weights");
  arguments.exclude("quiet", "verbose");
  check_solver_options(arguments, ranks);
  for (const std::string_view name : {"write-fitted", "force"})
    if (arguments.on(name) && !arguments.given("output"))
      throw UsageError("--" + std::string(name) + " needs a run directory; add -o DIR");
}

Verbosity verbosity(const Arguments& arguments) {
  if (arguments.on("quiet")) return Verbosity::quiet;
  return arguments.on("verbose") ? Verbosity::verbose : Verbosity::normal;
}

/// One solve: what is shared by its steps.
class Solve {
 public:
  Solve(const Communicator& communicator, const Arguments& arguments)
      : communicator_(communicator),
        arguments_(arguments),
        verbosity_(verbosity(arguments)),
        threads_(set_threads(communicator, arguments.optional_integer("threads"))),
        directory_(communicator, arguments.text("output"), arguments.on("force")),
        steps_(verbosity_) {}

  ExitCode run() {
    try {
      return load_and_solve();
    } catch (const Error& error) {
      const bool agreed = error.scope() == Error::Scope::all_ranks;
      if (communicator_.is_root() || !agreed) directory_.fail(agreed ? error.code() : ExitCode::internal);
      throw;
    } catch (...) {
      directory_.fail(ExitCode::internal);
      throw;
    }
  }

 private:
  ExitCode load_and_solve() {
    const std::vector<InputFile> files = examine_files();
    const Problem problem = load(files[0]);
    inject_fault(communicator_.rank(), "after-load");
    const std::vector<double> weights = weights_path(arguments_);
    std::vector<RegressionResult> path;
    if (weights.empty())
      path.push_back(solve_regression(problem.A, problem.b, problem.w, options(problem.A)));
    else
      path = solve_path(problem.A, problem.b, weights, options(problem.A));
    const RegressionResult& result = path.back();
    inject_fault(communicator_.rank(), "before-write");
    const ExitCode code = worst_code(path);
    SolveReport report{arguments_,          result,    problem.A.rows_global(),
                       problem.A.columns(), "float64", communicator_.size(),
                       threads_.threads,    {},        {}};
    if (problem.A.storage() == Storage::float32) report.storage = "float32";
    if (!weights.empty()) report.path = path_table(weights, path);
    try {
      if (!weights.empty()) directory_.write_path(weights, path);
      write(result, problem.A, files, code);
    } catch (const OutputError&) {
      print_result(communicator_, summary_text(report));  // x is lost, what is known of it is not
      throw;
    }
    if (directory_.is_used()) report.files = written_files();
    print_result(communicator_, summary_text(report));
    return code;
  }

  std::vector<InputFile> examine_files() {
    std::vector<InputFile> files;
    communicator_.agree([&] {
      files = examine_problem(arguments_);
      if (const auto start = start_file(arguments_)) files.push_back(examine("start", *start));
    });
    if (communicator_.is_root()) describe(files);
    return files;
  }

  void describe(const std::vector<InputFile>& files) const {
    if (verbosity_ == Verbosity::quiet) return;
    if (threads_.crowded())
      print_line("attnreg: note: " + counted(threads_.ranks_on_cores, "rank") + " with " +
                 counted(threads_.threads, "thread") + " each share " + counted(threads_.cores, "core"));
    if (verbosity_ != Verbosity::verbose) return;
    for (const auto& file : files)
      print_line("attnreg: " + file.role + ": " + printable(file.header.path) + ", " + file.header.shape_text() + " " +
                 file.header.dtype_text() + (file.nonzeros ? ", " + std::to_string(*file.nonzeros) + " entries" : "") +
                 ", " + std::to_string(file.bytes) + " bytes");
    print_line("attnreg: " + counted(communicator_.size(), "rank") + ", " +
               std::to_string(communicator_.ranks_on_node()) + " on this node, " + counted(threads_.threads, "thread") +
               " each");
    print_line("attnreg: memory: at least " + plain(bytes_needed(files[0]) / 1e6, 4) + " MB per rank, " +
               plain(available_node_memory() / 1e6, 4) + " MB available on this node");
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
                       communicator_.size(), threads_.threads, linear_solver_options(arguments_, communicator_.size()),
                       arguments_.integer("sketch-rows"));
  }

  Problem load(const InputFile& A) const {
    require_memory(communicator_, bytes_needed(A),
                   printable(A.header.path) + ": a solve with shape " + A.header.shape_text());
    return load_problem(communicator_, arguments_);
  }

  RegressionOptions options(const RowMatrix& A) {
    RegressionOptions options = regression_options(arguments_, communicator_.size());
    if (const auto file = start_file(arguments_)) options.x0 = load_vector(communicator_, *file, "start", A.columns());
    options.newton.on_iteration = [this](const IterationRecord& record) {
      inject_fault(communicator_.rank(), "in-iteration");
      if (communicator_.is_root()) steps_.print(record);
      directory_.record(record);
    };
    options.on_start_iteration = [this](const IterationRecord& record) {
      if (communicator_.is_root()) steps_.print_start(record);
      directory_.record_start(record);
    };
    return options;
  }

  void write(const RegressionResult& result, const RowMatrix& A, const std::vector<InputFile>& files, ExitCode code) {
    const auto ranks_on_node = communicator_.all_gather(std::int64_t{communicator_.ranks_on_node()});
    nlohmann::ordered_json inputs;
    for (const auto& file : files) inputs[file.role] = to_json(file);
    const nlohmann::ordered_json run{{"schema", "attnreg-run-1"},
                                     {"command", "solve"},
                                     {"configuration", arguments_.configuration()},
                                     {"build", build_facts()},
                                     {"layout",
                                      {{"ranks", communicator_.size()},
                                       {"ranks_per_node", ranks_on_node},
                                       {"threads", threads_.threads},
                                       {"cores", threads_.cores},
                                       {"tile_rows", tile_rows(A.columns())}}},
                                     {"inputs", inputs},
                                     {"seed", arguments_.integer("seed")},
                                     {"summary", summary_json(result)},
                                     {"certificate", certificate_json(result.certificate)},
                                     {"minima", minima_json(result.minima)},
                                     {"sketched_steps", sketched_json(result.sketched_steps)},
                                     {"notes", result.notes},
                                     {"warnings", result.warnings}};
    directory_.finish(result, A.partition(), arguments_.on("write-fitted"), run, code);
  }

  std::vector<std::string> written_files() const {
    std::vector<std::string> files{directory_.file("x.npy")};
    if (arguments_.on("write-fitted")) files.push_back(directory_.file("f.npy"));
    if (arguments_.has("weights-path"))
      for (const std::string_view name : {"x_path.npy", "path.csv"}) files.push_back(directory_.file(name));
    for (const std::string_view name : {"run.json", "history.csv", "status.json"})
      files.push_back(directory_.file(name));
    return files;
  }

  const Communicator& communicator_;
  const Arguments& arguments_;
  Verbosity verbosity_;
  ThreadLayout threads_;
  RunDirectory directory_;
  StepLog steps_;
};

ExitCode solve(const Communicator& communicator, const Arguments& arguments) {
  check(arguments, communicator.size());
  return Solve(communicator, arguments).run();
}

}  // namespace

Command solve_command() { return {kSyntax, solve}; }

}  // namespace attnreg::app
