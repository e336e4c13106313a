#pragma once

#include <Eigen/Core>
#include <cstdint>

#include "attnreg/linear_solver.hpp"
#include "attnreg/row_matrix.hpp"

namespace attnreg {

/// How leverage scores are approximated: Deng, Mahadevan and Song 2023 (arXiv 2304.04397), Algorithm 2, with its shapes
/// corrected, the factor 1/sqrt(k) of the Gaussian matrix that it leaves out, and without its bias.
struct LeverageOptions {
  /// Rows of the sketch, at least 2 d; 0 means max(6 d, 64). With at least n the rows themselves take its place. With
  /// 6 d rows, 4 nonzeros and exact row norms all scores are within a factor 2 in 99 of 100 draws.
  Index sketch_rows = 0;
  int nonzeros = 4;  ///< of a column of the sketch; 1 (CountSketch) is unsafe where few rows have large scores
  /// Gaussian columns k that estimate the row norms; one row is off by more than 1 +- 0.5 with probability 0.14 for
  /// k = 16, 0.006 for 64. 0, or at least the rank: exact row norms, from as many columns as the rank.
  int jl_columns = 16;
  std::uint64_t seed = 1;
  std::uint32_t iteration = 0;
  /// Who factors the sketch. scalapack: no rank holds it, 8 rows d / processes bytes and four panels of 256 rows on
  /// each; needs jl_columns > 0.
  LinearSolverOptions linear_solver{};
};

/// score_i = s_i |a_i N|^2. It is kept while A or the weights s change little, and then costs one read a time.
struct LeverageBasis {
  Eigen::MatrixXd N;  ///< d x k, replicated
  Index rank = 0;     ///< of the sketch
};

/// The statistical leverage of the rows of M = diag(s)^{1/2} A: score_i = m_i^T (M^T M)^+ m_i, in [0, 1].
struct LeverageScores {
  Eigen::VectorXd scores;  ///< rows_local
  double sum = 0;          ///< over all ranks; the rank if the scores are exact
  double largest = 0;
  double coherence = 0;  ///< largest n / rank, between 1 and n / rank; 0 for a zero matrix
  Index rank = 0;
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

/// Local, one read of A and 2 d k flops a row. |a_i N|^2 for the local rows: rows_local. The bits of a row's result do
/// not depend on other rows. N: d x k.
Eigen::VectorXd row_norms_squared(const RowMatrix& A, const Eigen::MatrixXd& N);

/// Collective. min(1, s_i |a_i N|^2) and what it sums up to; 0 where s_i = 0. One read of A and two all-reduces of 8
/// bytes. weights as for `leverage_basis`, not checked again.
LeverageScores scores_from_basis(const RowMatrix& A, const Eigen::VectorXd& weights, const LeverageBasis& basis);

/// Collective. Approximate scores of diag(s)^{1/2} A: `leverage_basis` and `scores_from_basis`, two reads of A.
/// The same on any number of ranks and threads but for rounding.
LeverageScores leverage_scores(const RowMatrix& A, const Eigen::VectorXd& weights, const LeverageOptions& options);

enum class ExactRoute {
  gram,  ///< pivoted Cholesky of M^T M: d^2 flops a row; error of order eps cond(M)^2, rank test on squared values
  qr,    ///< QR of the rows, tile by tile, on one thread: 2 d^2 flops a row and much slower; error of order eps cond(M)
};

/// Collective. Exact scores of diag(s)^{1/2} A, for tests and small problems; errors and weights as above. The columns
/// are scaled as for `leverage_basis`. The rank is found with the threshold 4 eps (d + sqrt(n)) on |R_jj / R_11|
/// (qr) or its square (gram: directions below about 1e-7 of the largest count as null).
/// Two reads of A; gram: one reduce of 8 d^2 bytes; qr: one broadcast of 8 d^2 bytes per rank; and one broadcast of
/// 8 (d^2 + 2), two all-reduces of 8 bytes.
LeverageScores exact_leverage_scores(const RowMatrix& A, const Eigen::VectorXd& weights, ExactRoute route);

}  // namespace attnreg
