#pragma once

#include <Eigen/Core>
#include <functional>

#include "attnreg/communicator.hpp"
#include "attnreg/linear_solver.hpp"

namespace attnreg {

/// Collective. The options with `kind` decided: `automatic` is scalapack on 2 ranks or more from d = 2000 on, where
/// whole solves are as fast or faster (docs/performance.md), and from d = 512 on where rank0's matrices, `rank0_bytes`
/// on every rank, would take more than half of the memory that is there on some node; else rank0. Replicated. No
/// message unless memory decides; then one all-reduce of 8 bytes. Options out of range: `InvalidArgument` on all ranks.
LinearSolverOptions chosen_linear_solver(const Communicator& communicator, Eigen::Index d,
                                         const LinearSolverOptions& options, double rank0_bytes);

/// Local. What `automatic` is. share: of a node's memory that rank0's matrices would take; asked for where it decides.
LinearSolver automatic_linear_solver(int ranks, Eigen::Index d, const std::function<double()>& share);

}  // namespace attnreg
