#pragma once

#include <Eigen/Core>

#include "algebra/hessian.hpp"

namespace attnreg {

/// A step of a trust-region method.
struct TrustRegionStep {
  bool finite = false;  ///< false: H, M or g is not finite, or no shift makes H + shift M positive definite
  Eigen::VectorXd s;    ///< d
  double length = 0;    ///< |s|_M
  double shift = 0;     ///< (H + shift M) s = -g; 0 for the Newton step
  bool on_boundary = false;
  bool singular = false;  ///< a Newton step with an H that is singular but for the ridge
};

/// Local. Nearly minimises g^T s + 1/2 s^T H s over |s|_M <= radius, H symmetric and possibly indefinite, H <= M, M
/// positive semidefinite (More and Sorensen 1983 in the norm of M, the hard case by inverse iteration). With radius =
/// infinity and an indefinite H a step with a shift >= 1, at most 16 times as large as it has to be, sets the scale.
/// Directions without curvature are held by a ridge of 1e-13 `scale` (d: see `Hessian`). 1 to about 6 Cholesky
/// factorizations.
TrustRegionStep trust_region_step(Eigen::MatrixXd H, Eigen::MatrixXd M, const Eigen::VectorXd& scale,
                                  const Eigen::VectorXd& g, double radius);

/// Collective. The same with matrices that rank 0 holds; the result is broadcast (d + 5 doubles), bit-equal everywhere.
/// With a distributed pencil all ranks search together, from the same vectors.
TrustRegionStep trust_region_step(Hessian hessian, const Eigen::VectorXd& g, double radius);

}  // namespace attnreg
