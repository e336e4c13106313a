#pragma once

#include <Eigen/Core>

namespace attnreg {

/// Cholesky factor of a symmetric d x d matrix by LAPACK, which neither sees nor reports NaN and Inf: they are looked
/// for before and after. Local.
class Cholesky {
 public:
  /// Factors `matrix` (lower triangle read); false if it is not positive definite to working precision, or not finite.
  /// d^3 / 3 flops.
  bool factor(const Eigen::MatrixXd& matrix);
  /// Needs a successful `factor`. 2 d^2 flops.
  Eigen::VectorXd solve(const Eigen::VectorXd& right) const;
  Eigen::MatrixXd lower() const { return factor_.triangularView<Eigen::Lower>(); }

 private:
  Eigen::MatrixXd factor_;
};

}  // namespace attnreg
