#include <algorithm>

#include "algebra/distributed_matrix.hpp"
#include "algebra/linear_solver_choice.hpp"
#include "algebra/scalapack_grid.hpp"
#include "errors/refuse.hpp"
#include "ranks/memory.hpp"

namespace attnreg {

namespace {
constexpr Eigen::Index kFaster = 2000;     // whole solves are, from about here on, on 2 ranks: docs/performance.md
constexpr Eigen::Index kWorthwhile = 512;  // below, 8 MB a matrix, memory is not asked for
constexpr double kShareOfMemory = 0.5;     // A wants some too
constexpr double kPanelRows = kPanel, kPanels = 4;
}  // namespace

std::string_view linear_solver_name(LinearSolver solver) {
  switch (solver) {
    case LinearSolver::automatic: return "auto";
    case LinearSolver::rank0: return "rank0";
    case LinearSolver::scalapack: return "scalapack";
  }
  return "unknown";
}

LinearSolverOptions chosen_linear_solver(const Communicator& communicator, Eigen::Index d,
                                         const LinearSolverOptions& options, double rank0_bytes) {
  LinearSolverOptions chosen = options;
  if (communicator.is_of_blocks()) {
    if (chosen.kind == LinearSolver::scalapack)
      refuse("the linear solver scalapack does not run on blocks: its sums depend on the number of ranks");
    chosen.kind = LinearSolver::rank0;
    return chosen;
  }
  with_grid(communicator.size(), options);
  if (chosen.kind != LinearSolver::automatic) return chosen;
  chosen.kind = LinearSolver::rank0;
  if (communicator.size() == 1 || d < kWorthwhile) return chosen;
  const auto share = [&] { return rank0_bytes * communicator.ranks_on_node() / available_node_memory(); };
  if (d >= kFaster || communicator.max(share()) > kShareOfMemory) chosen.kind = LinearSolver::scalapack;
  return chosen;
}

double linear_solver_bytes(const LinearSolverOptions& options, int ranks, int threads, Eigen::Index d,
                           Eigen::Index sketch_rows) {
  const auto columns = static_cast<double>(d), rows = sketch_rows > 0 ? static_cast<double>(sketch_rows) : 6 * columns;
  if (options.kind == LinearSolver::rank0) return 8 * columns * columns * (6 * threads + 4);
  const LinearSolverOptions grid = with_grid(ranks, options);
  const double processes = static_cast<double>(grid.grid_rows) * grid.grid_columns;
  const double matrices = columns * (rows + 3 * columns) / processes;
  return 8 * (matrices + (kPanels - 1 + threads) * std::min(columns, kPanelRows) * columns);
}

}  // namespace attnreg
