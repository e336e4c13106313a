#pragma once

#include <limits>
#include <optional>

#include "attnreg/solver.hpp"
#include "newton/journal.hpp"
#include "newton/objective.hpp"

namespace attnreg {

/// Local. Whether the solve ended at a small gradient: the answer is right.
bool is_converged(const NewtonSummary& summary);

/// Local. What a summary says of its point, and of the cost so far, taken again where the point was moved or made anew.
void measure(const Objective& objective, const Point& point, NewtonSummary& summary);

/// The book-keeping of a Newton iteration: records, stopping tests, summary. What it decides rests on replicated values
/// only. Members are collective: a test near the rounding floor or a confirmation may read A.
class Progress {
 public:
  /// Records the starting point. `point` is where the iteration stands, which moves it; so may the members. With a
  /// journal, the iteration is a stage of it: the point moves to where the stage was left, and is not recorded again.
  Progress(Objective& objective, Point& point, const NewtonOptions& options);

  /// After every `Objective::step`, also of one that leaves a saddle where a test held: records it; goes back to the
  /// last good point if the new one is not finite.
  void stepped(const Trial& trial, double radius = 0, int cg_iterations = 0);

  /// Where a stage goes on: the radius it was left with; +inf at its start. Local.
  double radius() const { return radius_; }
  int iterations() const { return iterations_; }  ///< Local.
  /// Whether the stage was finished before: then `summary` is its end. Local.
  bool was_finished() const { return stage_ != nullptr && stage_->finished; }
  /// Whether the iteration leaves a checkpoint here, and is to begin once more, as a process that resumes it would: not
  /// after steps that gain nothing, nor near the floor, since such are counted. Local.
  bool leaves_checkpoint(double radius);

  /// Whether a stopping test holds. A gradient that passes is first made again from a fresh A x.
  bool finished();
  double relative_gradient() const { return reference_ > 0 ? gradient_norm_ / reference_ : 0; }  ///< Local.
  void saw_singular(bool singular) { singular_ = singular; }  ///< Local. Whether H, or its model, was; for the summary.
  /// Local. Of a finished iteration.
  bool has_converged() const { return reason_ == Termination::converged || reason_ == Termination::converged_rounding; }
  /// Local. By the limits, and unless the ranks were asked to stop.
  bool may_go_on() const {
    return iterations_ < options_.max_iterations && point_.seconds < options_.time_limit_seconds && !is_stopped();
  }
  bool is_stopped() const { return objective_.is_stopped(); }  ///< Local.
  /// The end.
  NewtonSummary summary() { return summary(*reason_); }
  NewtonSummary summary(Termination reason);
  /// The summary when no step lowers L: at the floor of rounding, or stagnated.
  NewtonSummary no_decrease();

 private:
  double tolerance() const { return options_.relative_tolerance * reference_; }
  bool small_gradient();
  bool try_to_pass_the_floor();
  void stop_without_decrease();
  void move_to(const Eigen::VectorXd& x);
  void record(double step, double radius, int cg_iterations);
  bool go_to_stage();
  void resume();
  void leave(double radius);

  Objective& objective_;
  Point& point_;
  const NewtonOptions& options_;
  bool follows_largest_;  // the reference does: `GradientReference::largest`
  std::optional<Termination> reason_;
  Eigen::VectorXd good_x_;
  double reference_ = 0, gradient_norm_ = 0, smallest_gradient_ = 0, floor_ = 0;
  int iterations_ = 0, stalled_ = 0;
  int attempts_ = 0;              // to pass the floor
  double smallest_at_floor_ = 0;  // |g| from a fresh A x, and where that was
  Eigen::VectorXd x_at_floor_;
  bool singular_ = false;
  bool halved_ = false;       // |g|, by the last step
  bool from_scratch_ = true;  // the gradient is not from an updated A x
  double radius_ = std::numeric_limits<double>::infinity();
  Stage* stage_ = nullptr;
};

}  // namespace attnreg
