#include <cmath>
#include <limits>
#include <utility>

#include "newton/line_search.hpp"
#include "newton/minimise.hpp"
#include "newton/progress.hpp"
#include "newton/trust_region.hpp"

namespace attnreg {

namespace {

constexpr double kSaddle = 1e-8;  // smaller negative curvature, relative to H's positive part, is rounding

/// A length to leave a saddle with when the region has none: that of a step by which the model falls by L.
double some_radius(double radius, const Point& point) {
  return radius < std::numeric_limits<double>::max() ? radius : std::sqrt(2 * std::abs(point.value)) + 1e-6;
}

/// Whether the negative curvature along s is nothing but rounding. One read.
bool is_flat(Objective& objective, const Point& point, const Eigen::VectorXd& s) {
  Direction along{s};
  const double curvature = s.dot(objective.hessian_product(point, along));
  return curvature < 0 && -curvature <= objective.curvature_rounding(point, along);
}

}  // namespace

// The trust-region step from a saddle, where g is about 0, is one along the least curvature.
NewtonSummary newton(Objective& objective, Point& point, const NewtonOptions& options) {
  check(options);
  Progress progress(objective, point, options);
  double radius = progress.radius();
  bool full_step = false;  // the last one was
  bool convex = false;     // the last Hessian was

  if (progress.was_finished()) return progress.summary();

  for (;;) {
    const bool stationary = progress.finished();
    if (stationary && (convex || !progress.has_converged() || progress.is_stopped())) return progress.summary();
    const double length = stationary ? some_radius(radius, point) : radius;
    Hessian hessian = objective.hessian(point);
    if (progress.is_stopped()) return progress.summary(Termination::stopped);
    const TrustRegionStep step = trust_region_step(std::move(hessian), point.gradient, length);
    if (!step.finite) return stationary ? progress.summary() : progress.summary(Termination::breakdown);
    convex = step.shift <= kSaddle;
    progress.saw_singular(step.singular);
    if (stationary && (convex || is_flat(objective, point, step.s))) return progress.summary();
    if (stationary && !progress.may_go_on()) return progress.summary(Termination::saddle);

    Direction direction = full_step ? objective.likely_direction(point, step.s) : objective.direction(step.s);
    const Trial trial = search_line(objective, point, direction, step.on_boundary && !stationary);
    if (progress.is_stopped()) return progress.summary(Termination::stopped);
    if (trial.t == 0 || (stationary && !(trial.change < 0)))
      return stationary ? progress.summary(Termination::saddle) : progress.no_decrease();

    point = objective.step(std::move(point), std::move(direction), trial);
    full_step = trial.t == 1 && !step.on_boundary;
    radius = next_radius(radius, step.length, step.on_boundary, trial.t);
    progress.stepped(trial, radius);
    if (progress.leaves_checkpoint(radius)) return newton(objective, point, options);
  }
}

}  // namespace attnreg
