#pragma once

#include <limits>

#include "attnreg/certificate.hpp"
#include "objective/regression_objective.hpp"

namespace attnreg {

struct CertificateOptions {
  double seconds_left = std::numeric_limits<double>::infinity();  ///< `full`: looked at between its parts
  CertificateLevel level = CertificateLevel::gradient;
  double gradient_reference = 0;                     ///< what |g|_s is compared with; 0: `relative_gradient` is NaN
  std::optional<Eigen::VectorXd> x0 = std::nullopt;  ///< start of the solve, in the caller's units
  Eigen::Index largest_dimension = 2048;  ///< full: a larger d is refused, with the reason; 10 d^2 doubles on rank 0
};

/// Collective. What can be said about a point of the objective; theorems, cost and what is rigorous:
/// docs/certificate.md. Numerical trouble never throws: it makes a kind `unknown` or a distance bound absent, with the
/// reason. If the point's A x was updated since it was made, the point is refreshed. `full`: 4 n d^2 multiplications,
/// and 10 d^3 on rank 0; besides A 2 d^2 doubles a thread, 3 d^2 a rank, 10 d^2 on rank 0, and 12 a row.
Certificate certify(RegressionObjective& objective, Point& point, const CertificateOptions& options);

}  // namespace attnreg
