#pragma once

#include <Eigen/Core>
#include <string_view>

#include "attnreg/communicator.hpp"

namespace attnreg {

/// Who holds the d x d matrices and solves with them.
enum class LinearSolver {
  automatic,  ///< see `chosen_linear_solver`
  rank0,      ///< rank 0 factors; preconditioners are replicated
  scalapack,  ///< all ranks, block-cyclically: no rank holds a d x d matrix, or a sketch of A
};
std::string_view linear_solver_name(LinearSolver solver);  ///< "scalapack"

struct LinearSolverOptions {
  LinearSolver kind = LinearSolver::automatic;
  Eigen::Index block_size = 64;         ///< of the block-cyclic layout, 1 to 2^20; need not divide d
  int grid_rows = 0, grid_columns = 0;  ///< of the process grid, at most as many as there are ranks; 0: near-square
};

/// Collective. The options with `kind` decided: `automatic` is scalapack on 2 ranks or more from d = 2000 on, where
/// whole solves are as fast or faster (docs/performance.md), and from d = 512 on where rank0's matrices, `rank0_bytes`
/// on every rank, would take more than half of the memory that is there on some node; else rank0. Replicated. No
/// message unless memory decides; then one all-reduce of 8 bytes. Options out of range: `InvalidArgument` on all ranks.
LinearSolverOptions chosen_linear_solver(const Communicator& communicator, Eigen::Index d,
                                         const LinearSolverOptions& options, double rank0_bytes);

/// Local. Bytes of d x d matrices and sketches that the solver takes on the most loaded rank: rank0 8 d^2 (6 threads +
/// 4), a sketch of 6 d rows (or two Gram matrices) for each thread; scalapack 8 (sketch_rows d + 3 d^2) / processes and
/// panels of at most 256 rows of d: three, and one for each thread. sketch_rows 0: 6 d.
double linear_solver_bytes(const LinearSolverOptions& options, int ranks, int threads, Eigen::Index d,
                           Eigen::Index sketch_rows);

}  // namespace attnreg
