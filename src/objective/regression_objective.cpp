#include "objective/regression_objective.hpp"
#include "rows/row_passes.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "numbers/row_sums.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

constexpr double kEps = std::numeric_limits<double>::epsilon();
constexpr double kLargestOffset = 0.05;  // above, the sums of a value are made again at the new reference
constexpr double kLargestGuess = 1;      // above, value and gradient from one read are made again from z
constexpr int kStepsBetweenRefreshes = 10;
constexpr Index kBlock = 1024;  // rows of a tile or of a sum, at most

double wall_clock() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::span<const double> part(const VectorXd& v, Index first, Index rows) {
  return {v.data() + first, static_cast<std::size_t>(rows)};
}

}  // namespace

RegressionObjective::RegressionObjective(const RowMatrix& A, const VectorXd& b, const VectorXd& w,
                                         std::unique_ptr<Loss> loss, const SamplingOptions& sampling,
                                         const LinearSolverOptions& solver)
    : A_(A),
      b_(b),
      w2_(w.cwiseAbs2()),
      row_norms_(A.passes().row_norms()),
      loss_(std::move(loss)),
      reads_before_(A.reads()),
      collectives_before_(A.communicator().collectives()),
      start_seconds_(wall_clock()),
      delta_(A.rows_local()),
      positive_(loss_->form() == HessianForm::centred ? 0 : A.rows_local()),
      coupling_(loss_->form() == HessianForm::coupled ? A.rows_local() : 0),
      self_(coupling_.size()),
      grid_(solver.kind == LinearSolver::scalapack ? std::make_shared<const ProcessGrid>(A.communicator(), solver)
                                                   : nullptr),
      model_(A, w2_, sampling, grid_) {}

LossRows RegressionObjective::rows_of(const VectorXd& z, Index first, Index rows) const {
  return {part(z, first, rows), part(b_, first, rows)};
}

double RegressionObjective::shift(const VectorXd& z) const {
  return A_.communicator().max(loss_->shift(rows_of(z, 0, z.size())));
}

void RegressionObjective::add_value(const VectorXd& z, Index first, Index rows, double reference,
                                    std::span<double, 9> sums) const {
  LossSums loss_sums{};
  loss_->add_value(rows_of(z, first, rows), reference, loss_sums);
  for (std::size_t k = 0; k < loss_sums.size(); ++k) sums[k] += loss_sums[k];
  sums[8] += 0.5 * w2_.segment(first, rows).dot(logits_of(z, first, rows).cwiseAbs2());
}

RegressionObjective::Value RegressionObjective::value_of(std::span<const double, 9> sums, double reference) const {
  LossSums loss_sums;
  std::copy_n(sums.begin(), loss_sums.size(), loss_sums.begin());
  const LossPoint point = loss_->value(loss_sums, reference);
  return {point, point.value + sums[8]};
}

RegressionObjective::Value RegressionObjective::value_at(const VectorXd& z, double reference) const {
  auto sums = sum_over_rows<9>(
      z.size(), [&](Index first, Index rows, ValueSums& block) { add_value(z, first, rows, reference, block); });
  A_.communicator().sum(sums);
  return value_of(sums, reference);
}

RegressionObjective::Value RegressionObjective::value_from_scratch(const VectorXd& z) const {
  const Value rough = value_at(z, shift(z));
  return rough.point.offset > 0 ? value_at(z, rough.point.reference) : rough;
}

void RegressionObjective::move_to(const VectorXd& x) {
  ahead_.reset();
  largest_x_ = x.lpNorm<Eigen::Infinity>();
  if (x_.size() == x.size() && x_ == x && std::isfinite(value_)) {
    Evaluation evaluation = evaluate_in_one_read(x, Logits::at, z_, point_.reference);
    steps_since_refresh_ = 0;
    if (evaluation.accurate) return accept(std::move(evaluation));
  }
  x_ = x;
  z_ = x.isZero(0) ? VectorXd::Zero(A_.rows_local()) : A_.passes().multiply(x, Compensated());
  shift_ = 0;
  steps_since_refresh_ = 0;
  const Value value = value_from_scratch(z_);
  point_ = value.point;
  value_ = value.total;
  differentiate();
}

void RegressionObjective::fill_outputs(const VectorXd& z, const LossPoint& point, Index first, Index rows,
                                       const LossDerivatives& out) const {
  loss_->differentiate(rows_of(z, first, rows), point, out);
  for (Index i = 0; i < rows; ++i) out.q[static_cast<std::size_t>(i)] += w2_[first + i] * (z[first + i] + shift_);
}

/// Outputs that are kept with the point, beside q and f.
LossDerivatives RegressionObjective::kept_outputs(Index first, Index rows, std::span<double> q, std::span<double> f) {
  const auto size = static_cast<std::size_t>(rows);
  const auto of = [&](VectorXd& v) { return v.size() == 0 ? std::span<double>() : std::span(v.data() + first, size); };
  return {q.first(size), f.first(size), of(delta_), of(positive_), of(coupling_), of(self_)};
}

double RegressionObjective::log_value() const {
  if (std::isfinite(value_)) return std::log(value_);
  const double exponent = A_.communicator().max(loss_->largest_exponent_of(rows_of(z_, 0, z_.size())));
  auto sums = sum_over_rows<9>(z_.size(), [&](Index first, Index rows, ValueSums& block) {
    LossSums loss_sums{};
    loss_->add_scaled_value(rows_of(z_, first, rows), exponent, loss_sums);
    std::copy(loss_sums.begin(), loss_sums.end(), block.begin());
    block[8] = 0.5 * w2_.segment(first, rows).dot(logits_of(z_, first, rows).cwiseAbs2());
  });
  A_.communicator().sum(sums);
  LossSums loss_sums;
  std::copy_n(sums.begin(), loss_sums.size(), loss_sums.begin());
  const double log_phi = loss_->log_value(loss_sums, exponent);
  return log_phi + std::log1p(sums[8] * std::exp(-log_phi));
}

// In units of eps: q_i + w_i^2 z_i itself, and what the roundings of z_i, of the exponent z_i - reference, and of x and
// of the steps' A s (at most eps |a_i| max|x|, as random sums) do to it.
double RegressionObjective::rounding_of_row(Index row, double z, double q, double delta) const {
  const double curvature = std::abs(delta);
  return std::abs(q) + curvature * loss_->exponent_rounding(z, point_.reference) +
         (curvature + w2_[row]) * row_norms_[row] * largest_x_;
}

void RegressionObjective::differentiate() {
  const double clock = A_.communicator().is_root() ? wall_clock() - start_seconds_ : 0;
  const Index columns = loss_->form() == HessianForm::coupled ? 3 : 2;
  const auto local = A_.passes().transpose_map(columns, 1, [&](Index first, Index rows, double* U, double* bound) {
    std::array<double, kBlock> q, f;
    fill_outputs(z_, point_, first, rows, kept_outputs(first, rows, q, f));
    for (Index i = 0; i < rows; ++i) {
      const auto k = static_cast<std::size_t>(i);
      U[columns * i] = q[k];
      U[columns * i + 1] = f[k];
      if (columns == 3) U[columns * i + 2] = coupling_[first + i];
      *bound += rounding_of_row(first + i, z_[first + i], q[k], delta_[first + i]) * row_norms_[first + i];
    }
  });
  const Index d = dimension();
  VectorXd message(columns * d + 2);  // the clock of rank 0 rides along: time is replicated too
  message << local.columns.reshaped(), local.scalars[0], clock;
  A_.communicator().sum(span_of(message));
  gradient_ = message.head(d);
  centre_ = message.segment(d, d);
  coupled_centre_ = message.segment(2 * d, (columns - 2) * d);
  floor_bound_ = message[columns * d];
  seconds_ = message[columns * d + 1];
}

// Sums at a guess of the reference: docs/algorithms.md, "One read". The floor's bound takes the curvature at the guess.
RegressionObjective::Evaluation RegressionObjective::evaluate_in_one_read(const VectorXd& v, Logits meaning,
                                                                          VectorXd& product, double reference) {
  constexpr Index kScalars = 10;
  const Index of_loss = loss_->columns(), columns = of_loss + 1;
  const double clock = A_.communicator().is_root() ? wall_clock() - start_seconds_ : 0;
  if (meaning == Logits::at) {
    const double shift = loss_->is_shift_invariant() ? centre_.dot(v) : 0;
    reference += shift_ - shift;
    shift_ = shift;
  }
  LossPoint guess = point_;
  guess.reference = reference;
  VectorXd logits(meaning == Logits::step ? z_.size() : 0);
  const RowPasses::RowMap map = [&](Index first, Index rows, double* U, double* scalars) {
    if (meaning == Logits::step) logits.segment(first, rows) = z_.segment(first, rows) + product.segment(first, rows);
    const VectorXd& z = meaning == Logits::step ? logits : product;
    const auto size = static_cast<std::size_t>(rows);
    std::array<double, kBlock> q, f, delta;
    add_value(z, first, rows, reference, std::span<double, 9>(scalars, 9));
    loss_->fill_columns(rows_of(z, first, rows), reference, {U, size * static_cast<std::size_t>(columns)},
                        static_cast<std::size_t>(columns));
    fill_outputs(z, guess, first, rows,
                 {std::span(q).first(size), std::span(f).first(size), std::span(delta).first(size)});
    for (Index i = 0; i < rows; ++i) {
      const auto k = static_cast<std::size_t>(i);
      U[i * columns + of_loss] = w2_[first + i] * (z[first + i] + shift_);
      scalars[9] += rounding_of_row(first + i, z[first + i], q[k], delta[k]) * row_norms_[first + i];
    }
  };
  const auto local = meaning != Logits::step ? A_.passes().product_map(v, Compensated{shift_}, product, columns, kScalars, map)
                                             : A_.passes().product_map(v, product, columns, kScalars, map);
  const Index d = dimension();
  VectorXd message(columns * d + kScalars + 1);
  message << local.columns.reshaped(), local.scalars, clock;
  A_.communicator().sum(span_of(message));

  const auto sums_of_rows = message.head(columns * d).reshaped(d, columns);
  const std::span<const double, 9> sums(message.data() + columns * d, 9);
  Evaluation evaluation;
  evaluation.value = value_of(sums, reference);
  LossSums loss_sums;
  std::copy_n(sums.begin(), loss_sums.size(), loss_sums.begin());
  const Loss::Combination combination = loss_->combine(loss_sums, reference);
  const auto combined = [&](const auto& factors) {
    VectorXd sum = VectorXd::Zero(d);
    for (Index c = 0; c < of_loss; ++c) sum += factors[static_cast<std::size_t>(c)] * sums_of_rows.col(c);
    return sum;
  };
  evaluation.gradient = sums_of_rows.col(of_loss) + combined(combination.gradient);
  evaluation.centre = combined(combination.centre);
  evaluation.coupled_centre = combined(combination.coupling);
  evaluation.floor_bound = message[columns * d + 9];
  evaluation.seconds = message[columns * d + kScalars];
  evaluation.accurate = evaluation.value.point.offset <= kLargestGuess && evaluation.gradient.allFinite();
  return evaluation;
}

/// x_ and z_ are those of the evaluation.
void RegressionObjective::accept(Evaluation evaluation) {
  Value value = evaluation.value;
  if (!(value.point.offset <= kLargestOffset)) value = value_at(z_, value.point.reference);
  point_ = value.point;
  value_ = value.total;
  gradient_ = std::move(evaluation.gradient);
  centre_ = std::move(evaluation.centre);
  coupled_centre_ = std::move(evaluation.coupled_centre);
  floor_bound_ = evaluation.floor_bound;
  seconds_ = evaluation.seconds;
  sum_over_rows<1>(z_.size(), [&](Index first, Index rows, auto&) {
    std::array<double, kBlock> q, f;
    fill_outputs(z_, point_, first, rows, kept_outputs(first, rows, q, f));
  });
}

VectorXd RegressionObjective::fitted() const {
  VectorXd fitted(z_.size());
  sum_over_rows<1>(z_.size(), [&](Index first, Index rows, auto&) {
    loss_->fit(rows_of(z_, first, rows), point_, {fitted.data() + first, static_cast<std::size_t>(rows)});
  });
  return fitted;
}

double RegressionObjective::gradient_floor() {
  if (gradient_.norm() > kEps * floor_bound_) return kEps * floor_bound_;
  VectorXd rounding(z_.size());
  sum_over_rows<1>(z_.size(), [&](Index first, Index rows, auto&) {
    std::array<double, kBlock> q, f, delta;
    const auto size = static_cast<std::size_t>(rows);
    fill_outputs(z_, point_, first, rows,
                 {std::span(q).first(size), std::span(f).first(size), std::span(delta).first(size)});
    for (Index i = 0; i < rows; ++i)
      rounding[first + i] =
          rounding_of_row(first + i, z_[first + i], q[static_cast<std::size_t>(i)], delta[static_cast<std::size_t>(i)]);
  });
  VectorXd absolute = A_.passes().absolute_transpose_multiply(rounding);
  A_.communicator().sum(span_of(absolute));
  return kEps * absolute.norm();
}

void RegressionObjective::set_direction(const VectorXd& s) {
  s_ = s;
  y_ = A_.multiply(s);
  references_.clear();
  ahead_.reset();
}

void RegressionObjective::set_likely_direction(const VectorXd& s) {
  s_ = s;
  references_.clear();
  ahead_ = evaluate_in_one_read(s, Logits::step, y_, point_.reference + centre_.dot(s));
}

double RegressionObjective::longest_step() const {
  const double most = loss_->largest_move();
  return std::isfinite(most) ? most / largest_move() : most;
}

double RegressionObjective::largest_move() const {
  return A_.communicator().max(y_.size() == 0 ? 0.0 : y_.cwiseAbs().maxCoeff());
}

void RegressionObjective::clear_direction() {
  s_ = VectorXd::Zero(dimension());
  y_ = VectorXd::Zero(A_.rows_local());
  references_.clear();
  ahead_.reset();
}

void RegressionObjective::extend_direction(double alpha) {
  s_ += alpha * p_;
  y_ += alpha * product_y_;
  ahead_.reset();
}

std::vector<double> RegressionObjective::change_along(std::span<const double> steps) {
  constexpr std::size_t kWidth = 9;  // the loss's sums, and how many rows overflow
  constexpr std::size_t kMaxSteps = 4;
  if (steps.size() > kMaxSteps) throw InternalError("change_along takes up to 4 steps");
  // <f, y>; a centred phi does not see it, but it would cancel in 1 + <f, exp(t y) - 1>
  const double mean_y = loss_->is_shift_invariant() ? centre_.dot(s_) : 0;
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
    block[kWidth * kMaxSteps] = wy.dot(logits_of(z_, first, rows));
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
  largest_x_ = x_.lpNorm<Eigen::Infinity>();
  std::optional<Evaluation> evaluation;
  const auto known = references_.find(t);
  std::optional<double> reference;
  if (known != references_.end()) reference = known->second;
  if (++steps_since_refresh_ > kStepsBetweenRefreshes) {
    const double shift = shift_;
    evaluation = evaluate_in_one_read(x_, Logits::at, z_, reference.value_or(point_.reference));
    if (reference) *reference += shift - shift_;
    steps_since_refresh_ = 0;
  } else {
    z_ += t * y_;
    if (t == 1) evaluation = std::exchange(ahead_, std::nullopt);
  }
  ahead_.reset();
  if (evaluation && evaluation->accurate) return accept(std::move(*evaluation));

  Value value = reference ? value_at(z_, *reference) : value_from_scratch(z_);
  if (value.point.offset > kLargestOffset) value = value_at(z_, value.point.reference);
  point_ = value.point;
  value_ = value.total;
  differentiate();
}

}  // namespace attnreg
