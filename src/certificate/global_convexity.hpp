#pragma once

#include <limits>

#include "objective/regression_objective.hpp"

namespace attnreg {

/// What A, b and w say of the Hessian H(y) of L for every y, in the caller's columns, but for the level of centred
/// ones, which phi does not see. Replicated.
struct GlobalConvexity {
  double convexity = 0;  ///< l > 0: H(y) >= l I for every y; 0 where none was found
  double indefiniteness = std::numeric_limits<double>::infinity();  ///< Hess phi >= -c I everywhere; inf: none known
  double target_norm = 0;                                           ///< |b|_1
  double norm_A = 0;                                                ///< largest singular value, and
  double smallest_singular = 0;  ///< the smallest one, 0 where it drowns in rounding; both 0 if c = 0
};

/// Collective. With l, |x - x*| <= |g(x)| / l for every x and the only minimum x*. It is the smallest eigenvalue of
/// A^T (W^2 - c I) A less its rounding, over the rows that are not masked, c = `LossBounds::indefiniteness` (softmax:
/// 0.2405 or 1/12 + 0.19246 |b|_1). So w_i^2 >= c + l / sigma_min(A)^2 on all rows is enough, and not all rows need it.
/// One read of A and n d^2 flops, and `ridge_gram_on_root`. Without `singular_values` there are none of them, and no
/// read where no w_i^2 is above c.
GlobalConvexity global_convexity(RegressionObjective& objective, bool singular_values = false);

}  // namespace attnreg
