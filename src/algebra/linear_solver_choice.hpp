#pragma once

#include <Eigen/Core>

#include "attnreg/communicator.hpp"
#include "attnreg/linear_solver.hpp"

namespace attnreg {

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
