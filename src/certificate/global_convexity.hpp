#pragma once

#include "attnreg/row_matrix.hpp"
#include "objective/regression_objective.hpp"

namespace attnreg {

/// Collective. An l > 0 with H(y) >= l I for every y, so that |x - x*| <= |g(x)| / l for every x and the only minimum
/// x*; 0 where none was found. It is the smallest eigenvalue of A^T (W^2 - c I) A less its rounding, where Hess phi >=
/// -c I everywhere, c = `LossBounds::indefiniteness` (softmax: 0.2405 or 1/12 + 0.19246 |b|_1). So w_i^2 >= c + l /
/// sigma_min(A)^2 on all rows is enough, and not all rows need it.
/// One read of A and n d^2 flops; none where no w_i^2 is above c. A is the matrix of the objective.
double global_convexity(const RegressionObjective& objective, const RowMatrix& A);

}  // namespace attnreg
