#pragma once

#include <Eigen/Core>
#include <limits>
#include <vector>

#include "algebra/hessian.hpp"
#include "objective/correction.hpp"

namespace attnreg {

/// What is missing in a model along a step: the true change of the gradient less the model's.
struct Secant {
  Eigen::VectorXd s, y;                                      ///< d
  double largest = std::numeric_limits<double>::infinity();  ///< |y|_M^-1 / |s|_M that is believed
};

/// The symmetric B with B s = y for all secants that is least in |L^-1 B L^-T|_F, M = L L^T: X and Q of the correction.
/// The first secant counts most; those that nearly depend on earlier ones, or are not believed, are left out. PSB with
/// several secants (Powell 1970), in the norm of M. Logically collective; local on a replicated factor.
void set_secants(const Preconditioner& M, const std::vector<Secant>& secants, Correction& correction);

}  // namespace attnreg
