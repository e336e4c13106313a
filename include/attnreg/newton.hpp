#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <limits>
#include <string_view>
#include <vector>

#include "attnreg/objective.hpp"

namespace attnreg {

/// Why the iteration stopped. Each is an inequality; g is the gradient, "floor" is `Objective::gradient_floor`.
enum class Termination {
  converged,           ///< |g| <= relative_tolerance * gradient_reference
  converged_rounding,  ///< |g| <= floor <= 1e-3 gradient_reference, and the last step did not halve |g|; or at x0
  stagnated,           ///< none of the above, but no step lowers L, or five in a row changed neither L nor |g|
  iteration_limit,     ///< iterations = max_iterations
  uncertified,         ///< converged, but |x - x*| <= epsilon could not be certified
  time_limit,          ///< seconds >= time_limit_seconds
  breakdown,           ///< a value, gradient or Hessian is not finite; x is the last good iterate
};
std::string_view termination_name(Termination termination);  ///< "converged_rounding"

/// What |g| is compared with.
enum class GradientReference {
  given,    ///< `NewtonOptions::gradient_reference`, or |g(x0)| where that is 0
  largest,  ///< the largest |g| met so far
};

/// One line of the history. All values are replicated.
struct IterationRecord {
  int iteration = 0;             ///< 0: the starting point
  double value = 0;              ///< L
  double gradient_norm = 0;      ///< Euclidean
  double relative_gradient = 0;  ///< gradient_norm / reference
  double step = 0;               ///< t, the part of the trust-region step that was taken
  double radius = 0;             ///< of the trust region, in the norm of the Hessian's positive part or its model
  int cg_iterations = 0;         ///< 0 for exact Newton
  double reads_of_a = 0;         ///< since the start of the solve
  std::int64_t collectives = 0;  ///< likewise
  double seconds = 0;            ///< likewise
};

struct NewtonOptions {
  double relative_tolerance = 1e-10;  ///< > 0
  GradientReference reference = GradientReference::given;
  double gradient_reference = 0;                                        ///< >= 0; see `GradientReference`
  int max_iterations = 200;                                             ///< >= 0
  double time_limit_seconds = std::numeric_limits<double>::infinity();  ///< > 0; looked at once an iteration
  std::function<void(const IterationRecord&)> on_iteration;             ///< called on every rank
};

struct NewtonSummary {
  Termination termination = Termination::breakdown;
  double value = 0;
  double gradient_norm = 0;
  double gradient_reference = 0;
  double relative_gradient = 0;
  double gradient_floor = 0;  ///< 0 unless it was looked at
  int iterations = 0;
  double reads_of_a = 0;
  std::int64_t collectives = 0;
  double seconds = 0;
};

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
