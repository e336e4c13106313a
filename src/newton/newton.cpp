#include <limits>
#include <utility>

#include "newton/line_search.hpp"
#include "newton/minimise.hpp"
#include "newton/progress.hpp"
#include "newton/trust_region.hpp"

namespace attnreg {

NewtonSummary newton(Objective& objective, Point& point, const NewtonOptions& options) {
  check(options);
  Progress progress(objective, point, options);
  double radius = std::numeric_limits<double>::infinity();
  bool full_step = false;  // the last one was

  while (!progress.finished()) {
    const TrustRegionStep step = trust_region_step(objective.hessian(point), point.gradient, radius);
    if (!step.finite) return progress.summary(Termination::breakdown);

    Direction direction = full_step ? objective.likely_direction(point, step.s) : objective.direction(step.s);
    const Trial trial = search_line(objective, point, direction, step.on_boundary);
    if (trial.t == 0) return progress.no_decrease();

    point = objective.step(std::move(point), std::move(direction), trial);
    full_step = trial.t == 1 && !step.on_boundary;
    radius = next_radius(radius, step.length, step.on_boundary, trial.t);
    progress.stepped(trial, radius);
  }
  return progress.summary();
}

}  // namespace attnreg
