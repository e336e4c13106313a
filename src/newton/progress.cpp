#include "newton/progress.hpp"

#include <algorithm>
#include <cmath>

namespace attnreg {

namespace {

constexpr int kMaxStalled = 5;          // steps in a row that change neither L nor |g| for the better
constexpr double kLargestFloor = 1e-3;  // of the reference: above, x has run away and nothing has converged
constexpr int kMaxAttempts = 4;         // in a row that do not halve |g|, to pass the floor, which is an estimate
constexpr double kUnchanged = 1e-14;    // relative change of L at the level of rounding

}  // namespace

std::string_view termination_name(Termination termination) {
  switch (termination) {
    case Termination::converged: return "converged";
    case Termination::converged_rounding: return "converged_rounding";
    case Termination::stagnated: return "stagnated";
    case Termination::iteration_limit: return "iteration_limit";
    case Termination::uncertified: return "uncertified";
    case Termination::time_limit: return "time_limit";
    case Termination::breakdown: return "breakdown";
  }
  return "unknown";
}

Progress::Progress(Objective& objective, const NewtonOptions& options)
    : objective_(objective), options_(options), good_x_(objective.x()) {
  gradient_norm_ = smallest_gradient_ = objective.gradient().norm();
  reference_ = options.gradient_reference > 0 ? options.gradient_reference : gradient_norm_;
  if (!std::isfinite(objective.value()) || !std::isfinite(gradient_norm_)) reason_ = Termination::breakdown;
  record({});
}

double Progress::tolerance() const { return options_.relative_tolerance * reference_; }

void Progress::record(const Step& step) {
  if (options_.reference == GradientReference::largest) reference_ = std::max(reference_, gradient_norm_);
  if (!options_.on_iteration) return;
  options_.on_iteration({.iteration = iterations_,
                         .value = objective_.value(),
                         .gradient_norm = gradient_norm_,
                         .relative_gradient = relative_gradient(),
                         .step = step.step,
                         .radius = step.radius,
                         .cg_iterations = step.cg_iterations,
                         .reads_of_a = objective_.reads_of_a(),
                         .collectives = objective_.collectives(),
                         .seconds = objective_.seconds()});
}

void Progress::stepped(const Step& step) {
  const double norm = objective_.gradient().norm();
  if (!std::isfinite(objective_.value()) || !std::isfinite(norm)) {
    objective_.move_to(good_x_);
    reason_ = Termination::breakdown;
    return;
  }
  const bool gained = -step.change > kUnchanged * std::abs(objective_.value()) || norm < 0.5 * smallest_gradient_;
  stalled_ = gained ? 0 : stalled_ + 1;
  halved_ = norm < 0.5 * gradient_norm_;
  gradient_norm_ = norm;
  smallest_gradient_ = std::min(smallest_gradient_, norm);
  good_x_ = objective_.x();
  from_scratch_ = false;
  ++iterations_;
  record(step);
}

bool Progress::small_gradient() {
  if (gradient_norm_ <= tolerance()) {
    reason_ = Termination::converged;
  } else if (!halved_) {
    floor_ = objective_.gradient_floor();
    const bool is_small = iterations_ == 0 || floor_ <= kLargestFloor * reference_;
    if (gradient_norm_ <= floor_ && is_small) reason_ = Termination::converged_rounding;
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
    x_at_floor_ = objective_.x();
  }
  if (attempts_ <= kMaxAttempts) return true;
  if (gradient_norm_ > smallest_at_floor_) {
    objective_.move_to(x_at_floor_);
    gradient_norm_ = objective_.gradient().norm();
  }
  return false;
}

bool Progress::finished() {
  if (reason_) return true;
  if (small_gradient() && !from_scratch_) {
    reason_.reset();
    objective_.move_to(objective_.x());
    from_scratch_ = true;
    halved_ = false;  // it was the rounding of the updated A x
    gradient_norm_ = objective_.gradient().norm();
    small_gradient();
    if (reason_ == Termination::converged_rounding && try_to_pass_the_floor()) reason_.reset();
  }
  if (!reason_ && stalled_ >= kMaxStalled) no_decrease();
  if (reason_) return true;
  if (iterations_ >= options_.max_iterations) reason_ = Termination::iteration_limit;
  if (objective_.seconds() >= options_.time_limit_seconds) reason_ = Termination::time_limit;
  return reason_.has_value();
}

NewtonSummary Progress::no_decrease() {
  halved_ = false;
  if (!from_scratch_) {
    objective_.move_to(objective_.x());
    gradient_norm_ = objective_.gradient().norm();
  }
  if (!small_gradient()) reason_ = Termination::stagnated;
  return summary();
}

NewtonSummary Progress::summary(Termination reason) const {
  NewtonSummary summary;
  summary.termination = reason;
  summary.value = objective_.value();
  summary.gradient_norm = gradient_norm_;
  summary.gradient_reference = reference_;
  summary.relative_gradient = relative_gradient();
  summary.gradient_floor = reason == Termination::converged ? 0 : floor_;
  summary.iterations = iterations_;
  summary.reads_of_a = objective_.reads_of_a();
  summary.collectives = objective_.collectives();
  summary.seconds = objective_.seconds();
  return summary;
}

}  // namespace attnreg
