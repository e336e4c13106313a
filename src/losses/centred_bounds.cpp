#include "losses/centred_bounds.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "numbers/row_sums.hpp"

namespace attnreg {

using Eigen::Index;
using Eigen::VectorXd;

namespace {

constexpr double kEps = std::numeric_limits<double>::epsilon();
constexpr double kSimplexSlack = 1e-12;  // rounding of a |b|_1 that is meant to be 1; 0.2405 has room for it

/// delta = f (2 f - b - gamma), gamma = <f, f - b>; pi = 4 f - b - gamma.
class SoftmaxBounds final : public CentredBounds {
 public:
  VectorXd third_derivative(const PointRows& rows, const BallGrowth& ball, const SumOfRanks& ranks) const override {
    const Gamma gamma = find_gamma(rows, ranks);
    const double uncertainty = gamma_change(rows, ball, ranks) + gamma.error;
    VectorXd bound(rows.f.size());
    for (Index i = 0; i < bound.size(); ++i) {
      const double f = rows.f[i], rest = rows.b[i] + gamma.value;
      const double most = 4 * f * ball.growth[i], least = 4 * f / (ball.growth[i] * ball.mass);
      const double rounding = most * rows.z_error[i] + kEps * (most + std::abs(rows.b[i]) + std::abs(gamma.value));
      bound[i] = std::max(std::abs(most - rest), std::abs(least - rest)) + uncertainty + rounding;
    }
    return bound;
  }

  bool has_mean_term() const override { return true; }

  // Of all f and b with |b|_1 given; docs/certificate.md.
  double indefiniteness(double, double target_norm) const override {
    const double general = 1.0 / 12 + 0.19246 * target_norm;
    return target_norm <= 1 + kSimplexSlack ? std::min(0.2405, general) : general;
  }

  Rounding rounding(const PointRows& rows, const SumOfRanks& ranks) const override {
    const Gamma gamma = find_gamma(rows, ranks);
    const auto f = rows.f.array(), b = rows.b.array();
    const auto moved_f = rows.z_error.array() * (4 * f - b - gamma.value).abs();
    const auto summed = kEps * (2 * f + b.abs() + std::abs(gamma.value));
    return {f * (moved_f + summed + gamma.error), f * rows.z_error.array(), {}, {}, gamma.error};
  }

 private:
  struct Gamma {
    double value, error;
  };
  static Gamma find_gamma(const PointRows& rows, const SumOfRanks& ranks) {
    auto sums = sum_over_rows<2>(rows.f.size(), [&](Index first, Index count, std::array<double, 2>& block) {
      for (Index i = first; i < first + count; ++i) {
        const double f = rows.f[i], b = rows.b[i];
        block[0] += f * (f - b);
        block[1] += f * (rows.z_error[i] * std::abs(2 * f - b) + kEps * (f + std::abs(b)));
      }
    });
    ranks.sum(sums);
    return {sums[0], sums[1]};
  }

  /// |gamma(y) - gamma(x)| = |sum (f_i(y) - f_i(x)) (f_i(y) + f_i(x) - b_i)| in the ball.
  static double gamma_change(const PointRows& rows, const BallGrowth& ball, const SumOfRanks& ranks) {
    const auto sums = sum_over_rows<1>(rows.f.size(), [&](Index first, Index count, std::array<double, 1>& block) {
      for (Index i = first; i < first + count; ++i) {
        const double f = rows.f[i], b = rows.b[i], growth = ball.growth[i];
        const double moved = f * std::max(growth - 1, 1 - 1 / (growth * ball.mass));
        block[0] += moved * std::max(std::abs(f + f * growth - b), std::abs(f - b));
      }
    });
    return ranks.sum(sums[0]);
  }
};

/// delta = s f, s = <b, 1>; pi = s.
class CrossEntropyBounds final : public CentredBounds {
 public:
  VectorXd third_derivative(const PointRows& rows, const BallGrowth&, const SumOfRanks& ranks) const override {
    const Mass mass = find_mass(rows, ranks);
    return VectorXd::Constant(rows.f.size(), std::abs(mass.value) + mass.error);
  }

  bool has_mean_term() const override { return false; }

  // diag(f) - f f^T lies between 0 and I / 2.
  double indefiniteness(double target_sum, double) const override { return std::max(0.0, -target_sum / 2); }

  Rounding rounding(const PointRows& rows, const SumOfRanks& ranks) const override {
    const double mass_error = find_mass(rows, ranks).error;
    const auto f = rows.f.array(), error = rows.z_error.array();
    return {rows.delta.array().abs() * error + f * mass_error, f * error, {}, {}, mass_error};
  }

 private:
  struct Mass {
    double value, error;  // a small difference where b has numbers of both signs
  };
  static Mass find_mass(const PointRows& rows, const SumOfRanks& ranks) {
    auto sums = sum_over_rows<2>(rows.b.size(), [&](Index first, Index count, std::array<double, 2>& block) {
      block[0] = rows.b.segment(first, count).sum();
      block[1] = kEps * rows.b.segment(first, count).lpNorm<1>();
    });
    ranks.sum(sums);
    return {sums[0], sums[1]};
  }
};

}  // namespace

const CentredBounds* find_centred_bounds(std::string_view loss) {
  static const SoftmaxBounds softmax;
  static const CrossEntropyBounds cross_entropy;
  if (loss == "softmax") return &softmax;
  return loss == "cross-entropy" ? &cross_entropy : nullptr;
}

}  // namespace attnreg
