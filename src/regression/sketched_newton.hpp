#pragma once

#include "attnreg/regression.hpp"
#include "attnreg/solver.hpp"
#include "objective/regression_objective.hpp"

namespace attnreg {

/// What came of the papers' method. All values are replicated.
struct SketchedNewtonSummary {
  NewtonSummary newton;       ///< what the other methods return
  double convexity = 0;       ///< l > 0: H(y) >= l I for every y is certified; 0: it is not
  int step_limit = 0;         ///< T = ceil(ln(r0 / epsilon) / ln 2.5), at least 1; 0: no r0 or no epsilon
  double distance_bound = 0;  ///< certified, on |x - x*|; +inf where convexity = 0
  std::vector<SketchedStep> steps;
  std::vector<std::string> notes;  ///< what was decided and why, and why it stopped; plain sentences
};

/// Collective. Full Newton steps x - H~^-1 g with a sampled Hessian, from the point on. With D = delta + w^2 (of either
/// sign), abar = A^T f and u = A^T delta,
///
///     H  = A^T diag(D) A + [abar, u] S [abar, u]^T,   S = [[sum delta, -1], [-1, 0]],
///     H~ = A^T D~ A      + the same rank-2 part (options: `keep_low_rank`),
///
/// where D~ has m rows drawn with replacement by the leverage scores of |D|^{1/2} A, m = `with_replacement_size`(d, e0,
/// delta / steps, beta = 1/2). The papers write the rank-2 part with p = delta + gamma f and kappa; it is the same
/// matrix, and in this form it holds for every loss. With m >= n nothing is sampled, H~ has all rows, and a note says
/// so.
///
/// `steps` is T = ceil(ln(r0 / epsilon) / ln 2.5), or `max_iterations` where r0 or epsilon is not given. Stops, in this
/// order: |x - x*| <= (|g| + its rounding) / l <= epsilon (`converged`); the tests of `NewtonOptions`, but the
/// tolerance on |g| only where l and epsilon cannot decide; T steps (`iteration_limit`); H~ not positive definite to
/// working precision (`breakdown`: the papers' D > 0 does not hold). No line search, nothing else that would make it
/// safe: L may rise. On return the point is the last one, which is always finite.
///
/// e0 is relative to A^T |D| A, as scores see no signs: kappa e0 relative to H, kappa the largest eigenvalue of H^-1
/// A^T |D| A. The factor 0.4 a step holds in the norm of H for kappa e0 <= 2/7, near x*; in the Euclidean norm it need
/// not.
///
/// Reads of A a step: 2 for the scores, the kept rows' share of one, 1 for u, 1 for the probes, A s and the gradient;
/// once, up to 2 for l. With all rows 1 for H (2 the first time) in place of the first three. The same rows on any
/// number of ranks, but for rounding.
///
/// `sampling`: sketch, columns and seed of the scores and the draws;
/// epsilon > 0, or 0 for none. Wrong options throw `InvalidArgument` on all ranks; numerical trouble never throws.
SketchedNewtonSummary sketched_newton(RegressionObjective& objective, Point& point, const NewtonOptions& options,
                                      const SketchedNewtonOptions& sketched, const SamplingOptions& sampling,
                                      double epsilon);

}  // namespace attnreg
