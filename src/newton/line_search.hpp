#pragma once

#include "attnreg/solver.hpp"
#include "newton/objective.hpp"

namespace attnreg {

/// Where to stop along the direction s of a trust-region step.
struct LineSearch {
  double t = 0;       ///< 0: no decrease was found
  double change = 0;  ///< L(x + t s) - L(x)
};

/// Collective. The first of t = 1, 1/2, 1/4, ... with enough decrease (Armijo, 1e-4 t slope); from a step on the
/// boundary also longer ones, as long as they gain. slope = g^T s < 0. Several t share an all-reduce, none reads A.
LineSearch search_line(Objective& objective, double slope, bool on_boundary);

/// The trust region's next radius after the part t of a step of the given length was taken.
double next_radius(double radius, double length, bool on_boundary, double t);

/// Throws `InvalidArgument` (all ranks) for what the documentation of the options excludes.
void check_arguments(const Objective& objective, const Eigen::VectorXd& x0, const NewtonOptions& options);

}  // namespace attnreg
