#pragma once

#include <Eigen/Core>
#include <cstdint>

#include "attnreg/linear_solver.hpp"
#include "attnreg/row_matrix.hpp"

namespace attnreg {

/// What the weights of rows are in scores of diag(s)^{1/2} A.
enum class RowWeights {
  squares,  ///< s
  roots,    ///< s^{1/2}, where s might under- or overflow
};

/// How leverage scores are approximated. Source: Deng, Mahadevan and Song 2023 (arXiv 2304.04397), Algorithm 2, with
/// corrected shapes, with the factor 1/sqrt(k) of the Gaussian matrix that it leaves out, and without its bias.
struct LeverageOptions {
  /// Rows of the sketch, at least 2 d; 0: max(6 d, 64). From n on the rows of A themselves are taken. With 6 d rows,
  /// 4 nonzeros and exact row norms all scores are within a factor 2 in 99 of 100 draws.
  Index sketch_rows = 0;
  int nonzeros =
      4;  ///< per column of the sketch, at least 1; 1 (CountSketch) is unsafe where few rows have large scores
  /// Gaussian columns k that estimate the row norms: a norm is off by more than half with probability 0.14 for k = 16,
  /// 0.006 for k = 64. 0, or at least the rank of A: exact row norms, from as many columns as the rank.
  int jl_columns = 16;
  std::uint64_t seed = 1;
  std::uint32_t iteration = 0;  ///< another number gives other random numbers of the same seed
  /// Who factors the sketch. With scalapack no rank holds it: 8 rows d / processes bytes and four panels of 256 rows on
  /// each. It needs jl_columns > 0.
  LinearSolverOptions linear_solver{};
  RowWeights row_weights = RowWeights::squares;
};

/// How the rows are sampled of which a preconditioner is made (docs/algorithms.md, section 11).
struct SamplingOptions {
  double oversampling = 0;       ///< c: about c d rows are kept; 0: automatic. More rows: fewer products, dearer models
  Eigen::Index sketch_rows = 0;  ///< these three are of the leverage scores: see `LeverageOptions`
  int nonzeros = 4;
  int jl_columns = 16;
  std::uint64_t seed = 1;
};

/// The statistical leverage of the rows m_i of M = diag(s)^{1/2} A: score_i = m_i^T (M^T M)^+ m_i, in [0, 1].
struct LeverageScores {
  Eigen::VectorXd scores;  ///< rows_local; all else is replicated
  double sum = 0;          ///< of the scores of all rows; the rank if they are exact
  double largest = 0;
  double coherence = 0;  ///< largest n / rank, between 1 and n / rank; 0 for a zero matrix
  Index rank = 0;        ///< of M, numerically
};

/// Collective. Approximate scores of diag(s)^{1/2} A from a sketch of it (docs/algorithms.md, section 11): the same on
/// any number of ranks and threads, but for rounding. Two reads of A, one reduce of 8 sketch_rows d bytes to rank 0,
/// whose factor takes about 2 sketch_rows d^2 flops, and one broadcast of 8 d jl_columns bytes.
///
/// weights: s >= 0, this rank's rows, or empty for ones. Options out of range, weights that are negative, not finite or
/// of wrong length on some rank, numbers of A that are not finite: `InvalidArgument` on all ranks.
LeverageScores leverage_scores(const RowMatrix& A, const Eigen::VectorXd& weights, const LeverageOptions& options);

/// How exact scores are computed.
enum class ExactRoute {
  gram,  ///< pivoted Cholesky of M^T M: d^2 flops a row; error of order eps cond(M)^2, rank test on squared values
  qr,    ///< QR of the rows, tile by tile, on one thread: 2 d^2 flops a row and much slower; error of order eps cond(M)
};

/// Collective. Exact scores of diag(s)^{1/2} A, for checks and small problems; weights and errors as for
/// `leverage_scores`. The columns of M are first scaled by powers of two to norms in [1/2, 1). A direction counts as
/// null if |R_jj / R_11|, or for gram its square, is below 4 eps (d + sqrt(n)): for gram, if it is below about 1e-7 of
/// the largest.
///
/// Two reads of A. gram: one reduce of 8 d^2 bytes; qr: one broadcast of 8 d^2 bytes per rank. Both: one broadcast of
/// 8 (d^2 + 2) bytes and two all-reduces of 8.
/// Scores do not change with the scale of A or of the weights, however large or small that is. Where squares under- or
/// overflow, and for weights that are roots, the route is qr.
LeverageScores exact_leverage_scores(const RowMatrix& A, const Eigen::VectorXd& weights, ExactRoute route,
                                     RowWeights kind = RowWeights::squares);

}  // namespace attnreg
