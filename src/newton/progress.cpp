#include "newton/progress.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace attnreg {

namespace {

constexpr int kMaxStalled = 5;          // steps in a row that change neither L nor |g| for the better
constexpr double kLargestFloor = 1e-3;  // of the reference: above, x has run away and nothing has converged
constexpr int kMaxAttempts = 4;         // in a row that do not halve |g|, to pass the floor, which is an estimate
constexpr double kUnchanged = 1e-14;    // relative change of L at the level of rounding

}  // namespace

std::string_view termination_name(Termination termination) {
  constexpr std::array<std::string_view, 11> names{"converged",    "converged_rounding", "stagnated", "iteration_limit",
                                                   "uncertified",  "time_limit",         "breakdown", "saddle",
                                                   "no_minimiser", "diverged",           "stopped"};
  return names.at(static_cast<std::size_t>(termination));
}

Progress::Progress(Objective& objective, Point& point, const NewtonOptions& options)
    : objective_(objective),
      point_(point),
      options_(options),
      follows_largest_(options.reference == GradientReference::largest),
      good_x_(point.x) {
  if (options.journal) stage_ = &options.journal->open("newton", point.seconds);
  const bool is_resumed = stage_ != nullptr && !stage_->empty() && go_to_stage();
  gradient_norm_ = smallest_gradient_ = objective.norm(point.gradient);
  reference_ = options.gradient_reference > 0 ? options.gradient_reference : gradient_norm_;
  if (!std::isfinite(point.value) || !std::isfinite(gradient_norm_)) reason_ = Termination::breakdown;
  if (is_resumed)
    resume();
  else
    record(0, 0, 0);
}

/// Whether the stage is one of this objective: L tells. Else it begins anew.
bool Progress::go_to_stage() {
  constexpr double kOfStart = 1e-9, kOfValue = 1e-6;
  const Eigen::VectorXd& x = stage_->vectors.at(0);
  const double value = stage_->numbers.at(0), slack = kOfValue * std::abs(value) + kOfStart * std::abs(point_.value);
  if (x.size() == objective_.dimension()) {
    Point there = objective_.evaluate(x);
    if (std::abs(there.value - value) <= slack) {
      point_ = std::move(there);
      good_x_ = x;
      return true;
    }
  }
  options_.journal->forget();
  return false;
}

void Progress::resume() {
  const auto& numbers = stage_->numbers;
  iterations_ = static_cast<int>(numbers.at(1));
  reference_ = numbers.at(2);
  radius_ = numbers.at(3);
  follows_largest_ = numbers.at(4) != 0;
  if (stage_->finished) {
    reason_ = static_cast<Termination>(numbers.at(5));
    floor_ = numbers.at(6);
    singular_ = numbers.at(7) != 0;
  }
  objective_.forget_models();
}

void Progress::leave(double radius) {
  stage_->vectors = {point_.x};
  stage_->numbers = {point_.value, static_cast<double>(iterations_), reference_, radius, follows_largest_ ? 1.0 : 0.0};
}

bool Progress::leaves_checkpoint(double radius) {
  if (stage_ == nullptr || reason_ || stalled_ > 0 || x_at_floor_.size() > 0) return false;
  const auto due = options_.journal->due(point_.seconds, objective_.takes_checkpoint());
  if (due == Journal::Due::no) return false;
  leave(radius);
  return options_.journal->leave(due);
}

void Progress::record(double step, double radius, int cg_iterations) {
  if (follows_largest_) reference_ = std::max(reference_, gradient_norm_);
  if (!options_.on_iteration) return;
  options_.on_iteration({.iteration = iterations_,
                         .value = point_.value,
                         .gradient_norm = objective_.callers_norm(point_.gradient),
                         .relative_gradient = relative_gradient(),
                         .step = step,
                         .radius = radius,
                         .cg_iterations = cg_iterations,
                         .reads_of_a = objective_.reads_of_a(),
                         .collectives = objective_.collectives(),
                         .seconds = point_.seconds});
}

void Progress::stepped(const Trial& trial, double radius, int cg_iterations) {
  const double norm = objective_.norm(point_.gradient);
  if (!std::isfinite(point_.value) || !std::isfinite(norm)) {
    point_ = objective_.evaluate(good_x_);
    reason_ = Termination::breakdown;
    return;
  }
  const bool gained = -trial.change > kUnchanged * std::abs(point_.value) || norm < 0.5 * smallest_gradient_;
  stalled_ = gained ? 0 : stalled_ + 1;
  halved_ = norm < 0.5 * gradient_norm_;
  gradient_norm_ = norm;
  smallest_gradient_ = std::min(smallest_gradient_, norm);
  good_x_ = point_.x;
  from_scratch_ = false;
  if (reason_ && options_.gradient_reference == 0) follows_largest_ = true;  // it left a stationary start
  reason_.reset();
  ++iterations_;
  radius_ = radius;
  record(trial.t, radius, cg_iterations);
}

/// With a fresh A x.
void Progress::move_to(const Eigen::VectorXd& x) {
  point_ = x == point_.x ? objective_.refreshed(std::move(point_)) : objective_.evaluate(x);
  gradient_norm_ = objective_.norm(point_.gradient);
  from_scratch_ = true;
}

bool Progress::small_gradient() {
  const bool at_tolerance = gradient_norm_ <= tolerance();
  if (at_tolerance && !from_scratch_) {
    reason_ = Termination::converged;
  } else if (at_tolerance || !halved_) {
    const double largest_floor = kLargestFloor * reference_;
    floor_ = objective_.gradient_floor(point_, at_tolerance ? largest_floor : gradient_norm_);
    // Where g(0), or the start's if that is the reference, is nothing but rounding.
    const bool is_start = iterations_ == 0 && options_.gradient_reference == 0;
    const bool is_rounding = reference_ <= floor_ && (point_.x.isZero(0) || is_start);
    // A reference that was met on the way is no measure of a floor.
    const bool is_small = is_rounding || floor_ <= largest_floor || (at_tolerance && follows_largest_);
    if (is_small && (at_tolerance || gradient_norm_ <= floor_))
      reason_ = at_tolerance ? Termination::converged : Termination::converged_rounding;
  }
  return reason_.has_value();
}

// Every x has another rounding error, and a few more steps often end at one whose |g| is below the tolerance. If they
// do not, the best x that was met is the result.
bool Progress::try_to_pass_the_floor() {
  const bool first = x_at_floor_.size() == 0;
  attempts_ = first || gradient_norm_ < 0.5 * smallest_at_floor_ ? 1 : attempts_ + 1;
  if (first || gradient_norm_ < smallest_at_floor_) {
    smallest_at_floor_ = gradient_norm_;
    x_at_floor_ = point_.x;
  }
  if (attempts_ <= kMaxAttempts) return true;
  if (gradient_norm_ > smallest_at_floor_) move_to(x_at_floor_);
  return false;
}

bool Progress::finished() {
  if (!reason_ && is_stopped()) reason_ = Termination::stopped;  // without the tests, which may read A
  if (reason_) return true;
  if (small_gradient() && !from_scratch_) {
    reason_.reset();
    move_to(point_.x);
    halved_ = false;  // it was the rounding of the updated A x
    small_gradient();
    if (reason_ == Termination::converged_rounding && try_to_pass_the_floor()) reason_.reset();
  }
  if (!reason_ && stalled_ >= kMaxStalled) stop_without_decrease();
  if (reason_) return true;
  if (may_go_on()) return false;
  if (iterations_ >= options_.max_iterations) reason_ = Termination::iteration_limit;
  if (point_.seconds >= options_.time_limit_seconds) reason_ = Termination::time_limit;
  if (is_stopped()) reason_ = Termination::stopped;
  return reason_.has_value();
}

bool is_converged(const NewtonSummary& summary) {
  return summary.termination == Termination::converged || summary.termination == Termination::converged_rounding;
}

void Progress::stop_without_decrease() {
  halved_ = false;
  if (!from_scratch_) move_to(point_.x);
  if (!small_gradient()) reason_ = Termination::stagnated;
}

NewtonSummary Progress::no_decrease() {
  stop_without_decrease();
  return summary();
}

NewtonSummary Progress::summary(Termination reason) {
  if (stage_ != nullptr && !stage_->finished) {
    leave(radius_);
    if (reason == Termination::stopped || reason == Termination::time_limit) {
      options_.journal->cut_off();
    } else {
      stage_->numbers.insert(stage_->numbers.end(), {static_cast<double>(reason), floor_, singular_ ? 1.0 : 0.0});
      if (options_.journal->finish(point_.seconds)) {
        point_ = objective_.evaluate(point_.x);
        objective_.forget_models();
      }
    }
  }
  NewtonSummary summary{.termination = reason,
                        .gradient_reference = reference_,
                        .gradient_floor = reason == Termination::converged ? 0 : floor_,
                        .singular = singular_,
                        .iterations = iterations_};
  measure(objective_, point_, summary);
  return summary;
}

void measure(const Objective& objective, const Point& point, NewtonSummary& summary) {
  summary.value = point.value;
  summary.gradient_norm = objective.callers_norm(point.gradient);
  summary.scaled_gradient = objective.norm(point.gradient);
  summary.relative_gradient = summary.gradient_reference > 0 ? summary.scaled_gradient / summary.gradient_reference : 0;
  summary.reads_of_a = objective.reads_of_a();
  summary.collectives = objective.collectives();
  summary.seconds = point.seconds;
}

}  // namespace attnreg
