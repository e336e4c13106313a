// delta(epsilon) of the Gaussian covariance mechanism: against closed forms, its normal limit, and draws; and what
// neighbours change, against neighbours.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Eigen/Eigenvalues>
#include <cmath>
#include <random>
#include <vector>

#include "attnreg/apply_attention.hpp"
#include "support/refusal.hpp"

namespace attnreg::test_privacy_profile {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using testing::HasSubstr;
using Eigenvalues = CovarianceChange::Eigenvalues;

/// P(Gamma(shape) > y) for shape = 1/2, 1, 2: half of a chi-square of 1, 2, 4 degrees of freedom.
double gamma_tail(double shape, double y) {
  if (y <= 0) return 1;
  if (shape == 0.5) return std::erfc(std::sqrt(y));
  return shape == 1 ? std::exp(-y) : (1 + y) * std::exp(-y);
}

/// P(L > epsilon) - e^epsilon P'(L > epsilon) for one eigenvalue 1 + x: L = x G - (k / 2) ln(1 + x) with G ~ Gamma(k /
/// 2) under X, and G / (1 + x) in place of G under X'.
double closed_form(double x, int samples, double epsilon) {
  const double shape = samples / 2.0, edge = (epsilon + shape * std::log1p(x)) / x;
  if (x > 0) return gamma_tail(shape, edge) - std::exp(epsilon) * gamma_tail(shape, edge * (1 + x));
  if (edge <= 0) return 0;
  return (1 - gamma_tail(shape, edge)) - std::exp(epsilon) * (1 - gamma_tail(shape, edge * (1 + x)));
}

void expect_delta(double expected, const CovarianceChange& change, std::int64_t samples, double epsilon) {
  const PrivacyDelta found = privacy_delta(change, samples, epsilon);
  const double rounding = 1e-14 + 1e-12 * expected;  // of the closed form
  EXPECT_GE(found.delta, expected - rounding) << change.size << " " << samples << " " << epsilon;
  EXPECT_LE(found.delta - found.error, expected + rounding) << change.size << " " << samples << " " << epsilon;
  // Below 1e-9 the closed form has lost its digits. For one sample the sum ends early.
  if (expected > 1e-9) {
    EXPECT_LE(found.error, (samples == 1 ? 1e-3 : 1e-4) * expected) << change.size << " " << samples << " " << epsilon;
  }
}

TEST(PrivacyProfile, IsTheClosedFormOfOneEigenvalue) {
  for (const int samples : {1, 2, 4})
    for (const double size : {0.01, 0.3, 2.0, 50.0})
      for (const double epsilon : {0.1, 5.0}) {
        const CovarianceChange change{Eigenvalues::one, size};
        const double up = closed_form(size, samples, epsilon), down = closed_form(-size / (1 + size), samples, epsilon),
                     expected = std::max(up, down);
        expect_delta(expected, change, samples, epsilon);
      }
}

TEST(PrivacyProfile, IsTheClosedFormOfAPair) {
  // Two samples: L is the difference of two exponentials, and delta = (Lambda - 1) / (Lambda + 1) e^{-epsilon / u}.
  for (const double u : {0.05, 0.4, 3.0, 1000.0})
    for (const double epsilon : {0.001, 0.2, 1.0, 20.0}) {
      const double expected = u / (u + 2) * std::exp(-epsilon / u);
      expect_delta(expected, {Eigenvalues::pair, u}, 2, epsilon);
    }
}

TEST(PrivacyProfile, HasTheNormalLimit) {
  // L is N(s^2 / 2, s^2) for k u^2 = s^2 (pair), 2 s^2 (one), up to terms of size u.
  const auto tail = [](double x) { return std::erfc(x / std::sqrt(2.0)) / 2; };
  const std::int64_t k = std::int64_t{1} << 30;
  for (const double s : {0.2, 0.5, 2.0})
    for (const double epsilon : {0.1, 1.0, 3.0}) {
      const double expected = tail(epsilon / s - s / 2) - std::exp(epsilon) * tail(epsilon / s + s / 2);
      if (expected < 1e-12) continue;  // far out the limit is slow
      const double u = s / std::sqrt(static_cast<double>(k));
      const PrivacyDelta pair = privacy_delta({Eigenvalues::pair, u}, k, epsilon);
      const PrivacyDelta one = privacy_delta({Eigenvalues::one, u * std::sqrt(2.0)}, k, epsilon);
      EXPECT_NEAR(pair.delta / expected, 1, 1e-3) << s << " " << epsilon;
      EXPECT_NEAR(one.delta / expected, 1, 1e-2) << s << " " << epsilon;
      EXPECT_LE(pair.error, 1e-5 * pair.delta);
    }
}

TEST(PrivacyProfile, GrowsWithTheChangeAndTheSamples) {
  for (const Eigenvalues kind : {Eigenvalues::any, Eigenvalues::one, Eigenvalues::pair}) {
    double last = 0;
    for (const double size : {0.001, 0.01, 0.05, 0.1, 0.4}) {
      const PrivacyDelta found = privacy_delta({kind, size}, 100, 1);
      EXPECT_GE(found.delta, last);
      last = found.delta - found.error;
    }
    EXPECT_GE(privacy_delta({kind, 0.1}, 300, 1).delta, privacy_delta({kind, 0.1}, 100, 1).delta);
    EXPECT_LE(privacy_delta({kind, 0.1}, 100, 2).delta, privacy_delta({kind, 0.1}, 100, 1).delta);
    EXPECT_LE(privacy_delta({kind, 0.9}, 1000000, 1).delta, 1);
    EXPECT_GT(privacy_delta({kind, 0.9}, 1000000, 1).delta, 0.999);
    EXPECT_GT(privacy_delta({kind, 1e-9}, 1, 1).delta, 0);  // it is e^{-10^9}, and not 0
  }
}

TEST(PrivacyProfile, TheLimitsAreExactAndNotTheRule) {
  for (const Eigenvalues kind : {Eigenvalues::any, Eigenvalues::one, Eigenvalues::pair})
    for (const PrivacyBudget budget : {PrivacyBudget{1, 1e-3}, PrivacyBudget{0.1, 1e-8}, PrivacyBudget{20, 0.3}})
      for (const double size : {0.02, 0.003, 1e-4}) {
        const CovarianceChange change{kind, size};
        const std::int64_t k = sample_limit(budget, change);
        if (k == 0) continue;
        EXPECT_LE(privacy_delta(change, k, budget.epsilon).delta, budget.delta);
        EXPECT_GT(privacy_delta(change, k + 1, budget.epsilon).delta, budget.delta);
        EXPECT_NEAR(change_limit(budget, k, kind).size / size, 1, k > 100 ? 0.01 : 1);
        EXPECT_GE(change_limit(budget, k, kind).size, size * (1 - 1e-9));
      }
  // The papers' rule for one eigenvalue: 1 / (8 Delta^2 ln 1000) samples of Delta = 0.001. Its delta is below 1e-15.
  const double rule = 1 / (8 * 1e-6 * std::log(1e3));
  EXPECT_LT(privacy_delta({Eigenvalues::one, 1e-3}, static_cast<std::int64_t>(rule), 1).delta, 1e-15);
  EXPECT_GT(static_cast<double>(sample_limit({1, 1e-3}, {Eigenvalues::one, 1e-3})), 14 * rule);
  EXPECT_GT(static_cast<double>(sample_limit({1, 1e-3}, {Eigenvalues::any, 1e-3})), 10 * rule);
  EXPECT_EQ(sample_limit({1, 1e-3}, {Eigenvalues::pair, 1000}), 0);
}

/// E (1 - e^{epsilon - L})_+ with the k samples of the matrices themselves, and its standard error.
struct Drawn {
  double mean, error;
};
Drawn drawn_delta(const MatrixXd& Sigma, const MatrixXd& Sigma2, int samples, double epsilon) {
  const Eigen::LLT<MatrixXd> factor(Sigma), factor2(Sigma2);
  const double log_ratio =
      2 * (factor2.matrixLLT().diagonal().array().log().sum() - factor.matrixLLT().diagonal().array().log().sum());
  std::mt19937_64 generator(7);
  std::normal_distribution<double> normal;
  constexpr int kDraws = 20000;
  double sum = 0, squares = 0;
  VectorXd z(Sigma.rows());
  for (int draw = 0; draw < kDraws; ++draw) {
    double loss = samples * log_ratio / 2;
    for (int s = 0; s < samples; ++s) {
      for (double& value : z) value = normal(generator);
      const VectorXd g = factor.matrixL() * z;
      loss += (g.dot(factor2.solve(g)) - z.squaredNorm()) / 2;
    }
    const double value = std::max(0.0, -std::expm1(epsilon - loss));
    sum += value;
    squares += value * value;
  }
  const double mean = sum / kDraws;
  return {mean, std::sqrt(squares / kDraws - mean * mean) / std::sqrt(kDraws)};
}

TEST(PrivacyProfile, IsWhatIsDrawnFromTheWorstNeighbours) {
  for (const Index n : {1, 3}) {
    const double ridge = 2, C = 1.2;
    const MatrixXd X = MatrixXd::Constant(n, 1, C);
    MatrixXd other = X;
    other(n - 1, 0) = n == 1 ? 0 : -C;
    const MatrixXd I = ridge * MatrixXd::Identity(n, n);
    const MatrixXd Sigma = X * X.transpose() + I, Sigma2 = other * other.transpose() + I;
    const CovarianceChange change = covariance_change({n, C}, ridge);
    for (const int samples : {1, 5})
      for (const double epsilon : {0.1, 0.7}) {
        const PrivacyDelta found = privacy_delta(change, samples, epsilon);
        const Drawn one = drawn_delta(Sigma, Sigma2, samples, epsilon);
        const Drawn two = drawn_delta(Sigma2, Sigma, samples, epsilon);
        // One in 10^6 of such draws is five standard errors off.
        EXPECT_NEAR(found.delta, std::max(one.mean, two.mean), 5 * std::max(one.error, two.error) + 1e-5)
            << n << " " << samples << " " << epsilon;
      }
  }
}

TEST(PrivacyProfile, HoldsForAnyEigenvaluesOfAPromisedNorm) {
  // Diagonal covariances: n changes of one size and both signs, of Frobenius norm at most 0.3 in both orders.
  for (const Index n : {1, 2, 8}) {
    const double x = 0.3 / std::sqrt(static_cast<double>(n));
    MatrixXd Sigma = MatrixXd::Identity(n, n);
    for (Index i = 0; i < n; ++i) Sigma(i, i) = i % 2 == 0 ? 1 + x : 1 / (1 + x);
    for (const double epsilon : {0.1, 0.7}) {
      const double bound = privacy_delta({Eigenvalues::any, 0.3}, 10, epsilon).delta;
      const Drawn found = drawn_delta(Sigma, MatrixXd::Identity(n, n), 10, epsilon);
      EXPECT_LE(found.mean, bound + 5 * found.error);
      EXPECT_GT(found.mean, bound / 30);
    }
  }
}

TEST(PrivacyProfile, NoNeighbourChangesMoreThanTheBound) {
  std::mt19937_64 generator(5);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform;
  constexpr double C = 1.3;
  constexpr Index d = 3;
  const auto within = [](VectorXd row, double limit) {
    const double norm = row.norm();
    return norm > limit ? VectorXd(row * (limit / norm)) : row;
  };
  for (const Index n : {1, 2, 5, 12})
    for (const double E : {0.05, 0.9, 2 * C})
      for (const double ridge : {0.01, 0.4, 10.0, 1e5}) {
        const CovarianceChange change = covariance_change({n, C, E}, ridge);
        EXPECT_EQ(change.eigenvalues, n == 1 ? Eigenvalues::one : Eigenvalues::pair);
        double largest = 1;
        for (int trial = 0; trial < 150; ++trial) {
          MatrixXd X(n, d);
          const VectorXd along = VectorXd::NullaryExpr(d, [&](Index) { return normal(generator); }).normalized();
          for (Index i = 0; i < n; ++i) {
            const VectorXd row = VectorXd::NullaryExpr(d, [&](Index) { return normal(generator); });
            X.row(i) = trial % 2 == 0 ? VectorXd(C * along) : within(2 * row, C);
          }
          MatrixXd other = X;
          const double share = trial % 4 == 0 ? 1 : uniform(generator);
          if (trial % 2 == 0) {  // along one line: the last row of X and of X', anywhere in what is allowed
            const double length = std::min(E, 2 * C) * share,
                         end = trial % 8 < 6 ? C : C - uniform(generator) * (2 * C - length);
            X.row(n - 1) = end * along;
            other.row(n - 1) = (end - length) * along;
          } else {
            const VectorXd step =
                VectorXd::NullaryExpr(d, [&](Index) { return normal(generator); }).normalized() * E * share;
            other.row(n - 1) = within(X.row(n - 1).transpose() + step, C);
          }
          const MatrixXd I = ridge * MatrixXd::Identity(n, n);
          const Eigen::GeneralizedSelfAdjointEigenSolver<MatrixXd> eigen(
              X * X.transpose() + I, other * other.transpose() + I, Eigen::EigenvaluesOnly);
          const VectorXd values = eigen.eigenvalues();
          largest = std::max({largest, values.maxCoeff(), 1 / values.minCoeff()});
          if (n > 2) {
            EXPECT_LE((values.segment(1, n - 2).array() - 1).abs().maxCoeff(), 1e-8);
          }
        }
        EXPECT_LE(largest - 1, change.size * (1 + 1e-6) + 1e-9) << n << " rows, ridge " << ridge << ", change " << E;
        // Of a replaced row, and for n = 1, the bound is met; rows along one line of length C are among the trials.
        if (E == 2 * C && n > 1) {
          EXPECT_GE(largest - 1, change.size * (1 - 1e-6)) << n << " " << ridge;
        }
        if (E < 1 && ridge > 1) {
          EXPECT_GE(largest - 1, change.size * (1 - 1e-5)) << n << " " << ridge << " " << E;
        }
      }
  // A replaced row in closed form.
  const double u = covariance_change({7, 2}, 3).size;
  EXPECT_NEAR(u * u / (1 + u), 4 * 6 * 16 / (3.0 * (3 + 7 * 4)), 1e-12);
}

TEST(PrivacyProfile, TheSmallestRidgeIsTheSmallest) {
  for (const Neighbours& neighbours : {Neighbours{100, 1}, Neighbours{100, 1, 0.01}, Neighbours{1, 3, 0.5}})
    for (const std::int64_t k : {10, 10000}) {
      const PrivacyBudget budget{1, 1e-3};
      const double ridge = smallest_ridge(budget, k, neighbours);
      EXPECT_LE(privacy_delta(covariance_change(neighbours, ridge), k, 1).delta, 1e-3);
      EXPECT_GT(privacy_delta(covariance_change(neighbours, ridge * 0.9999), k, 1).delta, 1e-3);
    }
}

TEST(PrivacyProfile, RefusesWhatIsOutOfRange) {
  const CovarianceChange change{Eigenvalues::pair, 0.1};
  EXPECT_THAT(refusal([&] { privacy_delta(change, 0, 1); }), HasSubstr("samples"));
  EXPECT_THAT(refusal([&] { privacy_delta(change, 1, 0); }), HasSubstr("epsilon"));
  EXPECT_THAT(refusal([&] { privacy_delta({Eigenvalues::any, 1}, 1, 1); }), HasSubstr("Delta < 1 fails"));
  EXPECT_THAT(refusal([&] { privacy_delta({Eigenvalues::one, NAN}, 1, 1); }), HasSubstr("sensitivity"));
  EXPECT_THAT(refusal([&] { sample_limit({1, 1}, change); }), HasSubstr("delta"));
  EXPECT_THAT(refusal([&] { covariance_change({3, 1}, 0); }), HasSubstr("ridge"));
  EXPECT_THAT(refusal([&] { covariance_change({0, 1}, 1); }), HasSubstr("row"));
  EXPECT_THAT(refusal([&] { covariance_change({3, 1, -1}, 1); }), HasSubstr("change"));
  EXPECT_EQ(privacy_delta(covariance_change({3, 1e200}, 1e-200), 1, 1).delta, 1);
}

}  // namespace attnreg::test_privacy_profile
