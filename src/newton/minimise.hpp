#pragma once

#include <Eigen/Core>

#include "attnreg/solver.hpp"
#include "newton/objective.hpp"

namespace attnreg {

/// Collective. Minimises the objective from x0 by trust-region Newton steps with the exact, possibly indefinite,
/// Hessian (docs/algorithms.md). On return the objective stands at the best point found. Reads of A per iteration: the
/// Hessian, A s and the gradient, 3 in all. Wrong options throw `InvalidArgument` on all ranks; numerical trouble never
/// throws.
NewtonSummary newton(Objective& objective, const Eigen::VectorXd& x0, const NewtonOptions& options);

/// Collective. Minimises the objective from x0 by trust-region conjugate gradients (Steihaug, Toint) on exact Hessian
/// products, in the norm of the objective's preconditioner. The default: it needs no more of the Hessian than products,
/// converges superlinearly, and makes no use of convexity. Reads of A per iteration: one per conjugate-gradient step,
/// one for the gradient, and what a refresh of the preconditioner costs. Errors as for `newton`.
NewtonSummary newton_cg(Objective& objective, const Eigen::VectorXd& x0, const NewtonOptions& options);

}  // namespace attnreg
