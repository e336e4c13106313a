#include "algebra/linear_solver_choice.hpp"
#include "algebra/scalapack_grid.hpp"
#include "errors/refuse.hpp"
#include "ranks/memory.hpp"

namespace attnreg {

namespace {
constexpr Eigen::Index kFaster = 2000;     // whole solves are, from about here on, on 2 ranks: docs/performance.md
constexpr Eigen::Index kWorthwhile = 512;  // below, 8 MB a matrix, memory is not asked for
constexpr double kShareOfMemory = 0.5;     // A wants some too
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
  chosen.kind = automatic_linear_solver(communicator.size(), d, [&] {
    return communicator.max(rank0_bytes * communicator.ranks_on_node() / available_node_memory());
  });
  return chosen;
}

LinearSolver automatic_linear_solver(int ranks, Eigen::Index d, const std::function<double()>& share) {
  if (ranks == 1 || d < kWorthwhile) return LinearSolver::rank0;
  return d >= kFaster || share() > kShareOfMemory ? LinearSolver::scalapack : LinearSolver::rank0;
}

}  // namespace attnreg
