#include "solve.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "attnreg/files.hpp"
#include "attnreg/regression.hpp"
#include "files/source.hpp"
#include "files/sparse_file.hpp"
#include "problems/problem_generator.hpp"

namespace attnreg::bench {

namespace {

using Eigen::VectorXd;

/// Files of a problem, removed at the end of the scope; on all ranks the same path.
class ProblemFiles {
 public:
  ProblemFiles(const Communicator& communicator, const SolvePlan& plan) : communicator_(communicator) {
    std::string path = plan.scratch + "/attnreg_bench.XXXXXX";
    communicator.agree([&] {
      if (communicator.is_root() && mkdtemp(path.data()) == nullptr) throw OutputError(path + " cannot be made");
    });
    path_ = communicator.broadcast(path);
    ProblemOptions options;
    options.preset = preset_by_name(plan.preset);
    options.rows = plan.rows;
    options.columns = plan.columns;
    options.nonzeros_per_row = plan.nonzeros;
    generate_problem(communicator, options, path_);
  }
  ~ProblemFiles() {
    std::error_code ignored;
    if (communicator_.is_root()) std::filesystem::remove_all(path_, ignored);
  }
  ProblemFiles(const ProblemFiles&) = delete;
  ProblemFiles& operator=(const ProblemFiles&) = delete;

  const std::string& path() const { return path_; }

 private:
  const Communicator& communicator_;
  std::string path_;
};

struct Problem {
  BenchMatrix matrix;
  VectorXd b, w;
};

Problem load(const Communicator& communicator, const SolvePlan& plan) {
  std::optional<ProblemFiles> files;
  if (plan.problem.empty()) files.emplace(communicator, plan);
  const std::string path = files ? files->path() : plan.problem;
  auto matrix = BenchMatrix::load(communicator, path, plan.type);
  const auto& partition = matrix.A().partition();
  VectorXd b = load_rows_vector(communicator, path + "/b.npy", "b", partition);
  VectorXd w = load_rows_vector(communicator, path + "/w.npy", "w", partition);
  communicator.barrier();  // nobody reads any more
  return {std::move(matrix), std::move(b), std::move(w)};
}

RegressionOptions options_of(const SolvePlan& plan) {
  RegressionOptions options;
  options.newton.time_limit_seconds = plan.time_limit_seconds;
  if (plan.start == "zero") options.start = Start::zero;
  if (plan.start == "cross-entropy") options.start = Start::cross_entropy;
  return options;
}

/// G20, in bytes over all ranks: 6 n + 4 d^2 + max(the sketch, the sampled rows x d) doubles; d x d parts on each rank.
double memory_goal(const Communicator& communicator, const SolvePlan& plan) {
  const auto n = static_cast<double>(plan.rows), d = static_cast<double>(plan.columns);
  const double sampled = std::min(n, 36 * d) / communicator.size();
  return 8 * (6 * n + communicator.size() * (4 * d * d + std::max(6 * d * d, sampled * d)));
}

}  // namespace

void read_shape(const Communicator& communicator, SolvePlan& plan) {
  if (std::filesystem::exists(plan.problem + "/A.npz")) {
    const SparseRows A = load_sparse(communicator, plan.problem + "/A.npz", StorageChoice::float64);
    plan.rows = A.partition.rows_global(), plan.columns = A.rows.columns, plan.type = RowType::csr;
    plan.nonzeros = 0;  // it varies
    return;
  }
  const Source header = open_source(plan.problem + "/A.npy");
  if (header.shape.size() != 2)
    throw InvalidArgument(plan.problem + "/A.npy: shape " + header.shape_text() + ", a matrix is needed",
                          Error::Scope::all_ranks);
  plan.rows = header.shape[0], plan.columns = static_cast<Index>(header.shape[1]);
  if (plan.type == RowType::csr) plan.type = RowType::f64;
}

void bench_solve(const Communicator& communicator, const SolvePlan& plan, const Facts& facts, const std::string& csv) {
  const Problem problem = load(communicator, plan);
  const auto& A = problem.matrix.A();
  Report report(communicator, csv, facts);
  const ReadTime before = read_time(problem.matrix, 7);

  const bool can_reset = reset_peak_memory();
  const double resident = resident_bytes();
  RegressionResult result;
  const double seconds =
      timed(communicator, [&] { result = solve_regression(A, problem.b, problem.w, options_of(plan)); });
  const double growth = communicator.sum(peak_resident_bytes() - resident);

  const ReadTime after = read_time(problem.matrix, 7);
  const double R = std::min(before.one_stream, after.one_stream);
  const auto& summary = result.summary;
  const std::string label =
      plan.problem.empty() ? plan.preset : std::filesystem::weakly_canonical(plan.problem).filename().string();
  char line[512];
  std::snprintf(line, sizeof line,
                "solve %s: %s, %s from %s; %d iterations, %.1f reads, %.3f s = %.1f R, R = %.4f s (before %.4f, after "
                "%.4f); relative gradient %.2e (%s)",
                label.c_str(), plan.start.c_str(), std::string(method_name(result.method)).c_str(),
                std::string(start_name(result.start)).c_str(), summary.iterations, summary.reads_of_a, seconds,
                seconds / R, R, before.one_stream, after.one_stream, summary.relative_gradient,
                std::string(termination_name(summary.termination)).c_str());
  report.say(line);
  const std::string name = "solve_" + label;
  const bool is_wide = plan.columns > 256, is_sparse = plan.type == RowType::csr;
  report.add_figure(name + "_seconds", "", seconds);
  report.add_figure(name + "_over_R", is_wide ? "G13b" : "G13", seconds / R, is_sparse ? 0 : is_wide ? 220 : 110);
  report.add_figure(name + "_reads", is_wide ? "G13b" : "G13", summary.reads_of_a, is_sparse ? 130 : 90);
  report.add_figure(name + "_iterations", "", summary.iterations);
  report.add_figure(name + "_seconds_per_iteration", "", seconds / std::max(1, summary.iterations));
  report.add_figure(name + "_R_seconds", "", R);
  report.add_figure(name + "_relative_gradient", "", summary.relative_gradient, 1e-10);
  if (!can_reset) return;
  const double row_bytes = 8 * static_cast<double>(plan.rows);  // figures in doubles per row
  report.add_figure(name + "_memory_doubles_per_row", "G20", growth / row_bytes,
                    memory_goal(communicator, plan) / row_bytes);
}

}  // namespace attnreg::bench
