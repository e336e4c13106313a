#include "newton/trust_region.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "algebra/dense_factors.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kRidge = 1e-13;      // relative; above the rounding of a null direction
constexpr double kDependent = 20;     // pivots of so many ridges belong to columns that depend on earlier ones
constexpr double kRadiusSlack = 0.1;  // |s|_M within 10 % of the radius will do (More and Sorensen 1983)
constexpr int kMaxFactorizations = 60;
constexpr int kUsualFailures = 8;

/// Relative to `scale`, so that directions without any curvature stay put.
Eigen::VectorXd ridge_of(const Eigen::VectorXd& scale) {
  const double largest = scale.maxCoeff();
  return kRidge * (scale.array() > 0).select(scale.array(), largest > 0 ? largest : 1.0);
}

/// Matrices of one rank.
class LocalPencil final : public Pencil {
 public:
  LocalPencil(Eigen::MatrixXd H, Eigen::MatrixXd M) : H_(std::move(H)), M_(std::move(M)) {}
  bool is_finite() const override { return H_.allFinite() && M_.allFinite(); }
  void add_ridge(const Eigen::VectorXd& ridge) override { H_.diagonal() += ridge, M_.diagonal() += ridge; }
  bool factor(double shift) override { return cholesky_.factor(H_ + shift * M_); }
  Eigen::VectorXd solve(const Eigen::VectorXd& v) const override { return cholesky_.solve(v); }
  Eigen::VectorXd pivots() const override { return cholesky_.pivots(); }
  Eigen::VectorXd multiply_H(const Eigen::VectorXd& v) const override { return H_ * v; }
  Eigen::VectorXd multiply_M(const Eigen::VectorXd& v) const override { return M_ * v; }

 private:
  Eigen::MatrixXd H_, M_;
  Cholesky cholesky_;
};

/// The pieces of one trust-region problem: solutions of (H + shift M) s = -g for a shift that is being searched.
class ShiftSearch {
 public:
  ShiftSearch(Pencil& pencil, const Eigen::VectorXd& g, double radius) : pencil_(pencil), g_(g), radius_(radius) {}

  TrustRegionStep run() {
    if (try_shift(0) && length_ <= (1 + kRadiusSlack) * radius_) return result(length_ > (1 - kRadiusSlack) * radius_);
    double shift = definite_ ? next_shift() : 1e-3;
    if (!std::isfinite(radius_)) return first_definite_step();
    double growth = 4;
    for (int failures = 0; factorizations_ < kMaxFactorizations;) {
      if (!try_shift(safeguarded(shift))) {
        if (++failures > kUsualFailures) growth *= 4;  // M may be next to nothing beside -H
        shift = growth * shift_;
        continue;
      }
      if (std::abs(length_ - radius_) <= kRadiusSlack * radius_) return result(true);
      if (length_ < radius_ && reach_boundary_along_least_curvature()) return result(true);
      shift = next_shift();
    }
    return upper_ < kInfinity && try_shift(upper_) ? result(true) : TrustRegionStep{};
  }

 private:
  /// Indefinite, and no scale is known yet: a definite shift from 1 on sets it. M may be next to nothing beside -H.
  TrustRegionStep first_definite_step() {
    constexpr double kNear = 16;
    double shift = 1;
    for (double growth = 4; !try_shift(shift); growth *= 4) {
      if (factorizations_ >= kMaxFactorizations / 2) return {};
      shift *= growth;
    }
    for (double below = lower_; upper_ > kNear * std::max(below, 1.0); below = lower_)
      try_shift(std::sqrt(upper_ * std::max(below, 1.0)));
    return definite_ || try_shift(upper_) ? result(true) : TrustRegionStep{};
  }

  bool try_shift(double shift) {
    shift_ = shift;
    ++factorizations_;
    definite_ = pencil_.factor(shift);
    if (definite_) {
      s_ = -pencil_.solve(g_);
      length_ = metric_norm(s_);
      definite_ = std::isfinite(length_);
    }
    if (definite_ && length_ < radius_)
      upper_ = std::min(upper_, shift);
    else
      lower_ = std::max(lower_, shift);
    return definite_;
  }

  double metric_norm(const Eigen::VectorXd& v) const { return std::sqrt(std::max(0.0, v.dot(pencil_.multiply_M(v)))); }

  /// Newton's method on 1 / |s(shift)|_M = 1 / radius.
  double next_shift() const {
    const Eigen::VectorXd Ms = pencil_.multiply_M(s_);
    const double slope = Ms.dot(pencil_.solve(Ms));
    return shift_ + length_ * length_ / slope * (length_ - radius_) / radius_;
  }

  double safeguarded(double shift) const {
    if (shift > lower_ && shift < upper_) return shift;
    if (upper_ < kInfinity) return std::max(std::sqrt(lower_ * upper_), lower_ + 0.01 * (upper_ - lower_));
    return std::max(4 * lower_, 1e-3);
  }

  /// The hard case: s is inside although the shift is as small as it can be. Adds a direction of least curvature up to
  /// the boundary if that is nearly optimal.
  bool reach_boundary_along_least_curvature() {
    // s is rich in the direction sought, unless g is exactly orthogonal to it: hence the part without any symmetry
    Eigen::VectorXd v = s_.normalized() + Eigen::VectorXd::LinSpaced(g_.size(), 0.1, 0.2);
    for (int k = 0; k < 4; ++k) {
      v = pencil_.solve(pencil_.multiply_M(v));
      const double norm = metric_norm(v);
      if (!(norm > 0) || !std::isfinite(norm)) return false;
      v /= norm;
    }
    const double along = s_.dot(pencil_.multiply_M(v)), gap = radius_ * radius_ - length_ * length_;
    const double tau = gap / (along + std::copysign(std::sqrt(along * along + gap), along));
    const double curvature = v.dot(pencil_.multiply_H(v)) + shift_;
    if (!(tau * tau * curvature <= kRadiusSlack * (shift_ * radius_ * radius_ - g_.dot(s_)))) return false;
    s_ += tau * v;
    length_ = radius_;
    return true;
  }

  TrustRegionStep result(bool on_boundary) const { return {true, s_, length_, shift_, on_boundary}; }

  Pencil& pencil_;
  const Eigen::VectorXd& g_;
  const double radius_;
  Eigen::VectorXd s_;
  double shift_ = 0, length_ = 0, lower_ = 0, upper_ = kInfinity;
  bool definite_ = false;
  int factorizations_ = 0;
};

TrustRegionStep trust_region_step(Pencil& pencil, const Eigen::VectorXd& scale, const Eigen::VectorXd& g,
                                  double radius) {
  if (!pencil.is_finite() || !g.allFinite()) return {};
  const Eigen::VectorXd ridge = ridge_of(scale);
  pencil.add_ridge(ridge);
  TrustRegionStep step = ShiftSearch(pencil, g, radius).run();
  if (step.finite && step.shift == 0)
    step.singular = (pencil.pivots().array().square() <= kDependent * ridge.array()).any();
  return step;
}

}  // namespace

TrustRegionStep trust_region_step(Eigen::MatrixXd H, Eigen::MatrixXd M, const Eigen::VectorXd& scale,
                                  const Eigen::VectorXd& g, double radius) {
  LocalPencil pencil(std::move(H), std::move(M));
  return trust_region_step(pencil, scale, g, radius);
}

TrustRegionStep trust_region_step(Hessian hessian, const Eigen::VectorXd& g, double radius) {
  if (hessian.distributed != nullptr) return trust_region_step(*hessian.distributed, hessian.scale, g, radius);
  TrustRegionStep step;
  if (hessian.communicator.is_root())
    step = trust_region_step(std::move(hessian.exact), std::move(hessian.positive_part), hessian.scale, g, radius);
  Eigen::VectorXd message = Eigen::VectorXd::Zero(g.size() + 5);
  if (step.finite)
    message << step.s, 1.0, step.length, step.shift, step.on_boundary ? 1.0 : 0.0, step.singular ? 1.0 : 0.0;
  hessian.communicator.broadcast(span_of(message));
  const auto tail = message.tail<5>();
  return {tail[0] != 0, message.head(g.size()), tail[1], tail[2], tail[3] != 0, tail[4] != 0};
}

}  // namespace attnreg
