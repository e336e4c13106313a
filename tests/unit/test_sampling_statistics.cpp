// Distributions of the samples and the quality of sampled Gram matrices. Seeds are fixed; the comments bound the
// probability that a check would fail for a random seed.

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>

#include "attnreg/leverage.hpp"
#include "rows/gram.hpp"
#include "sampling/sampling.hpp"
#include "support/dense_algebra.hpp"
#include "support/score_problems.hpp"

namespace attnreg::test_sampling_statistics {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::Layout;
using reference::Rows;

constexpr double log_failure = 20.8;  // > ln(1e9)

double chi_square_upper(double k, double x) { return k + 2 * std::sqrt(k * x) + 2 * x; }  // Laurent and Massart 2000
double chi_square_lower(double k, double x) { return k - 2 * std::sqrt(k * x); }

RowMatrix on_one_rank(const RowMajorMatrix& A) {
  return reference::distribute(Communicator(MPI_COMM_SELF), A, Layout::tiled);
}

VectorXd all_weights(const RowMatrix& A, const SampledRows& sample) {
  VectorXd weights = VectorXd::Zero(A.rows_local());
  for (std::size_t k = 0; k < sample.rows.size(); ++k) weights[sample.rows[k]] = sample.weights[static_cast<Index>(k)];
  return weights;
}

/// Scores between 0.02 and 0.22.
VectorXd some_scores(Index n) {
  return VectorXd::NullaryExpr(n, [](Index i) { return 0.02 + 0.2 * std::fmod(0.618 * static_cast<double>(i), 1.0); });
}

TEST(SamplingStatistics, PoissonInclusionFrequencies) {
  constexpr Index n = 200, d = 2;
  constexpr int samples = 4000;
  const auto A = on_one_rank(reference::random_matrix(n, d, 1));
  const VectorXd scores = some_scores(n);
  VectorXd counts = VectorXd::Zero(n);
  for (std::uint32_t k = 0; k < samples; ++k)
    counts += (all_weights(A, sample_poisson(A, scores, {.oversampling = 4, .iteration = k})).array() > 0)
                  .cast<double>()
                  .matrix();
  // Independent binomial counts with means of 300 or more: chi-square with n degrees of freedom. 2e-9.
  const VectorXd p = 4 * (0.9 * scores.array() + 0.1 * d / double{n});
  const double chi_square = ((counts - samples * p).array().square() / (samples * p.array() * (1 - p.array()))).sum();
  EXPECT_LT(chi_square, chi_square_upper(n, log_failure));
  EXPECT_GT(chi_square, chi_square_lower(n, log_failure));
}

TEST(SamplingStatistics, FrequenciesOfDrawsWithReplacement) {
  constexpr Index n = 200;
  constexpr std::int64_t draws = 100, samples = 2000;
  const auto A = on_one_rank(reference::random_matrix(n, 2, 1));
  const VectorXd scores = some_scores(n), p = scores / scores.sum();
  VectorXd counts = VectorXd::Zero(n);
  for (std::uint32_t k = 0; k < samples; ++k)
    counts += double{draws} *
              p.cwiseProduct(all_weights(A, sample_with_replacement(A, scores, {.draws = draws, .iteration = k})));
  // Multinomial counts with means of 160 or more: chi-square with n - 1 degrees of freedom. 2e-9.
  const double chi_square = ((counts - draws * samples * p).array().square() / (draws * samples * p.array())).sum();
  EXPECT_NEAR(counts.sum(), draws * samples, 1e-3);
  EXPECT_LT(chi_square, chi_square_upper(n - 1, log_failure));
  EXPECT_GT(chi_square, chi_square_lower(n - 1, log_failure));
}

/// The estimate of A^T A.
MatrixXd sampled_gram(const RowMatrix& A, const SampledRows& sample) {
  return signed_gram(A, {sample.weights, {}, {}, {}, sample.rows}).positive;
}

TEST(SamplingStatistics, SampledGramIsUnbiased) {
  // v^T H~ v = sum_i w_i y_i^2, y = A v, for 10 vectors v: variance sum y_i^4 (1 / p_i - 1) of a Poisson sample, and
  // (sum y_i^4 / p_i - (sum y_i^2)^2) / m of m draws. The mean of 1000 samples is normal in the limit: 6.5 standard
  // deviations, 20 checks, 2e-9.
  constexpr Index n = 300, d = 5, m = 60;
  constexpr int samples = 1000;
  const RowMajorMatrix dense = reference::score_problem(Rows::cauchy, n, d);
  const auto A = on_one_rank(dense);
  const VectorXd scores = reference::dense_scores(dense);
  const MatrixXd V = reference::random_matrix(d, 10, 4), y2 = (dense * V).cwiseAbs2();
  MatrixXd poisson = MatrixXd::Zero(d, d), replacement = MatrixXd::Zero(d, d);
  for (std::uint32_t k = 0; k < samples; ++k) {
    const auto kept = sample_poisson(A, scores, {.oversampling = 5, .iteration = k});
    poisson += sampled_gram(A, kept) / samples;
    const auto drawn = sample_with_replacement(A, scores, {.draws = m, .iteration = k});
    replacement += sampled_gram(A, drawn) / samples;
  }
  const VectorXd p = (5 * (0.9 * scores.array() + 0.1 * d / double{n})).cwiseMin(1), q = scores / scores.sum();
  for (Index k = 0; k < V.cols(); ++k) {
    const VectorXd y4 = y2.col(k).cwiseAbs2();
    const double exact = y2.col(k).sum(), rounding = 1e-9 * exact;
    const double poisson_variance = (y4.array() * (1 / p.array() - 1)).sum() / samples;
    const double replacement_variance = (y4.cwiseQuotient(q).sum() - exact * exact) / (m * samples);
    EXPECT_NEAR(V.col(k).dot(poisson * V.col(k)), exact, 6.5 * std::sqrt(poisson_variance) + rounding);
    EXPECT_NEAR(V.col(k).dot(replacement * V.col(k)), exact, 6.5 * std::sqrt(replacement_variance) + rounding);
  }
}

TEST(SamplingStatistics, PoissonSamplesAtTheDefaults) {
  // Above 0.5 with probability at most 1 %: none of 300 samples was, for each matrix. 5 or more of 40 then have
  // probability below 7e-5.
  constexpr Index n = 20000, d = 50;
  constexpr int trials = 40;
  for (const Rows rows : reference::all_rows) {
    const RowMajorMatrix dense = reference::score_problem(rows, n, d);
    const auto A = on_one_rank(dense);
    const MatrixXd gram = dense.transpose() * dense;
    int failures = 0;
    for (std::uint64_t seed = 1; seed <= trials; ++seed) {
      const auto sample = sample_poisson(A, leverage_scores(A, {}, {.seed = seed}).scores, {.seed = seed});
      const double error = reference::spectral_error(gram, sampled_gram(A, sample));
      if (error >= 0.5) ++failures;
      EXPECT_LE(sample.count_global, 36 * d);
    }
    EXPECT_LE(failures, 4) << static_cast<int>(rows);
  }
}

TEST(SamplingStatistics, DrawsWithReplacementOfTheChernoffSize) {
  // Exact scores: a failure has probability at most delta = 0.05, so that 11 or more of 50 have less than 2e-4.
  constexpr Index n = 4000, d = 12;
  constexpr int trials = 50;
  const auto m = with_replacement_size(d, 0.5, 0.05);
  for (const Rows rows : reference::all_rows) {
    const RowMajorMatrix dense = reference::score_problem(rows, n, d);
    const auto A = on_one_rank(dense);
    const VectorXd scores = exact_leverage_scores(A, {}, ExactRoute::qr).scores;
    const MatrixXd gram = dense.transpose() * dense;
    int failures = 0;
    for (std::uint64_t seed = 1; seed <= trials; ++seed) {
      const auto sample = sample_with_replacement(A, scores, {.draws = m, .seed = seed});
      if (reference::spectral_error(gram, sampled_gram(A, sample)) > 0.5) ++failures;
    }
    EXPECT_LE(failures, 10) << static_cast<int>(rows);
  }
}

}  // namespace attnreg::test_sampling_statistics
