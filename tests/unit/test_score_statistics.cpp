// Distributions of sketches and the accuracy of leverage scores. Seeds are fixed; the comments bound the probability
// that a check would fail for a random seed.

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "attnreg/leverage.hpp"
#include "sampling/sketch.hpp"
#include "support/score_problems.hpp"

namespace attnreg::test_score_statistics {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::Layout;
using reference::Rows;

constexpr double log_failure = 20.8;  // > ln(1e9)

/// Laurent and Massart 2000, Lemma 1: chi-square numbers are above the first or below the second with probability at
/// most exp(-x) each.
double chi_square_upper(double k, double x) { return k + 2 * std::sqrt(k * x) + 2 * x; }
double chi_square_lower(double k, double x) { return k - 2 * std::sqrt(k * x); }

RowMatrix on_one_rank(const RowMajorMatrix& A) {
  return reference::distribute(Communicator(MPI_COMM_SELF), A, Layout::tiled);
}

MatrixXd sketching_matrix(Index n, const SketchOptions& options) {
  return sketch(on_one_rank(RowMajorMatrix::Identity(n, n)), {}, options);
}

TEST(SketchStatistics, SparseColumnsFavourNoRowAndNoSign) {
  constexpr Index n = 4000, rows = 37;
  for (const int nonzeros : {1, 4, 30}) {
    const MatrixXd S = sketching_matrix(n, {.rows = rows, .nonzeros = nonzeros});
    // A column holds `nonzeros` of `rows` distinct rows: counts have variance n q (1 - q), q = nonzeros / rows, and
    // covariances that make this sum chi-square with rows - 1 degrees of freedom in the limit. 2e-9.
    const double q = static_cast<double>(nonzeros) / rows, mean = static_cast<double>(n) * q;
    const VectorXd counts = (S.array() != 0).cast<double>().rowwise().sum();
    const double chi_square = (counts.array() - mean).square().sum() / (mean * (1 - q)) * (rows - 1) / rows;
    EXPECT_LT(chi_square, chi_square_upper(rows - 1, log_failure));
    EXPECT_GT(chi_square, chi_square_lower(rows - 1, log_failure));
    // Hoeffding for n nonzeros signs. 1e-9.
    const double signs = S.array().sign().sum();
    EXPECT_LE(std::abs(signs), std::sqrt(2 * static_cast<double>(n * nonzeros) * (log_failure + 0.7)));
  }
}

TEST(SketchStatistics, GaussianEntriesHaveVarianceOneOverRows) {
  constexpr Index n = 300, rows = 200;
  const MatrixXd S = sketching_matrix(n, {.kind = SketchKind::gaussian, .rows = rows});
  const double chi_square = S.squaredNorm() * rows, k = n * rows;  // 2e-9
  EXPECT_LT(chi_square, chi_square_upper(k, log_failure));
  EXPECT_GT(chi_square, chi_square_lower(k, log_failure));
}

TEST(SketchStatistics, LengthsAreKeptOnAverage) {
  // For y = A x, |S y|^2 has mean |y|^2 and variance at most 2 |y|^4 / rows, for both kinds; 6 standard deviations
  // of the mean of 50 sketches: 2e-9 by the central limit theorem (Chebyshev: 0.03).
  constexpr Index n = 500, rows = 40;
  constexpr int sketches = 50;
  const auto y = reference::random_matrix(n, 1, 3);
  for (const auto kind : {SketchKind::sparse_sign, SketchKind::gaussian}) {
    double mean = 0;
    for (std::uint32_t k = 0; k < sketches; ++k)
      mean += sketch(on_one_rank(y), {}, {.kind = kind, .rows = rows, .iteration = k}).squaredNorm() / sketches;
    EXPECT_NEAR(mean / y.squaredNorm(), 1, 6 * std::sqrt(2.0 / rows / sketches));
  }
}

/// Rows whose score is not within a factor 2.
double share_outside(const VectorXd& scores, const VectorXd& exact) {
  const auto ratio = scores.array() / exact.array();
  return static_cast<double>((ratio < 0.5 || ratio > 2).count()) / static_cast<double>(exact.size());
}

TEST(LeverageStatistics, AllScoresWithinAFactorTwo) {
  // With the default sketch and exact row norms no trial of 60 failed for any of the matrices, and at most one of 100
  // in an independent program: taking 2 % for the probability, 5 or more of 20 fail with probability < 5e-5 each
  // matrix.
  constexpr Index n = 20000, d = 50;
  constexpr int trials = 20;
  for (const Rows rows : reference::all_rows) {
    const auto A = on_one_rank(reference::score_problem(rows, n, d));
    const VectorXd exact = exact_leverage_scores(A, {}, ExactRoute::gram).scores;
    int failures = 0;
    for (std::uint64_t seed = 1; seed <= trials; ++seed) {
      const auto found = leverage_scores(A, {}, {.jl_columns = 0, .seed = seed});
      if (share_outside(found.scores, exact) > 0) ++failures;
      EXPECT_EQ(found.rank, d);
      // The trace of (M^T S^T S M)^{-1} M^T M over d: standard deviation 2 % over the seeds tried.
      EXPECT_NEAR(found.sum, d, 0.2 * d);
    }
    EXPECT_LE(failures, 4) << static_cast<int>(rows);
  }
}

TEST(LeverageStatistics, SixtyFourColumnsServe999RowsOf1000) {
  // The share of rows outside had mean 4.5e-4, standard deviation 2e-4 over 20 seeds (chi-square with 64 degrees of
  // freedom alone: 2e-4): the mean of 4 trials is 5 standard deviations below the bound.
  constexpr Index n = 20000, d = 100;
  constexpr int trials = 4;
  for (const Rows rows : reference::all_rows) {
    const auto A = on_one_rank(reference::score_problem(rows, n, d));
    const VectorXd exact = exact_leverage_scores(A, {}, ExactRoute::gram).scores;
    double share = 0;
    for (std::uint64_t seed = 1; seed <= trials; ++seed)
      share += share_outside(leverage_scores(A, {}, {.jl_columns = 64, .seed = seed}).scores, exact) / trials;
    EXPECT_LE(share, 1e-3) << static_cast<int>(rows);
  }
}

TEST(LeverageStatistics, DefaultSumIsNearTheRank) {
  // 16 Gaussian columns: the sum is that of the exact norms times a chi-square number with at least 16 degrees of
  // freedom, over them, for one row's direction; for d equal directions 16 d. Standard deviation 2 % (sketch) and
  // sqrt(2 / (16 d)) = 5 % (columns).
  constexpr Index n = 20000, d = 50;
  for (const Rows rows : {Rows::gaussian, Rows::spiky}) {
    const auto A = on_one_rank(reference::score_problem(rows, n, d));
    for (std::uint64_t seed = 1; seed <= 5; ++seed)
      EXPECT_NEAR(leverage_scores(A, {}, {.seed = seed}).sum, d, 0.3 * d);  // more than 5 of them
  }
}

}  // namespace attnreg::test_score_statistics
