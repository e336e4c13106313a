#include "newton/minimise.hpp"

#include <limits>

#include "newton/line_search.hpp"
#include "algebra/cholesky.hpp"
#include "newton/trust_region.hpp"
#include "newton/progress.hpp"

namespace attnreg {

NewtonSummary newton(Objective& objective, const Eigen::VectorXd& x0, const NewtonOptions& options) {
  check_arguments(objective, x0, options);
  if (objective.x().size() != x0.size() || objective.x() != x0) objective.move_to(x0);
  Progress progress(objective, options);
  double radius = std::numeric_limits<double>::infinity();
  bool full_step = false;  // the last one was

  while (!progress.finished()) {
    const Eigen::VectorXd& g = objective.gradient();
    const TrustRegionStep step = trust_region_step(objective.hessian(), g, radius);
    if (!step.finite) return progress.summary(Termination::breakdown);

    if (full_step)
      objective.set_likely_direction(step.s);
    else
      objective.set_direction(step.s);
    const LineSearch line = search_line(objective, g.dot(step.s), step.on_boundary);
    if (line.t == 0) return progress.no_decrease();

    objective.step(line.t);
    full_step = line.t == 1 && !step.on_boundary;
    radius = next_radius(radius, step.length, step.on_boundary, line.t);
    progress.stepped({.step = line.t, .radius = radius, .change = line.change});
  }
  return progress.summary();
}

}  // namespace attnreg
