#pragma once

#include <optional>

#include "newton/objective.hpp"

namespace attnreg {

/// Collective. A direction s of negative curvature, s^T H s < -1e-8 |s|_M^2, with g^T s <= 0 and |s|_M = 1, at a point
/// with a small gradient, in the norm of the objective's preconditioner; none was found. Without a suspicion of the
/// objective it costs no read, else one for each of up to 8 Lanczos steps on the exact Hessian, the first of which is
/// usually the last, and the last in any case when the least Ritz value is clearly positive.
std::optional<Direction> negative_curvature(Objective& objective, const Point& point);

}  // namespace attnreg
