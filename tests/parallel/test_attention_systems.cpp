// Threshold attention, private attention, and the experiments, against their definitions and docs/experiments.md.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "attnreg/apply_attention.hpp"
#include "experiments/experiments.hpp"
#include "numbers/random.hpp"
#include "support/dense_algebra.hpp"
#include "support/reference.hpp"
#include "support/refusal.hpp"

namespace attnreg::test_attention_systems {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::Layout;
using testing::HasSubstr;
using Background = ThresholdOptions::Background;

/// The whole matrix A, by the definition.
RowMajorMatrix threshold_reference(const RowMajorMatrix& Z, const RowMajorMatrix& V, const ThresholdOptions& options) {
  RowMajorMatrix output(Z.rows(), V.cols());
  for (Index i = 0; i < Z.rows(); ++i) {
    std::vector<double> rest;
    for (Index j = 0; j < Z.cols(); ++j)
      if (Z(i, j) < options.tau) rest.push_back(Z(i, j));
    double background = 0, sum = 0;
    for (const double z : rest) {
      background += std::exp(z) / static_cast<double>(rest.size());
      sum += z / static_cast<double>(rest.size());
    }
    if (options.background == Background::exp_of_mean) background = std::exp(sum);
    if (options.background == Background::zero) background = 0;
    const VectorXd A =
        Z.row(i).transpose().unaryExpr([&](double z) { return z >= options.tau ? std::exp(z) : background; });
    output.row(i) = A.transpose() * V / A.sum();
  }
  return output;
}

/// entries + rank_one 1^T of this rank's queries.
RowMajorMatrix dense(const ThresholdAttention& found) {
  RowMajorMatrix P = found.rank_one * Eigen::RowVectorXd::Ones(found.entries.columns);
  for (Index i = 0; i < P.rows(); ++i)
    for (auto k = static_cast<std::size_t>(found.entries.offsets[static_cast<std::size_t>(i)]);
         k < static_cast<std::size_t>(found.entries.offsets[static_cast<std::size_t>(i) + 1]); ++k)
      P(i, found.entries.indices[k]) += found.entries.values[k];
  return P;
}

TEST(ThresholdAttention, TheLargestAreThoseAboveTheirOwnThreshold) {
  const Communicator world(MPI_COMM_WORLD);
  RowMajorMatrix Q = reference::random_matrix(150, 4, 1), K = reference::random_matrix(300, 4, 2);
  K.row(290) = K.row(20);  // equal logits: the lower key comes first
  const RowMajorMatrix V = reference::random_matrix(300, 3, 3), Z = 0.5 * Q * K.transpose();
  const auto keys = reference::distribute(world, K, Layout::random);
  const auto values = reference::distribute(world, V, Layout::even);
  for (const Layout layout : reference::layouts)
    for (const Background background : {Background::row_mean, Background::exp_of_mean, Background::zero})
      for (const std::int64_t top : {1, 7, 299, 300, 1000}) {
        const auto queries = reference::distribute(world, Q, layout);
        const auto found = threshold_attention(queries, keys, values, {0, background, 0.5, top});
        const RowMajorMatrix P = dense(found);
        double worst = 0;
        bool right = true;
        for (Index i = 0; i < queries.rows_local(); ++i) {
          const Eigen::RowVectorXd z = Z.row(static_cast<Index>(queries.first_row()) + i);
          std::vector<double> sorted(z.begin(), z.end());
          std::ranges::sort(sorted, std::greater<>{});
          const auto count = std::min<std::int64_t>(top, 300);
          const double tau = sorted[static_cast<std::size_t>(count) - 1];
          const RowMajorMatrix row = z;
          const RowMajorMatrix expected = threshold_reference(row, V, {tau, background, 0.5});
          const auto first = static_cast<std::size_t>(found.entries.offsets[static_cast<std::size_t>(i)]);
          right = right && found.marked[static_cast<std::size_t>(i)] == count;
          for (std::int64_t k = 0; k < count; ++k)
            right = right && z[found.entries.indices[first + static_cast<std::size_t>(k)]] >= tau - 1e-13;
          if (z[20] < tau || sorted[static_cast<std::size_t>(count) % 300] < tau)  // no tie at the threshold
            worst = std::max({worst, (found.output.row(i) - expected).norm(), (P.row(i) * V - expected).norm()});
          else if (count < 300)  // 20 is marked, 290 is not
            right = right && found.entries.indices[first + static_cast<std::size_t>(count) - 1] != 290;
        }
        EXPECT_TRUE(right);
        EXPECT_LE(worst, 1e-12);
      }
  const auto queries = reference::distribute(world, Q, Layout::even);
  EXPECT_THAT(refusal([&] {
                threshold_attention(queries, keys, values, {0, Background::zero, 1, -1});
              }),
              HasSubstr("-1 largest logits"));
}

TEST(ThresholdAttention, IsTheDefinitionOnAnyNumberOfRanks) {
  const Communicator world(MPI_COMM_WORLD);
  const RowMajorMatrix Q = reference::random_matrix(150, 4, 1), K = reference::random_matrix(300, 4, 2);
  const RowMajorMatrix V = reference::random_matrix(300, 3, 3), Z = 0.5 * Q * K.transpose();
  const auto keys = reference::distribute(world, K, Layout::random);
  const auto values = reference::distribute(world, V, Layout::even);
  for (const Layout layout : reference::layouts) {
    const auto queries = reference::distribute(world, Q, layout);
    for (const Background background : {Background::row_mean, Background::exp_of_mean, Background::zero})
      for (const double tau : {-1e9, 0.05, 1e9}) {
        if (background == Background::zero && tau > 1) continue;
        const ThresholdOptions options{tau, background, 0.5};
        const auto found = threshold_attention(queries, keys, values, options);
        const RowMajorMatrix expected = threshold_reference(Z, V, options);
        const auto first = static_cast<Index>(queries.first_row()), count = queries.rows_local();
        // Logits of at most 10 with errors of some eps; sums of 300 terms: below 300 * 10 eps.
        EXPECT_LE((found.output - expected.middleRows(first, count)).cwiseAbs().sum(),
                  static_cast<double>(count) * 1e-12);
        for (Index i = 0; i < count; ++i)
          EXPECT_EQ(found.marked[static_cast<std::size_t>(i)], (Z.row(first + i).array() >= tau).count());
        // The same with the matrix: its sparse part and its rank-one part give the output.
        ThresholdOptions with_entries = options;
        with_entries.keep_entries = true;
        const auto kept = threshold_attention(queries, keys, values, with_entries);
        EXPECT_LE((kept.output - found.output).cwiseAbs().sum(), static_cast<double>(count) * 1e-12);
        EXPECT_EQ(kept.marked, found.marked);
        EXPECT_LE((dense(kept) * V - found.output).cwiseAbs().sum(), static_cast<double>(count) * 1e-12);
        EXPECT_LE((dense(kept).rowwise().sum().array() - 1).abs().sum(), static_cast<double>(count) * 1e-12);
      }
    const auto none = [&] { threshold_attention(queries, keys, values, {1e9, Background::zero, 1}); };
    EXPECT_THAT(refusal(none), HasSubstr("query 0 (counted from 0) has no logit"));
    EXPECT_THAT(refusal([&] { threshold_attention(queries, keys, values, {NAN}); }), HasSubstr("tau is NaN"));
  }
}

TEST(ThresholdAttention, TheMeanOfTheRestIsTheBestBackground) {
  const Communicator world(MPI_COMM_WORLD);
  const Index n = 256;
  RowMajorMatrix Q = reference::random_matrix(n, 16, 4);
  Q.rowwise().normalize();  // the logits of every query are N(0, 2^2)
  const auto queries = reference::distribute(world, RowMajorMatrix(2 * Q), Layout::even);
  const auto keys = reference::distribute(world, reference::random_matrix(n, 16, 5), Layout::even);
  const auto values = reference::distribute(world, reference::random_matrix(n, 8, 6), Layout::even);
  const auto exact = threshold_attention(queries, keys, values, {-1e9, Background::row_mean, 1}).output;
  const auto error = [&](Background background) {
    // 6 % of N(0, 2^2) is above 3.1: about 16 of 256 keys.
    const auto rough = threshold_attention(queries, keys, values, {3.1, background, 1}).output;
    return std::sqrt(world.sum((rough - exact).squaredNorm()) / world.sum(exact.squaredNorm()));
  };
  const double mean = error(Background::row_mean), exp = error(Background::exp_of_mean), zero = error(Background::zero);
  // Another draw, of 16 keys exactly, gave 0.13, 0.30 and 0.49.
  EXPECT_NEAR(mean, 0.13, 0.05);
  EXPECT_NEAR(exp, 0.30, 0.09);
  EXPECT_NEAR(zero, 0.49, 0.15);
}

TEST(Grover, TakesAsManyQueriesAsTheTheorySays) {
  // docs/experiments.md: 2.3 to 2.9 sqrt(N t) for all t of N. The mean of 200 searches is right to some percent.
  for (const std::int64_t N : {1024, 4096, 16384})
    for (const std::int64_t t : {4, 16, 64}) {
      double sum = 0;
      for (std::int64_t query = 0; query < 200; ++query)
        sum += static_cast<double>(simulated_grover_queries(N, t, 1, query));
      const double factor = sum / 200 / std::sqrt(static_cast<double>(N * t));
      EXPECT_GT(factor, 2.1) << N << " " << t;
      EXPECT_LT(factor, 3.1) << N << " " << t;
    }
  EXPECT_EQ(simulated_grover_queries(10, 0, 1, 0), 0);
  EXPECT_THROW(simulated_grover_queries(10, 11, 1, 0), InvalidArgument);
}

CovarianceChange promised(double sensitivity) { return {CovarianceChange::Eigenvalues::any, sensitivity}; }

TEST(PrivateAttention, ReachesTheExpectedAccuracy) {
  const Communicator world(MPI_COMM_WORLD);
  const Index n = 32;
  const RowMajorMatrix X = reference::random_matrix(n, 400, 8) * std::sqrt(0.1 / 400);
  const auto rows = reference::distribute(world, X, Layout::random);
  const MatrixXd Sigma = row_gram(rows);
  EXPECT_LE((Sigma - X * X.transpose()).cwiseAbs().maxCoeff(), 1e-14);
  for (const std::int64_t k : {1000, 10000}) {
    const PrivateAttentionOptions options{.change = promised(1e-4), .samples = k, .seed = 3};
    const PrivateAttention result = private_attention(world, Sigma, options);
    EXPECT_EQ(result.samples, k);
    EXPECT_LT(result.privacy.delta, 1e-3);
    EXPECT_GT(result.sensitivity_limit, 1e-4);
    if (!world.is_root()) continue;
    // Davidson and Szarek: singular values of Z / k^{1/2} are in 1 -+ ((n/k)^{1/2} + t k^{-1/2}) with probability
    // 1 - 2 exp(-t^2 / 2), 0.999993 for t = 5. The largest of n of them is rarely far inside.
    const double edge = (std::sqrt(n) + 5) / std::sqrt(k);
    EXPECT_LE(result.spectral_error, 2 * edge + edge * edge);
    EXPECT_GE(result.spectral_error, 0.7 * result.expected_spectral_error);
    // n (n + 1) / 2 nearly independent squares: their sum has a relative deviation of about 2 / n.
    EXPECT_NEAR(result.frobenius_error / result.expected_frobenius_error, 1, 5.0 / n);
    const MatrixXd L = reference::cholesky_factor(Sigma);
    const MatrixXd half = L.triangularView<Eigen::Lower>().solve(MatrixXd(result.covariance));
    MatrixXd error = L.triangularView<Eigen::Lower>().solve(MatrixXd(half.transpose()));
    error.diagonal().array() -= 1;
    EXPECT_NEAR(error.norm(), result.frobenius_error, 1e-10);
    EXPECT_LE((result.attention.rowwise().sum().array() - 1).abs().maxCoeff(), 1e-14);
    EXPECT_LT(result.release.entry, k == 1000 ? 0.03 : 0.01);  // 0.0098 and 0.0032 in docs/experiments.md's source
  }
}

TEST(PrivateAttention, IsTheSameOnAnyNumberOfRanks) {
  const Communicator world(MPI_COMM_WORLD);
  const MatrixXd Sigma = 2 * MatrixXd::Identity(3, 3) + MatrixXd::Constant(3, 3, 0.5);
  const PrivateAttention result =
      private_attention(world, Sigma, {.change = promised(1e-4), .samples = 700, .seed = 5});
  // The sum of all samples on one rank, drawn by the definition.
  if (!world.is_root()) return;
  const RandomStream random(5, Purpose::private_samples);
  const MatrixXd L = reference::cholesky_factor(Sigma);
  MatrixXd expected = MatrixXd::Zero(3, 3);
  for (std::int64_t s = 0; s < 700; ++s) {
    VectorXd z(3);
    random.normals(s, {z.data(), 3});
    expected += (L * z) * (L * z).transpose() / 700;
  }
  EXPECT_LE((result.covariance - expected).cwiseAbs().maxCoeff(), 1e-12);
}

TEST(PrivateAttention, RefusesAndSaysWhichConditionFails) {
  const Communicator world(MPI_COMM_WORLD);
  const MatrixXd I = MatrixXd::Identity(4, 4);
  const auto message = [&](const MatrixXd& Sigma, const PrivateAttentionOptions& options) {
    return refusal([&] { private_attention(world, Sigma, options); });
  };
  EXPECT_THAT(message(I, {.budget = {1, 0.95}, .change = promised(1)}), HasSubstr("Delta < 1 fails"));
  EXPECT_THAT(message(I, {.change = promised(0.9)}), HasSubstr("not even one sample is allowed"));
  EXPECT_THAT(message(I, {.change = promised(0.01), .samples = 10000}), HasSubstr("fails for k = 10000"));
  EXPECT_THAT(message(MatrixXd::Ones(4, 4), {.change = promised(0.01)}), HasSubstr("positive definite fails"));
  EXPECT_THAT(message(-I, {.change = promised(0.01)}), HasSubstr("positive definite fails"));
  EXPECT_THAT(message(I, {.change = promised(0.01), .smallest_eigenvalue = 2}),
              HasSubstr("lambda_min(Sigma) >= eta fails"));
  EXPECT_THAT(message(MatrixXd::Ones(4, 3), {.change = promised(0.01)}), HasSubstr("expected square"));
  EXPECT_THAT(message(NAN * I, {.change = promised(0.01)}), HasSubstr("not finite"));
  EXPECT_THAT(message(I, {.budget = {0, 0.1}, .change = promised(0.01)}), HasSubstr("epsilon"));
  EXPECT_THAT(message(I, {.change = promised(0)}), HasSubstr("sensitivity"));
  // A ridge makes it well-posed.
  EXPECT_EQ(message(MatrixXd::Ones(4, 4), {.change = promised(0.01), .samples = 10, .ridge = 1}), "nothing thrown");
}

using namespace experiments;

TEST(Experiments, PolynomialAttentionSeparatesFromDegreeThreeOn) {
  const Communicator world(MPI_COMM_WORLD);
  const Table table = polynomial_attention(world, {.draws = 10, .degrees = {1, 2, 3, 4, 5, 6, 8}});
  const double shares[] = {.0049, .024, .109, .38, .75, .94, .997};  // math of docs/experiments.md, rounded
  for (std::size_t k = 0; k < table.rows.size(); ++k) {
    const bool separates = table.at(k, "degree") >= 3;
    // The kernel takes powers by logarithms: relative errors of degree * 300 eps at most.
    EXPECT_NEAR(table.at(k, "share"), table.at(k, "closed_share"), 1e-12);
    EXPECT_NEAR(table.at(k, "share") / shares[k], 1, 0.03);
    EXPECT_NEAR(table.at(k, "margin1"), table.at(k, "closed_margin1"), 1e-12);
    EXPECT_EQ(table.at(k, "margin1") > 0, separates);
    EXPECT_LT(table.at(k, "margin0"), 0);
    EXPECT_EQ(table.at(k, "fires0"), 0);
    // 1 - (3/4)^35 and more in theory: a draw that does not fire has probability 4e-5.
    EXPECT_EQ(table.at(k, "fires1"), separates ? 1 : 0);
  }
  EXPECT_NEAR(table.at(0, "margin1"), -0.055, 5e-4);
  EXPECT_NEAR(table.at(1, "margin1"), -0.036, 5e-4);
}

TEST(Experiments, PolynomialAttentionTakesOtherData) {
  const Communicator world(MPI_COMM_WORLD);
  // The same data once more, as sets of the caller's: n = 12, d = 6, token 6 is the special one.
  const PolynomialAttention options{.columns = 6, .copies = 3, .a1 = 2, .draws = 7, .degrees = {1, 4, 9}};
  const auto tokens = [&](double a, Layout layout) {
    RowMajorMatrix rows = RowMajorMatrix::Zero(12, 6);
    for (Index i = 0; i < 12; ++i) rows(i, 1 + i % 4) = options.b;
    rows(6, 0) = a;
    rows.col(5).setConstant(options.c);
    return reference::distribute(world, rows, layout);
  };
  const Table made = polynomial_attention(world, options);
  const Table given = polynomial_sets(tokens(options.a0, Layout::random), tokens(options.a1, Layout::even), options);
  for (std::size_t k = 0; k < made.rows.size(); ++k) {
    for (const char* column : {"degree", "margin0", "margin1", "fires0", "fires1"})
      EXPECT_NEAR(made.at(k, column), given.at(k, column), 1e-13);
    EXPECT_EQ(given.at(k, "gap"), given.at(k, "margin1") - given.at(k, "margin0"));
    EXPECT_NEAR(made.at(k, "margin1"), made.at(k, "closed_margin1"), 1e-12);
  }
  EXPECT_THAT(refusal([&] { polynomial_attention(world, {.columns = 2}); }), HasSubstr("d >= 3"));
  EXPECT_THAT(refusal([&] { polynomial_attention(world, {.c = 0}); }), HasSubstr("c must not be 0"));
  EXPECT_THAT(refusal([&] { polynomial_attention(world, {.degrees = {}}); }), HasSubstr("degrees"));
}

TEST(Experiments, PolynomialVectorsFireFromDegreeFourOn) {
  const Communicator world(MPI_COMM_WORLD);
  const Table table = polynomial_vector(world, {.draws = 200});
  for (std::size_t k = 0; k < table.rows.size(); ++k) {
    EXPECT_EQ(table.at(k, "fires0"), 0);
    // 200 draws have a standard deviation of at most 0.035; four of them, and an error of the approximation.
    EXPECT_NEAR(table.at(k, "fires1"), table.at(k, "predicted1"), 0.15);
    if (table.at(k, "degree") <= 3) {
      EXPECT_EQ(table.at(k, "fires1"), 0);
    }
    if (table.at(k, "degree") == 4) {
      EXPECT_NEAR(table.at(k, "fires1"), 0.28, 0.14);
    }
    if (table.at(k, "degree") >= 6) {
      EXPECT_EQ(table.at(k, "fires1"), 1);
    }
  }
}

TEST(Experiments, CheckedGradientsFindTheForger) {
  const Communicator world(MPI_COMM_WORLD);
  const Table table = checked_gradient(world, {.checks = {1, 4, 8}, .trials = 60});
  for (std::size_t k = 0; k < 3; ++k) {
    EXPECT_EQ(table.at(k, "missed"), 0);  // (7/8)^200 = 3e-12 a trial
    EXPECT_EQ(table.at(k, "false_alarms"), 0);
    EXPECT_LT(table.at(k, "honest_difference"), 1e-14);
    // A geometric number of steps has a standard deviation of at most its mean: five of them for 60 trials.
    const double expected = table.at(k, "expected");
    EXPECT_NEAR(table.at(k, "steps"), expected, 5 * std::sqrt(expected * (expected - 1) / 60));
  }
  const Table honest = checked_gradient(world, {.checks = {8}, .forgery = 0, .trials = 2, .most_steps = 20});
  EXPECT_EQ(honest.at(0, "missed"), 2);
  EXPECT_EQ(honest.at(0, "false_alarms"), 0);
}

}  // namespace attnreg::test_attention_systems
