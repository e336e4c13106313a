#include "losses/loss_bounds.hpp"

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
class SoftmaxBounds final : public LossBounds {
 public:
  VectorXd third_derivative(const PointRows& rows, const BallGrowth& ball,
                            const Communicator& communicator) const override {
    const Gamma gamma = find_gamma(rows, communicator);
    const double uncertainty = gamma_change(rows, ball, communicator) + gamma.error;
    VectorXd bound(rows.f.size());
    for (Index i = 0; i < bound.size(); ++i) {
      const double f = rows.f[i], rest = rows.b[i] + gamma.value;
      const double most = 4 * f * ball.growth[i], least = 4 * f / (ball.growth[i] * ball.mass);
      const double rounding = most * rows.f_error[i] + kEps * (most + std::abs(rows.b[i]) + std::abs(gamma.value));
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

  Rounding rounding(const PointRows& rows, const Communicator& communicator) const override {
    const Gamma gamma = find_gamma(rows, communicator);
    const auto f = rows.f.array(), b = rows.b.array();
    const auto moved_f = rows.f_error.array() * (4 * f - b - gamma.value).abs();
    const auto summed = kEps * (2 * f + b.abs() + std::abs(gamma.value));
    return {f * (moved_f + summed + gamma.error), gamma.error};
  }

 private:
  struct Gamma {
    double value, error;
  };
  static Gamma find_gamma(const PointRows& rows, const Communicator& communicator) {
    auto sums = sum_over_rows<2>(rows.f.size(), [&](Index first, Index count, std::array<double, 2>& block) {
      for (Index i = first; i < first + count; ++i) {
        const double f = rows.f[i], b = rows.b[i];
        block[0] += f * (f - b);
        block[1] += f * (rows.f_error[i] * std::abs(2 * f - b) + kEps * (f + std::abs(b)));
      }
    });
    communicator.sum(sums);
    return {sums[0], sums[1]};
  }

  /// |gamma(y) - gamma(x)| = |sum (f_i(y) - f_i(x)) (f_i(y) + f_i(x) - b_i)| in the ball.
  static double gamma_change(const PointRows& rows, const BallGrowth& ball, const Communicator& communicator) {
    const auto sums = sum_over_rows<1>(rows.f.size(), [&](Index first, Index count, std::array<double, 1>& block) {
      for (Index i = first; i < first + count; ++i) {
        const double f = rows.f[i], b = rows.b[i], growth = ball.growth[i];
        const double moved = f * std::max(growth - 1, 1 - 1 / (growth * ball.mass));
        block[0] += moved * std::max(std::abs(f + f * growth - b), std::abs(f - b));
      }
    });
    return communicator.sum(sums[0]);
  }
};

/// delta = s f, s = <b, 1>; pi = s.
class CrossEntropyBounds final : public LossBounds {
 public:
  VectorXd third_derivative(const PointRows& rows, const BallGrowth&, const Communicator& communicator) const override {
    const auto sums = sum_over_rows<1>(rows.b.size(), [&](Index first, Index count, std::array<double, 1>& block) {
      block[0] = rows.b.segment(first, count).sum();
    });
    return VectorXd::Constant(rows.f.size(), std::abs(communicator.sum(sums[0])));
  }

  bool has_mean_term() const override { return false; }

  // diag(f) - f f^T lies between 0 and I / 2.
  double indefiniteness(double target_sum, double) const override { return std::max(0.0, -target_sum / 2); }

  Rounding rounding(const PointRows& rows, const Communicator&) const override {
    return {rows.delta.cwiseAbs().cwiseProduct(rows.f_error), 0};
  }
};

}  // namespace

const LossBounds* find_loss_bounds(std::string_view loss) {
  static const SoftmaxBounds softmax;
  static const CrossEntropyBounds cross_entropy;
  if (loss == "softmax") return &softmax;
  if (loss == "cross-entropy") return &cross_entropy;
  return nullptr;
}

}  // namespace attnreg
