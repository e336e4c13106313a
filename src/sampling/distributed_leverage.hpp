#pragma once

#include <memory>

#include "algebra/scalapack.hpp"
#include "attnreg/leverage.hpp"
#include "sampling/leverage_basis.hpp"

namespace attnreg {

/// Collective. `leverage_basis` with a sketch spread over the grid. R comes from a QR factorization without pivoting if
/// that is far enough from singular, by its diagonal and by |R^-1 G|, whose mean square is that of |R^-1|_F; else R is
/// factored again with column pivoting, slowly, and the rank is found as on rank 0. `InvalidArgument` on all ranks for
/// jl_columns = 0: exact row norms need a d x d matrix on every rank.
LeverageBasis distributed_basis(const RowMatrix& A, const Eigen::VectorXd& weights, const LeverageOptions& options,
                                const std::shared_ptr<const ProcessGrid>& grid);

}  // namespace attnreg
