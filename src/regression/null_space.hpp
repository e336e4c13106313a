#pragma once

#include <Eigen/Core>
#include <string>

#include "objective/regression_objective.hpp"

namespace attnreg {

/// Directions v along which no L(x + t v) changes, in columns of equal size: of centred losses A v is constant, else
/// A v = 0; and diag(w) A v = 0. To working precision. Replicated.
struct NullSpace {
  Eigen::MatrixXd directions;  ///< d x k, orthonormal; of scale o x
  Eigen::VectorXd scale;       ///< d

  /// Local. x without its part in these directions: the least of all x with the same L, in the norm |scale o x|.
  Eigen::VectorXd projected(const Eigen::VectorXd& x) const;
  std::string text() const;  ///< Local. A sentence on them, with the columns that take part in each.
};

/// Collective. From the Gram matrix of all rows: one read and n d^2 flops, and 9 d^3 flops on rank 0.
NullSpace null_space(RegressionObjective& objective);

}  // namespace attnreg
