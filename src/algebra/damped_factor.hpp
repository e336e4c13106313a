#pragma once

#include <Eigen/Core>

namespace attnreg {

/// `scale` with its zeros replaced by its largest entry, or by 1. Local.
Eigen::VectorXd positive_scale(const Eigen::VectorXd& scale);

/// The first ridge of the ladder 1e-14, 1e-12, ..., 1e-4, relative to the diagonal, with which `try_factor` succeeds; 0
/// if none does.
template <class Try>
double damping(Try&& try_factor) {
  constexpr double kFirstRidge = 1e-14, kLastRidge = 1e-4;
  for (double ridge = kFirstRidge; ridge <= kLastRidge; ridge *= 100)
    if (try_factor(ridge)) return ridge;
  return 0;
}

/// The pivots with those of dependent columns replaced: else M^-1 would blow up the rounding of g along these columns.
/// Local.
Eigen::VectorXd without_dependent(const Eigen::VectorXd& pivots, double ridge, const Eigen::VectorXd& scale);

/// A lower Cholesky factor of M + ridge diag(scale); ridge 0: there is none, L is empty.
struct DampedFactor {
  double ridge = 0;
  bool singular = false;  ///< M depends on the ridge
  Eigen::MatrixXd L;
};

/// Local. Of a positive semidefinite M (lower triangle read) whose diagonal is a sum of terms of size `scale`.
DampedFactor damped_factor(Eigen::MatrixXd M, const Eigen::VectorXd& scale);

}  // namespace attnreg
