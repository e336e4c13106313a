#include "rows/gram.hpp"
#include "sampling/subsample.hpp"

#include <gtest/gtest.h>

#include <Eigen/Eigenvalues>

#include <algorithm>
#include <cmath>
#include <limits>

#include "attnreg/leverage.hpp"
#include "support/score_problems.hpp"

namespace attnreg::test_sampling {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::Layout;
using reference::Rows;

/// What all rows became: 0 for those not drawn.
VectorXd all_weights(const RowMatrix& A, const SampledRows& sample) {
  VectorXd weights = VectorXd::Zero(A.rows_local());
  for (std::size_t k = 0; k < sample.rows.size(); ++k) weights[sample.rows[k]] = sample.weights[static_cast<Index>(k)];
  return reference::gather(A.communicator(), weights);
}

TEST(Sampling, TheSameRowsOnAnyNumberOfRanks) {
  // Scores of different numbers of ranks differ by some 1e-15. A row flips where its uniform number lies between two
  // probabilities: rows c 1e-15 200 < 1e-8 altogether, and as little for the draws' boundaries.
  const Communicator world(MPI_COMM_WORLD), self(MPI_COMM_SELF);
  constexpr Index n = 1500, d = 8;
  const RowMajorMatrix dense = reference::score_problem(Rows::cauchy, n, d);
  const auto A = reference::distribute(world, dense, Layout::random);
  const auto alone = reference::distribute(self, dense, Layout::tiled);
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const LeverageOptions options{.jl_columns = 4, .seed = seed};
    const auto scores = leverage_scores(A, {}, options).scores;
    const auto scores_alone = leverage_scores(alone, {}, options).scores;
    const PoissonOptions poisson{.oversampling = 10, .seed = seed};
    const auto kept = sample_poisson(A, scores, poisson), kept_alone = sample_poisson(alone, scores_alone, poisson);
    const VectorXd kept_weights = all_weights(A, kept), kept_expected = all_weights(alone, kept_alone);
    EXPECT_EQ((kept_weights.array() != 0).matrix(), (kept_expected.array() != 0).matrix()) << seed;
    EXPECT_LE((kept_weights - kept_expected).lpNorm<Eigen::Infinity>(), 1e-9 * kept_expected.maxCoeff());
    EXPECT_EQ(kept.count_global, kept_alone.count_global);

    const ReplacementOptions replacement{.draws = 300, .seed = seed};
    const auto drawn = sample_with_replacement(A, scores, replacement);
    const auto drawn_alone = sample_with_replacement(alone, scores_alone, replacement);
    const VectorXd drawn_weights = all_weights(A, drawn), drawn_expected = all_weights(alone, drawn_alone);
    EXPECT_EQ((drawn_weights.array() != 0).matrix(), (drawn_expected.array() != 0).matrix()) << seed;
    EXPECT_LE((drawn_weights - drawn_expected).lpNorm<Eigen::Infinity>(), 1e-9 * drawn_expected.maxCoeff());
    EXPECT_EQ(drawn.count_global, drawn_alone.count_global);
  }
}

TEST(Sampling, ReplicatedScoresGiveTheSameWeightsToTheLastBit) {
  const Communicator world(MPI_COMM_WORLD), self(MPI_COMM_SELF);
  constexpr Index n = 500, d = 4;
  const RowMajorMatrix dense = reference::random_matrix(n, d, 1);
  const VectorXd scores = reference::random_vector(n, 2).cwiseAbs().cwiseMin(1) / 100;
  const auto alone = reference::distribute(self, dense, Layout::tiled);
  for (const Layout layout : reference::layouts) {
    const auto A = reference::distribute(world, dense, layout);
    const VectorXd mine = reference::local_part(A, scores);
    EXPECT_EQ(all_weights(A, sample_poisson(A, mine, {})), all_weights(alone, sample_poisson(alone, scores, {})));
    EXPECT_EQ(all_weights(A, sample_with_replacement(A, mine, {.draws = 700})),
              all_weights(alone, sample_with_replacement(alone, scores, {.draws = 700})));
    EXPECT_EQ(A.reads(), 0);
  }
}

TEST(Sampling, PoissonProbabilities) {
  const Communicator world(MPI_COMM_WORLD);
  constexpr Index n = 1000, d = 10;
  const auto A = reference::distribute(world, reference::random_matrix(n, d, 1), Layout::even);
  VectorXd scores = VectorXd::Zero(n);
  scores.head(200).setConstant(0.04);  // p = min(1, 30 (0.9 0.04 + 0.1 d / n)) = 1
  scores.segment(200, 300).setConstant(0.01);
  const auto sample = sample_poisson(A, reference::local_part(A, scores), {});
  const VectorXd weights = all_weights(A, sample);
  EXPECT_EQ(weights.head(200), VectorXd(VectorXd::Ones(200)));
  for (Index i = 200; i < n; ++i) {
    const double p = 30 * (0.9 * scores[i] + 0.1 * d / double{n});
    EXPECT_NEAR(weights[i] * p, weights[i] != 0 ? 1 : 0, 1e-9);  // 0.01 is rounded to a multiple of 2^-40
  }
  EXPECT_EQ(sample.count_global, (weights.array() != 0).count());
  EXPECT_TRUE(std::is_sorted(sample.rows.begin(), sample.rows.end()));
  EXPECT_EQ(sample_poisson(A, reference::local_part(A, scores), {.oversampling = 1e6}).count_global, n);
  EXPECT_EQ(sample_poisson(A, VectorXd::Zero(A.rows_local()), {.uniform_share = 0}).count_global, 0);
}

TEST(Sampling, DrawsWithReplacementAddUp) {
  const Communicator world(MPI_COMM_WORLD);
  constexpr Index n = 400, d = 5, draws = 1000;
  const auto A = reference::distribute(world, reference::random_matrix(n, d, 1), Layout::random);
  VectorXd scores = reference::random_vector(n, 2).cwiseAbs().cwiseMin(1);
  for (Index i = 0; i < n; i += 3) scores[i] = 0;
  scores[1] = 1e-15;  // below the unit, but not impossible
  const VectorXd mine = reference::local_part(A, scores);
  const auto sample = sample_with_replacement(A, mine, {.draws = draws});
  const VectorXd weights = all_weights(A, sample);
  double counted = 0;
  for (Index i = 0; i < n; ++i) {
    const double count = weights[i] * draws * scores[i] / scores.sum();
    EXPECT_NEAR(count, std::round(count), 1e-6);
    EXPECT_TRUE(scores[i] > 0 || weights[i] == 0);
    counted += count;
  }
  EXPECT_NEAR(counted, draws, 1e-6 * draws);
  EXPECT_EQ(sample.count_global, (weights.array() != 0).count());
  EXPECT_EQ(sample_with_replacement(A, VectorXd::Zero(A.rows_local()), {.draws = 5}).count_global, 0);
}

TEST(Sampling, SizeByTheChernoffBound) {
  EXPECT_EQ(with_replacement_size(50, 0.5, 0.01), 4257);  // 50 ln(1e4) / (1.5 ln 1.5 - 0.5) = 4256.2
  EXPECT_NEAR(static_cast<double>(with_replacement_size(50, 0.25, 0.01)), 15919, 1);
  EXPECT_NEAR(static_cast<double>(with_replacement_size(50, 0.1, 0.01)), 95125, 1);
  EXPECT_NEAR(static_cast<double>(with_replacement_size(50, 0.5, 0.01, 0.25)), 4 * 4256.2, 2);
  EXPECT_THROW(with_replacement_size(50, 0, 0.01), InvalidArgument);
  EXPECT_THROW(with_replacement_size(50, 0.5, 1), InvalidArgument);
  EXPECT_THROW(with_replacement_size(50, 0.5, 0.5, 1.5), InvalidArgument);
}

/// The largest |lambda - 1| of the sampled Gram matrix in the norm of the whole one, by Eigen.
double error_of(const RowMajorMatrix& dense, const VectorXd& D, const VectorXd& kept) {
  const MatrixXd whole = dense.transpose() * D.asDiagonal() * dense,
                 sampled = dense.transpose() * kept.asDiagonal() * dense;
  const Eigen::GeneralizedSelfAdjointEigenSolver<MatrixXd> solver(sampled, whole, Eigen::EigenvaluesOnly);
  return (solver.eigenvalues().array() - 1).abs().maxCoeff();
}

TEST(Subsample, ASparseDiagonalOfTheWantedSizeWithTheErrorThatItSays) {
  const Communicator world(MPI_COMM_WORLD);
  constexpr Index n = 6000, d = 7;
  const RowMajorMatrix dense = reference::rounded_for_all(reference::score_problem(Rows::cauchy, n, d));
  VectorXd D = reference::random_vector(n, 2).cwiseAbs();
  D.head(1000).setZero();
  for (const auto holding : {reference::Holding::float64, reference::Holding::float32, reference::Holding::sparse64}) {
    const auto A = reference::distribute(world, dense, Layout::random, holding);
    const VectorXd mine = reference::local_part(A, D);
    for (const bool with_replacement : {false, true})
      for (const std::int64_t rows : {std::int64_t{0}, std::int64_t{400}})
        for (const bool exact_scores : {false, true}) {
          const SubsampleOptions options{
              .rows = rows, .with_replacement = with_replacement, .exact_scores = exact_scores};
          const Subsample found = subsample(A, mine, options);
          const VectorXd kept = all_weights(A, found.rows);
          EXPECT_EQ((kept.array() != 0).count(), found.rows.count_global);
          EXPECT_TRUE((kept.head(1000).array() == 0).all());
          if (rows > 0) {
            EXPECT_NEAR(found.expected, 400, 1);
          }
          // A sum of independent choices: its variance is at most its mean, so this is 6 standard deviations.
          if (!with_replacement) {
            EXPECT_NEAR(static_cast<double>(found.rows.count_global), found.expected, 6 * std::sqrt(found.expected));
          }
          const SubsampleError error = subsample_error(A, mine, found.rows, 3, 1);
          const double expected = error_of(dense, D, kept);
          EXPECT_NEAR(error.spectral, expected, 1e-6 * (1 + expected));  // condition of Cauchy rows: 1e4, squared
          EXPECT_LE(error.probed, error.spectral * (1 + 1e-6));
          if (rows == 0) {
            EXPECT_LE(error.spectral, options.epsilon);  // fails with probability delta = 0.01 at most
          }
        }
    EXPECT_TRUE(std::isnan(subsample_error(A, mine, {}, 1, 1, d - 1).spectral));
  }
}

TEST(Subsample, WhatCannotBeSampledIsRefused) {
  const Communicator world(MPI_COMM_WORLD);
  const RowMajorMatrix dense = reference::random_matrix(50, 3, 1);
  const auto A = reference::distribute(world, dense, Layout::random);
  EXPECT_THROW(subsample(A, VectorXd::Zero(A.rows_local()), {}), InvalidArgument);
  EXPECT_THROW(subsample(A, VectorXd::Constant(A.rows_local(), -1), {}), InvalidArgument);
  EXPECT_THROW(subsample(A, {}, {.rows = -1}), InvalidArgument);
  const Subsample all = subsample(A, {}, {.rows = 1000});
  EXPECT_EQ(all.rows.count_global, 50);
  EXPECT_LE(subsample_error(A, {}, all.rows, 2, 1).probed, 1e-15 * 50);
}

TEST(Sampling, GramOfTheSampledRows) {
  const Communicator world(MPI_COMM_WORLD);
  for (const Index d : {1, 7, 8, 33}) {
    const Index n = 6000;
    const RowMajorMatrix dense = reference::rounded_for_all(reference::random_matrix(n, d, 1));
    const VectorXd D = reference::random_vector(n, 2), centre = reference::random_vector(d, 3);
    for (const auto holding : {reference::Holding::float64, reference::Holding::float32, reference::Holding::float16,
                               reference::Holding::bfloat16, reference::Holding::sparse64}) {
      const auto A = reference::distribute(world, dense, Layout::random, holding);
      const auto sample = sample_poisson(A, VectorXd::Constant(A.rows_local(), 0.03), {});
      const WeightedRows sampled = WeightedRows{reference::local_part(A, D)}.choose(sample.rows, sample.weights);
      const auto sum_of = [&](const WeightedRows& of_rows, const VectorXd& about) {
        const SignedGram gram = signed_gram(A, of_rows, about);
        return reference::summed(world, MatrixXd(gram.positive - gram.negative));
      };
      const MatrixXd found = sum_of(sampled, centre);
      const VectorXd weights = all_weights(A, sample).cwiseProduct(D);
      const RowMajorMatrix rows = dense.rowwise() - centre.transpose();
      const MatrixXd expected = rows.transpose() * weights.asDiagonal() * rows;
      const MatrixXd size = rows.cwiseAbs().transpose() * weights.cwiseAbs().asDiagonal() * rows.cwiseAbs();
      EXPECT_LE((found - expected).cwiseAbs().maxCoeff(), 2 * n * reference::eps * size.maxCoeff());
      EXPECT_EQ(found, found.transpose());
      const VectorXd curvature = sampled.curvature.cwiseAbs(), ridge = 0.5 * sample.weights;
      const MatrixXd both = sum_of({curvature, ridge, {}, {}, sample.rows}, centre);
      const MatrixXd apart =
          sum_of({curvature, {}, {}, {}, sample.rows}, centre) + sum_of({ridge, {}, {}, {}, sample.rows}, {});
      EXPECT_LE((both - apart).cwiseAbs().maxCoeff(), 2 * n * reference::eps * (size.maxCoeff() + apart.maxCoeff()));
      EXPECT_EQ(A.reads(), 0);
      EXPECT_GT(sample.count_global, 4096);  // more than are gathered at once, on one rank
    }
  }
}

TEST(Sampling, RefusesBadArgumentsOnAllRanks) {
  const Communicator world(MPI_COMM_WORLD);
  const auto A = reference::distribute(world, reference::random_matrix(100, 3, 1), Layout::even);
  VectorXd scores = VectorXd::Constant(A.rows_local(), 0.1);
  EXPECT_THROW(sample_poisson(A, scores, {.oversampling = 0}), InvalidArgument);
  EXPECT_THROW(sample_poisson(A, scores, {.uniform_share = 1.1}), InvalidArgument);
  EXPECT_THROW(sample_with_replacement(A, scores, {.draws = 0}), InvalidArgument);
  for (const double bad : {-0.1, std::nan(""), std::numeric_limits<double>::infinity()}) {
    if (world.rank() == 0) scores[2] = bad;
    EXPECT_THROW(sample_poisson(A, scores, {}), InvalidArgument);
    EXPECT_THROW(sample_with_replacement(A, scores, {.draws = 10}), InvalidArgument);
  }
  const VectorXd short_scores = VectorXd::Zero(world.rank() == 0 ? 1 : A.rows_local());
  EXPECT_THROW(sample_poisson(A, short_scores, {}), InvalidArgument);
}

}  // namespace attnreg::test_sampling
