#pragma once

#include "attnreg/solver.hpp"
#include "newton/objective.hpp"

namespace attnreg {

/// Collective. The first of t = 1, 1/2, 1/4, ... with enough decrease (Armijo, 1e-4 t g^T s); from a step on the
/// boundary also longer ones, as long as they gain. t = 0: no decrease was found. g^T s < 0. Several t share an
/// all-reduce, none reads A.
Trial search_line(Objective& objective, const Point& point, const Direction& direction, bool on_boundary);

/// The trust region's next radius after the part t of a step of the given length was taken.
double next_radius(double radius, double length, bool on_boundary, double t);

/// Throws `InvalidArgument` (all ranks) for what the documentation of the options excludes.
void check(const NewtonOptions& options);

}  // namespace attnreg
