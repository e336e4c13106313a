#pragma once

#include <Eigen/Core>

#include "attnreg/leverage.hpp"

namespace attnreg {

// What the bases of rank 0's factor and of a distributed one have in common.

/// Local. The rows of the sketch; throws `InvalidArgument` (all ranks) for options out of range.
Index checked_sketch_rows(const RowMatrix& A, const LeverageOptions& options);

/// Local. s^{1/2}. Unusable weights become NaN row scales on this rank and so NaN in the sum over the ranks: all ranks
/// learn of them from the result, with no collective of their own.
Eigen::VectorXd row_scale(const RowMatrix& A, const Eigen::VectorXd& weights);

/// Collective. Throws `InvalidArgument` on all ranks: why the sum over the ranks was not finite.
[[noreturn]] void explain_failure(const RowMatrix& A, const Eigen::VectorXd& weights);

/// Local. Relative size of what rounding leaves of a dependent column in a sketch of so many rows.
double rank_tolerance(const RowMatrix& A, Index rows);

/// Local. G: rank x k, independent N(0, 1/k); the identity if rank <= k.
Eigen::MatrixXd jl_projection(Index rank, Index k, const LeverageOptions& options);

}  // namespace attnreg
