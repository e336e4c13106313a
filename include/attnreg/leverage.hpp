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

/// The rows that a preconditioner is made of; see docs/algorithms.md.
struct SamplingOptions {
  double oversampling = 0;       ///< c: about c d rows are kept; larger: fewer products, dearer models; 0: automatic
  Eigen::Index sketch_rows = 0;  ///< of the sketch behind the leverage scores; 0: 6 d
  int nonzeros = 4;              ///< per column of the sketch
  int jl_columns = 16;           ///< of the random projection of the scores; 0: exact row norms
  std::uint64_t seed = 1;
};

/// The statistical leverage of the rows of M = diag(s)^{1/2} A: score_i = m_i^T (M^T M)^+ m_i, in [0, 1].
struct LeverageScores {
  Eigen::VectorXd scores;  ///< rows_local
  double sum = 0;          ///< over all ranks; the rank if the scores are exact
  double largest = 0;
  double coherence = 0;  ///< largest n / rank, between 1 and n / rank; 0 for a zero matrix
  Index rank = 0;
};

/// Collective. Approximate scores of diag(s)^{1/2} A: from a sketch (docs/algorithms.md), two reads of A.
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
