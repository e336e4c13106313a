#pragma once

#include <Eigen/Core>
#include <memory>

#include "algebra/scalapack_grid.hpp"
#include "attnreg/leverage.hpp"
#include "sampling/sketch.hpp"

namespace attnreg {

/// score_i = s_i |a_i N|^2. It is kept while A or the weights s change little, and then costs one read a time.
struct LeverageBasis {
  Eigen::MatrixXd N;  ///< d x k, replicated
  Index rank = 0;     ///< of the sketch
};

/// Collective. The basis for the scores of diag(s)^{1/2} A, which is not formed. With the sketch S M, whose columns are
/// scaled by powers of two to norms in [1/2, 1), and the QR factorization with column pivoting
///
///     S M Pi = Q [R11 R12; 0 R22],   |R22_jj| <= 4 eps (rows of the sketch + sqrt(n)) |R11_11|:
///     N = (1 - rank / rows of the sketch)^{1/2} Pi [R11^{-1} G; 0],
///     G: rank x k, independent N(0, 1/k), or the identity for exact row norms.
///
/// The first factor, which the paper has not, removes a bias: for Gaussian S the mean of (M^T S^T S M)^{-1} is that of
/// an inverse Wishart matrix, (M^T M)^{-1} rows / (rows - rank - 1), and sparse sign sketches measure the same. So the
/// sum of the scores is near the rank, not 1.2 times it. The threshold is above the rounding errors of a dependent
/// column's sums. Rank-deficient M (duplicate or zero columns, n < d, weights 0) gives the scores of its row space.
///
/// One read of A, one reduce to rank 0 of 8 sketch_rows d bytes and one broadcast of 8 (d k + 2); rank 0 factors the
/// sketch, about 2 sketch_rows d^2 flops. By ScaLAPACK: the sketch arrives 256 rows at a time, by as many
/// reduce-scatters as that takes, each row being read once for each of its nonzeros in S (or once for each panel, if
/// there are fewer); the processes share the flops, without pivoting unless the factor turns out to be nearly singular.
/// weights: s >= 0, rows_local, or empty for ones. Options out of range, weights that are negative, not finite or of
/// wrong length on any rank, and A with numbers that are not finite or overflow: `InvalidArgument` on all ranks.
LeverageBasis leverage_basis(const RowMatrix& A, const Eigen::VectorXd& weights, const LeverageOptions& options);

/// Collective. `leverage_basis` with a sketch spread over the grid. R comes from a QR factorization without pivoting if
/// that is far enough from singular, by its diagonal and by |R^-1 G|, whose mean square is that of |R^-1|_F; else R is
/// factored again with column pivoting, slowly, and the rank is found as on rank 0. `InvalidArgument` on all ranks for
/// jl_columns = 0: exact row norms need a d x d matrix on every rank.
LeverageBasis distributed_basis(const RowMatrix& A, const Eigen::VectorXd& weights, const LeverageOptions& options,
                                const std::shared_ptr<const ProcessGrid>& grid);

/// Local, one read of A and 2 d k flops a row. |a_i N|^2 for the local rows: rows_local. The bits of a row's result do
/// not depend on other rows. N: d x k.
/// scale: of the rows, or empty.
Eigen::VectorXd row_norms_squared(const RowMatrix& A, const Eigen::MatrixXd& N, const Eigen::VectorXd& scale = {});

/// Collective. min(1, s_i |a_i N|^2) and what it sums up to; 0 where s_i = 0. One read of A and two all-reduces of 8
/// bytes. weights as for `leverage_basis`, not checked again.
LeverageScores scores_from_basis(const RowMatrix& A, const Eigen::VectorXd& weights, const LeverageBasis& basis,
                                 RowWeights kind = RowWeights::squares);

// What the bases of rank 0's factor and of a distributed one have in common.

/// Local. Those of the sketch; throws `InvalidArgument` (all ranks) for options out of range.
SketchOptions sketch_options(const RowMatrix& A, const LeverageOptions& options);

/// Local. s^{1/2}, which is what weights of the kind `roots` are. Unusable weights become NaN row scales on this rank
/// and so NaN in the sum over the ranks: all ranks learn of them from the result, with no collective of their own.
Eigen::VectorXd row_scale(const RowMatrix& A, const Eigen::VectorXd& weights, RowWeights kind);

/// Collective, one read of A, by QR of the rows, 2 d^2 flops a row on one thread at a time, and one broadcast of 8 d^2
/// bytes per rank. On rank 0 the R, d x d, of diag(row_scale) A, elsewhere a part of it. row_scale: rows_local, or
/// empty for ones. Squares are not formed, so that no scale of A under- or overflows.
Eigen::MatrixXd triangular_factor_on_root(const RowMatrix& A, const Eigen::VectorXd& row_scale);

/// Collective. Throws `InvalidArgument` on all ranks: why the sum over the ranks was not finite.
[[noreturn]] void explain_failure(const RowMatrix& A, const Eigen::VectorXd& weights);

/// Local. Relative size of what rounding leaves of a dependent column in a sketch of so many rows.
double rank_tolerance(const RowMatrix& A, Index rows);

/// Local. G: rank x k, independent N(0, 1/k); the identity if rank <= k.
Eigen::MatrixXd jl_projection(Index rank, Index k, const LeverageOptions& options);

}  // namespace attnreg
