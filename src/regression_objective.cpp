#include "regression_objective.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <limits>

#include "row_sums.hpp"

namespace attnreg {

using Eigen::Index;
using Eigen::VectorXd;

namespace {

constexpr double kEps = std::numeric_limits<double>::epsilon();
constexpr double kLargestOffset = 0.05;  // above, the sums of a value are made again at the new reference
constexpr int kStepsBetweenRefreshes = 10;

double wall_clock() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::span<const double> part(const VectorXd& v, Index first, Index rows) {
  return {v.data() + first, static_cast<std::size_t>(rows)};
}

}  // namespace

RegressionObjective::RegressionObjective(const RowMatrix& A, const VectorXd& b, const VectorXd& w,
                                         std::unique_ptr<Loss> loss, const SamplingOptions& sampling)
    : A_(A),
      b_(b),
      w2_(w.cwiseAbs2()),
      row_norms_(A.row_norms()),
      loss_(std::move(loss)),
      reads_before_(A.reads()),
      collectives_before_(A.communicator().collectives()),
      start_seconds_(wall_clock()),
      rows_out_(A.rows_local(), 2),
      delta_(A.rows_local()),
      model_(A, w2_, sampling) {}

LossRows RegressionObjective::rows_of(const VectorXd& z, Index first, Index rows) const {
  return {part(z, first, rows), part(b_, first, rows)};
}

double RegressionObjective::shift(const VectorXd& z) const {
  return A_.communicator().max(loss_->shift(rows_of(z, 0, z.size())));
}

RegressionObjective::Value RegressionObjective::value_at(const VectorXd& z, double reference) const {
  auto sums = sum_over_rows<9>(z.size(), [&](Index first, Index rows, std::array<double, 9>& block) {
    LossSums loss_sums{};
    loss_->add_value(rows_of(z, first, rows), reference, loss_sums);
    std::copy(loss_sums.begin(), loss_sums.end(), block.begin());
    block[8] = 0.5 * w2_.segment(first, rows).dot(z.segment(first, rows).cwiseAbs2());
  });
  A_.communicator().sum(sums);
  LossSums loss_sums;
  std::copy_n(sums.begin(), loss_sums.size(), loss_sums.begin());
  const LossPoint point = loss_->value(loss_sums, reference);
  return {point, point.value + sums[8]};
}

RegressionObjective::Value RegressionObjective::value_from_scratch(const VectorXd& z) const {
  const Value rough = value_at(z, shift(z));
  return rough.point.offset > 0 ? value_at(z, rough.point.reference) : rough;
}

void RegressionObjective::move_to(const VectorXd& x) {
  x_ = x;
  z_ = x.isZero(0) ? VectorXd::Zero(A_.rows_local()) : A_.multiply(x);
  steps_since_refresh_ = 0;
  const Value value = value_from_scratch(z_);
  point_ = value.point;
  value_ = value.total;
  differentiate();
}

void RegressionObjective::differentiate() {
  const auto bound = sum_over_rows<1>(z_.size(), [&](Index first, Index rows, std::array<double, 1>& block) {
    const auto size = static_cast<std::size_t>(rows);
    loss_->differentiate(rows_of(z_, first, rows), point_, {&rows_out_(first, 0), size}, {&rows_out_(first, 1), size},
                         {delta_.data() + first, size});
    rows_out_.col(0).segment(first, rows) += w2_.segment(first, rows).cwiseProduct(z_.segment(first, rows));
    block[0] = rounding_of_rows(first, rows).dot(row_norms_.segment(first, rows));
  });
  const Eigen::MatrixXd local = A_.transpose_multiply(rows_out_);
  const Index d = dimension();
  VectorXd message(2 * d + 2);  // the clock of rank 0 rides along: time is replicated too
  message << local.col(0), local.col(1), bound[0], A_.communicator().is_root() ? wall_clock() - start_seconds_ : 0.0;
  A_.communicator().sum({message.data(), static_cast<std::size_t>(message.size())});
  gradient_ = message.head(d);
  centre_ = message.segment(d, d);
  floor_bound_ = message[2 * d];
  seconds_ = message[2 * d + 1];
}

// In units of eps: q_i + w_i^2 z_i itself, and what the rounding of z_i (at most eps |a_i| max|x|, as a random sum) and
// of the exponent z_i - reference does to it.
VectorXd RegressionObjective::rounding_of_rows(Index first, Index rows) const {
  const double largest_x = x_.cwiseAbs().maxCoeff();
  const auto delta = delta_.segment(first, rows).array().abs();
  return rows_out_.col(0).segment(first, rows).array().abs() + delta * std::abs(point_.reference) +
         (delta + w2_.segment(first, rows).array()) * row_norms_.segment(first, rows).array() * largest_x;
}

double RegressionObjective::gradient_floor() {
  if (gradient_.norm() > kEps * floor_bound_) return kEps * floor_bound_;
  VectorXd absolute = A_.absolute_transpose_multiply(rounding_of_rows(0, z_.size()));
  A_.communicator().sum({absolute.data(), static_cast<std::size_t>(absolute.size())});
  return kEps * absolute.norm();
}

Hessian RegressionObjective::hessian() {
  const auto& communicator = A_.communicator();
  const Index d = dimension(), entries = d * d;
  if (!ridge_known_) {
    ridge_gram_ = A_.signed_gram(w2_, VectorXd::Zero(d)).positive;
    communicator.sum_to_root({ridge_gram_.data(), static_cast<std::size_t>(entries)});
    if (!communicator.is_root()) ridge_gram_.resize(0, 0);
    ridge_known_ = true;
  }
  const auto gram = A_.signed_gram(delta_, centre_);
  VectorXd message(2 * entries + 1);
  message << gram.positive.reshaped(), gram.negative.reshaped(), delta_.cwiseMax(0).sum();
  communicator.sum_to_root({message.data(), static_cast<std::size_t>(message.size())});
  Hessian hessian{communicator, {}, {}, {}};
  if (!communicator.is_root()) return hessian;
  hessian.positive_part = message.head(entries).reshaped(d, d) + ridge_gram_;
  hessian.exact = hessian.positive_part - message.segment(entries, entries).reshaped(d, d);
  hessian.scale = hessian.positive_part.diagonal() + message[2 * entries] * centre_.cwiseAbs2();
  return hessian;
}

VectorXd RegressionObjective::hessian_product(const VectorXd& p) {
  const double centre_p = centre_.dot(p);
  p_ = p;
  const VectorXd local = A_.normal_product(
      p,
      [&](Index first, std::span<const double> y, std::span<double> weights) {
        for (std::size_t i = 0; i < y.size(); ++i) {
          const Index row = first + static_cast<Index>(i);
          weights[i] = delta_[row] * (y[i] - centre_p) + w2_[row] * y[i];
        }
      },
      product_y_);
  const auto centred = sum_over_rows<1>(z_.size(), [&](Index first, Index rows, std::array<double, 1>& block) {
    block[0] = delta_.segment(first, rows).dot((product_y_.segment(first, rows).array() - centre_p).matrix());
  });
  VectorXd message(dimension() + 1);
  message << local, centred[0];
  A_.communicator().sum({message.data(), static_cast<std::size_t>(message.size())});
  return message.head(dimension()) - message[dimension()] * centre_;
}

bool RegressionObjective::refresh_preconditioner(bool tired) {
  auto factor = model_.factor(delta_, centre_, tired);
  if (factor) preconditioner_ = Preconditioner(std::move(*factor));
  return factor.has_value();
}

void RegressionObjective::set_direction(const VectorXd& s) {
  s_ = s;
  y_ = A_.multiply(s);
  references_.clear();
}

double RegressionObjective::largest_move() const {
  return A_.communicator().max(y_.size() == 0 ? 0.0 : y_.cwiseAbs().maxCoeff());
}

void RegressionObjective::clear_direction() {
  s_ = VectorXd::Zero(dimension());
  y_ = VectorXd::Zero(A_.rows_local());
  references_.clear();
}

void RegressionObjective::extend_direction(double alpha) {
  s_ += alpha * p_;
  y_ += alpha * product_y_;
}

std::vector<double> RegressionObjective::change_along(std::span<const double> steps) {
  constexpr std::size_t kWidth = 9;  // the loss's sums, and how many rows overflow
  constexpr std::size_t kMaxSteps = 4;
  if (steps.size() > kMaxSteps) throw InternalError("change_along takes up to 4 steps");
  const double mean_y = centre_.dot(s_);  // <f, y>; phi does not see it, but it would cancel in 1 + <f, exp(t y) - 1>
  auto sums = sum_over_rows<kWidth * kMaxSteps + 2>(z_.size(), [&](Index first, Index rows, auto& block) {
    const VectorXd y = y_.segment(first, rows).array() - mean_y;
    const double largest_y = y.cwiseAbs().maxCoeff();
    for (std::size_t k = 0; k < steps.size(); ++k) {
      if (!(std::abs(steps[k]) * largest_y <= Loss::largest_exponent)) {
        block[kWidth * k + 8] = 1;
        continue;
      }
      LossSums loss_sums{};
      loss_->add_change(rows_of(z_, first, rows), part(y, 0, rows), steps[k], point_, loss_sums);
      std::copy(loss_sums.begin(), loss_sums.end(), block.begin() + static_cast<std::ptrdiff_t>(kWidth * k));
    }
    const auto wy = w2_.segment(first, rows).cwiseProduct(y_.segment(first, rows));
    block[kWidth * kMaxSteps] = wy.dot(z_.segment(first, rows));
    block[kWidth * kMaxSteps + 1] = wy.dot(y_.segment(first, rows));
  });
  A_.communicator().sum(sums);

  const double ridge_slope = sums[kWidth * kMaxSteps], ridge_curvature = sums[kWidth * kMaxSteps + 1];
  std::vector<double> changes;
  for (std::size_t k = 0; k < steps.size(); ++k) {
    LossSums loss_sums;
    std::copy_n(sums.begin() + static_cast<std::ptrdiff_t>(kWidth * k), loss_sums.size(), loss_sums.begin());
    const double t = steps[k];
    double change;
    if (sums[kWidth * k + 8] == 0) {
      const LossChange loss_change = loss_->change(loss_sums, point_);
      change = loss_change.value + t * ridge_slope + 0.5 * t * t * ridge_curvature;
      references_[t] = point_.reference + t * mean_y + loss_change.reference_shift;
    } else {
      const Value there = value_from_scratch(z_ + t * y_);
      change = there.total - value_;
      references_[t] = there.point.reference;
    }
    changes.push_back(std::isfinite(change) ? change : std::numeric_limits<double>::infinity());
  }
  return changes;
}

void RegressionObjective::step(double t) {
  x_ += t * s_;
  if (++steps_since_refresh_ > kStepsBetweenRefreshes) {
    z_ = A_.multiply(x_);
    steps_since_refresh_ = 0;
  } else {
    z_ += t * y_;
  }
  const auto known = references_.find(t);
  Value value = known != references_.end() ? value_at(z_, known->second) : value_from_scratch(z_);
  if (value.point.offset > kLargestOffset) value = value_at(z_, value.point.reference);
  point_ = value.point;
  value_ = value.total;
  differentiate();
}

}  // namespace attnreg
