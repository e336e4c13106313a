#include "app/node/job_plan.hpp"
#include "algebra/linear_solver_choice.hpp"

#include <algorithm>
#include <cmath>

namespace attnreg::app {

namespace {

double least_solver_bytes(LinearSolverOptions solver, int ranks, int threads, std::int64_t d,
                          std::int64_t sketch_rows) {
  const auto bytes = [&](LinearSolver kind) {
    solver.kind = kind;
    return linear_solver_bytes(solver, ranks, threads, d, sketch_rows);
  };
  if (solver.kind != LinearSolver::automatic) return bytes(solver.kind);
  if (ranks == 1) return bytes(LinearSolver::rank0);
  return std::min(bytes(LinearSolver::rank0), bytes(LinearSolver::scalapack));
}

}  // namespace

double solve_bytes(const SolveShape& shape, int ranks, int threads, const LinearSolverOptions& solver,
                   std::int64_t sketch_rows) {
  constexpr double row_vectors = 10;
  const auto rows_local = static_cast<double>(shape.rows / ranks + 1);
  const auto columns = static_cast<double>(shape.columns);
  const double entries_local = shape.sparse ? static_cast<double>(shape.entries) / ranks : rows_local * columns;
  const auto entry_bytes = static_cast<double>(item_bytes(shape.storage) + (shape.sparse ? 4 : 0));  // with the column
  const double row_space = shape.in_row_space ? 8 * 4 * columns * static_cast<double>(shape.rows) / ranks : 0;
  return entries_local * entry_bytes + rows_local * row_vectors * 8 + row_space +
         least_solver_bytes(solver, ranks, threads, shape.unknowns(), sketch_rows);
}

JobPlan plan_job(const SolveShape& shape, const JobLayout& layout, double node_bandwidth) {
  constexpr double kMargin = 1.25, kProgramBytes = 200e6;
  constexpr double kFlops = 10e9, kFactorizations = 25, kStartSeconds = 10;
  const int on_busiest = std::min(layout.ranks, layout.ranks_per_node);
  const double rank_bytes = solve_bytes(shape, layout.ranks, layout.threads);
  const double cube = std::pow(static_cast<double>(shape.unknowns()), 3);
  const double reads = shape.unknowns() <= 256 ? 110 : 220;

  JobPlan plan;
  plan.bytes_per_node = on_busiest * (kMargin * rank_bytes + kProgramBytes);
  plan.seconds = reads * on_busiest * rank_bytes / node_bandwidth + kFactorizations * 3 * cube / kFlops + kStartSeconds;
  plan.minutes = std::max<std::int64_t>(10, static_cast<std::int64_t>(std::ceil(5 * plan.seconds / 60)));
  return plan;
}

}  // namespace attnreg::app
