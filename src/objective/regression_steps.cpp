#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "errors/faults.hpp"
#include "numbers/row_sums.hpp"
#include "objective/regression_objective.hpp"
#include "objective/row_parts.hpp"
#include "ranks/span_of.hpp"

// A RegressionObjective along a direction: trials and steps.

namespace attnreg {

Direction RegressionObjective::between(const Point& from, const Point& to) {
  constexpr double kTwoRoundings = 2 * std::numeric_limits<double>::epsilon();
  const RegressionState &first = state_of(from), &last = state_of(to);
  Direction direction{to.x - from.x, (last.z - first.z).array() + (last.shift - first.shift)};
  if (first.rounding.is_known() && last.rounding.is_known())
    direction.rounding = {
        first.rounding.columns + last.rounding.columns + kTwoRoundings * (from.x.cwiseAbs() + to.x.cwiseAbs()),
        first.rounding.level + last.rounding.level + kTwoRoundings * (std::abs(first.shift) + std::abs(last.shift))};
  return direction;
}

Direction RegressionObjective::direction(const VectorXd& s) {
  Direction direction{s, s.isZero(0) ? VectorXd::Zero(A_.rows_local()) : A_.multiply(s)};
  if (audit_) direction.rounding = product_rounding(s);
  return direction;
}

Direction RegressionObjective::likely_direction(const Point& point, const VectorXd& s) {
  const RegressionState& state = state_of(point);
  Direction direction{s};
  direction.ahead = evaluate_in_one_read(state, s, Logits::step, direction.As,
                                         state.loss.reference + state.centre.dot(s), point.x + s);
  if (audit_) direction.rounding = product_rounding(s);
  return direction;
}

double RegressionObjective::longest_step(const Direction& direction) const {
  const double most = loss_->largest_move();
  return std::isfinite(most) ? most / largest_move(direction) : most;
}

double RegressionObjective::largest_move(const Direction& direction) const {
  double largest = 0;
  if (!logit_offsets().mask_rows() && direction.As.size() > 0) largest = direction.As.cwiseAbs().maxCoeff();
  for (Index i = 0; logit_offsets().mask_rows() && i < direction.As.size(); ++i)
    if (!logit_offsets().is_masked(i)) largest = std::max(largest, std::abs(direction.As[i]));
  return A_.communicator().max(largest);
}

void RegressionObjective::drop_masked(Index first, std::span<double> moves) const {
  if (!logit_offsets().mask_rows()) return;
  for (std::size_t i = 0; i < moves.size(); ++i)
    if (logit_offsets().is_masked(first + static_cast<Index>(i))) moves[i] = 0;
}

void RegressionObjective::add_loss_change(const RegressionState& state, std::span<const double> y, double t,
                                          Index first, double* sums) const {
  double largest_y = 0;
  for (const double value : y) largest_y = std::abs(value) <= largest_y ? largest_y : std::abs(value);  // NaN stays
  if (!(std::abs(t) * largest_y <= Loss::largest_exponent)) {
    sums[kChangeWidth - 1] += 1;
    return;
  }
  LossSums of_loss{};
  Scratch scratch;
  const auto z = part(state.z, first, static_cast<Index>(y.size()));
  loss_->add_change(rows_of(z, first, scratch), y, t, state.loss, of_loss);
  for (std::size_t k = 0; k < of_loss.size(); ++k) sums[k] += of_loss[k];
}

void RegressionObjective::add_ridge_change(const RegressionState& state, const double* As, Index first, Index rows,
                                           double* sums) const {
  const Eigen::Map<const VectorXd> along(As, rows);
  const auto wy = w2_.rows(first, rows).cwiseProduct(along);
  sums[0] += wy.dot((state.z.segment(first, rows).array() + state.shift).matrix());
  sums[1] += wy.dot(along);
}

/// The sums for the change of L along s, too.
RowPasses::MapRequest RegressionObjective::with_change(RowPasses::MapRequest request, const Point& from,
                                                       const VectorXd& s, bool renews, double shift) const {
  const RegressionState& start = state_of(from);
  const double mean_y = loss_->is_shift_invariant() ? start.centre.dot(s) : 0;
  request.scalars += static_cast<Index>(kChangeSums);
  request.map = [this, &start, mean_y, renews, shift, product = request.z, read = std::move(request.map)](
                    Index first, Index rows, double* U, double* scalars) {
    read(first, rows, U, scalars);
    std::array<double, kMostBlockRows> As, y;
    for (Index i = 0; i < rows; ++i) {
      const auto k = static_cast<std::size_t>(i);
      const double moved = (*product)[first + i];
      As[k] = renews ? moved - start.z[first + i] + (shift - start.shift) : moved;
      y[k] = As[k] - mean_y;
    }
    const auto moves = std::span(y).first(static_cast<std::size_t>(rows));
    drop_masked(first, moves);
    add_loss_change(start, moves, 1, first, scalars + kScalars);
    add_ridge_change(start, As.data(), first, rows, scalars + kScalars + kChangeWidth);
  };
  return request;
}

void RegressionObjective::take_besides(const VectorXd& scalars, const Point& from, const Expected& there,
                                       Besides& besides) const {
  const double* const sums = scalars.data() + kScalars;
  besides.sums = scalars.tail(besides.sums.size()).eval();
  besides.change.reset();
  if (sums[kChangeWidth - 1] != 0) return;
  const VectorXd s = there.x - from.x;
  const double change = loss_->change(loss_sums(sums), state_of(from).loss).value + sums[kChangeWidth] +
                        0.5 * sums[kChangeWidth + 1] + column_terms_.change(from.x, s, 1) +
                        correction_.change(from.x, s, 1);
  besides.change = std::isfinite(change) ? change : std::numeric_limits<double>::infinity();
}

std::vector<Trial> RegressionObjective::try_steps(const Point& point, const Direction& direction,
                                                  std::span<const double> steps) {
  constexpr std::size_t kWidth = kChangeWidth, kMaxSteps = 4;
  if (steps.size() > kMaxSteps) throw InternalError("try_steps takes up to 4 steps");
  const RegressionState& state = state_of(point);
  // <f, A s>; a centred phi does not see it, but it would cancel in 1 + <f, exp(t y) - 1>
  const double mean_y = loss_->is_shift_invariant() ? state.centre.dot(direction.s) : 0;
  auto sums = sum_over_rows<kWidth * kMaxSteps + 2>(state.z.size(), [&](Index first, Index rows, auto& block) {
    VectorXd y = direction.As.segment(first, rows).array() - mean_y;
    drop_masked(first, span_of(y));
    for (std::size_t k = 0; k < steps.size(); ++k)
      add_loss_change(state, span_of(y), steps[k], first, &block[kWidth * k]);
    add_ridge_change(state, direction.As.data() + first, first, rows, &block[kWidth * kMaxSteps]);
  });
  A_.communicator().sum(sums);

  const double ridge_slope = sums[kWidth * kMaxSteps], ridge_curvature = sums[kWidth * kMaxSteps + 1];
  std::vector<Trial> trials;
  for (std::size_t k = 0; k < steps.size(); ++k) {
    const double t = steps[k];
    Trial trial{.t = t};
    if (sums[kWidth * k + 8] == 0) {
      const LossChange change = loss_->change(loss_sums(&sums[kWidth * k]), state.loss);
      trial.change = change.value + t * ridge_slope + 0.5 * t * t * ridge_curvature +
                     column_terms_.change(point.x, direction.s, t) + correction_.change(point.x, direction.s, t);
      trial.reference = state.loss.reference + t * mean_y + change.reference_shift;
    } else {
      const double level = state.level() + t * column_terms_.offset(direction.s);
      const Value there = value_from_scratch(state.z + t * direction.As, level);
      trial.change = there.total + added_value(point.x + t * direction.s) - point.value;
      trial.reference = there.loss.reference;
    }
    if (!std::isfinite(trial.change)) trial.change = std::numeric_limits<double>::infinity();
    trials.push_back(trial);
  }
  return trials;
}

Point RegressionObjective::step(Point point, Direction direction, const Trial& trial) {
  RegressionState& state = static_cast<RegressionState&>(*point.state);
  point.x += trial.t * direction.s;
  state.largest_x = columns_->scale().cwiseProduct(point.x).lpNorm<Eigen::Infinity>();
  state.offset = column_terms_.offset(point.x);
  double reference = trial.reference.value_or(state.loss.reference);
  std::unique_ptr<ObjectiveState> found;
  if (++state.updates > kStepsBetweenRefreshes) {
    found = renew_logits(point, reference);
  } else {
    state.z += trial.t * direction.As;
    if (audit_)
      state.rounding = moved_rounding(state.rounding, direction.rounding, trial.t, direction.s, point.x, state.shift);
    if (trial.t == 1) found = std::move(direction.ahead);
  }
  faults::flip("logits", span_of(state.z));
  if (found) return accept(std::move(point), *found);
  Value value =
      trial.reference ? value_at(state.z, state.level(), reference) : value_from_scratch(state.z, state.level());
  if (value.loss.offset > kLargestOffset) value = value_at(state.z, state.level(), value.loss.reference);
  return differentiate(point, value) ? std::move(point) : evaluate(VectorXd(point.x));
}

}  // namespace attnreg
