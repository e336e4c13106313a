#pragma once

#include "attnreg/solver.hpp"
#include "newton/objective.hpp"

namespace attnreg {

/// Collective. Minimises the objective from the point on by trust-region Newton steps with the exact, possibly
/// indefinite, Hessian (docs/algorithms.md). On return the point is the best one found. Reads of A per iteration: the
/// Hessian, A s and the gradient, 3 in all. Wrong options throw `InvalidArgument` on all ranks; numerical trouble never
/// throws.
NewtonSummary newton(Objective& objective, Point& point, const NewtonOptions& options);

/// Collective. The same by trust-region conjugate gradients (Steihaug, Toint) on exact Hessian products, in the norm of
/// the objective's preconditioner. The default: it needs no more of the Hessian than products, converges superlinearly,
/// and makes no use of convexity. Reads of A per iteration: one per conjugate-gradient step, one for the gradient, and
/// what a refresh of the preconditioner costs. `has_model`: the objective's preconditioner serves at the point.
NewtonSummary newton_cg(Objective& objective, Point& point, const NewtonOptions& options, bool has_model = false);

}  // namespace attnreg
