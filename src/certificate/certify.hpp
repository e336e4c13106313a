#pragma once

#include "attnreg/certificate.hpp"
#include "objective/regression_objective.hpp"

namespace attnreg {

/// Collective. What can be said about a point of the objective; theorems, cost and what is rigorous:
/// docs/certificate.md. Numerical trouble never throws: it makes a kind `unknown` or a distance bound absent, with the
/// reason. If the point's A x was updated since it was made, the point is refreshed. `full`: 4 n d^2 multiplications,
/// and 10 d^3 on rank 0; besides A 2 d^2 doubles a thread, 3 d^2 a rank, 10 d^2 on rank 0, and 12 a row.
Certificate certify(RegressionObjective& objective, Point& point, const CertificateOptions& options);

}  // namespace attnreg
