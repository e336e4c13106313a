#pragma once

#include <Eigen/Core>
#include <string_view>

namespace attnreg {

/// Who holds the d x d matrices and solves with them.
enum class LinearSolver {
  /// scalapack on 2 ranks or more from d = 2000 on, where whole solves are as fast or faster (docs/performance.md), and
  /// from d = 512 on where the matrices of rank0 would take more than half of the memory of some node; else rank0.
  automatic,
  rank0,      ///< rank 0 factors; preconditioners are replicated
  scalapack,  ///< all ranks, block-cyclically: no rank holds a d x d matrix, or a sketch of A
};
std::string_view linear_solver_name(LinearSolver solver);  ///< "scalapack"

struct LinearSolverOptions {
  LinearSolver kind = LinearSolver::automatic;
  Eigen::Index block_size = 64;         ///< of the block-cyclic layout, 1 to 2^20; need not divide d
  int grid_rows = 0, grid_columns = 0;  ///< of the grid of processes, their product at most the ranks; 0: near-square
};

}  // namespace attnreg
