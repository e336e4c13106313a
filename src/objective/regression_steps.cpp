#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "numbers/row_sums.hpp"
#include "objective/regression_objective.hpp"
#include "objective/row_parts.hpp"

// A RegressionObjective along a direction: trials and steps.

namespace attnreg {

Direction RegressionObjective::between(const Point& from, const Point& to) {
  const RegressionState &first = state_of(from), &last = state_of(to);
  return {to.x - from.x, (last.z - first.z).array() + (last.shift - first.shift)};
}

Direction RegressionObjective::direction(const VectorXd& s) {
  return {s, s.isZero(0) ? VectorXd::Zero(A_.rows_local()) : A_.multiply(s)};
}

Direction RegressionObjective::likely_direction(const Point& point, const VectorXd& s) {
  const RegressionState& state = state_of(point);
  Direction direction{s};
  direction.ahead =
      evaluate_in_one_read(state, s, Logits::step, direction.As, state.loss.reference + state.centre.dot(s));
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

std::vector<Trial> RegressionObjective::try_steps(const Point& point, const Direction& direction,
                                                  std::span<const double> steps) {
  constexpr std::size_t kWidth = 9;  // the loss's sums, and how many rows overflow
  constexpr std::size_t kMaxSteps = 4;
  if (steps.size() > kMaxSteps) throw InternalError("try_steps takes up to 4 steps");
  const RegressionState& state = state_of(point);
  // <f, A s>; a centred phi does not see it, but it would cancel in 1 + <f, exp(t y) - 1>
  const double mean_y = loss_->is_shift_invariant() ? state.centre.dot(direction.s) : 0;
  auto sums = sum_over_rows<kWidth * kMaxSteps + 2>(state.z.size(), [&](Index first, Index rows, auto& block) {
    const auto As = direction.As.segment(first, rows);
    VectorXd y = As.array() - mean_y;
    if (logit_offsets().mask_rows())
      for (Index i = 0; i < rows; ++i)
        if (logit_offsets().is_masked(first + i)) y[i] = 0;
    Scratch scratch;
    const LossRows of_block = rows_of(part(state.z, first, rows), first, scratch);
    const double largest_y = y.cwiseAbs().maxCoeff();
    for (std::size_t k = 0; k < steps.size(); ++k) {
      if (!(std::abs(steps[k]) * largest_y <= Loss::largest_exponent)) {
        block[kWidth * k + 8] = 1;
        continue;
      }
      LossSums of_loss{};
      loss_->add_change(of_block, part(y, 0, rows), steps[k], state.loss, of_loss);
      std::copy(of_loss.begin(), of_loss.end(), block.begin() + static_cast<std::ptrdiff_t>(kWidth * k));
    }
    const auto wy = w2_.rows(first, rows).cwiseProduct(As);
    block[kWidth * kMaxSteps] = wy.dot((state.z.segment(first, rows).array() + state.shift).matrix());
    block[kWidth * kMaxSteps + 1] = wy.dot(As);
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
    if (trial.t == 1) found = std::move(direction.ahead);
  }
  if (found) return accept(std::move(point), *found);
  Value value =
      trial.reference ? value_at(state.z, state.level(), reference) : value_from_scratch(state.z, state.level());
  if (value.loss.offset > kLargestOffset) value = value_at(state.z, state.level(), value.loss.reference);
  differentiate(point, value);
  return point;
}

}  // namespace attnreg
