#pragma once

#include <Eigen/Core>

#include "attnreg/communicator.hpp"
#include "attnreg/objective.hpp"

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

/// H + shift M for shifts to be tried, wherever H and M are. Vectors are replicated on the ranks that share the pencil,
/// and all of them call each member.
class Pencil {
 public:
  virtual ~Pencil() = default;
  virtual bool is_finite() const = 0;
  /// Adds a positive diagonal to H and M.
  virtual void add_ridge(const Eigen::VectorXd& ridge) = 0;
  /// Factors H + shift M; false if it is not positive definite to working precision. d^3 / 3 flops.
  virtual bool factor(double shift) = 0;
  /// (H + shift M)^-1 v of the last successful `factor`. 2 d^2 flops.
  virtual Eigen::VectorXd solve(const Eigen::VectorXd& v) const = 0;
  virtual Eigen::VectorXd multiply_H(const Eigen::VectorXd& v) const = 0;
  virtual Eigen::VectorXd multiply_M(const Eigen::VectorXd& v) const = 0;
};

/// A step of a trust-region method.
struct TrustRegionStep {
  bool finite = false;  ///< false: H, M or g is not finite, or no shift makes H + shift M positive definite
  Eigen::VectorXd s;    ///< d
  double length = 0;    ///< |s|_M
  double shift = 0;     ///< (H + shift M) s = -g; 0 for the Newton step
  bool on_boundary = false;
};

/// Local. Nearly minimises g^T s + 1/2 s^T H s over |s|_M <= radius, H symmetric and possibly indefinite, H <= M, M
/// positive semidefinite (More and Sorensen 1983 in the norm of M, the hard case by inverse iteration). With radius =
/// infinity and an indefinite H the step with shift >= 1 sets the scale. Directions without curvature are held by a
/// ridge of 1e-13 `scale` (d: see `Hessian`). 1 to about 6 Cholesky factorizations.
TrustRegionStep trust_region_step(Eigen::MatrixXd H, Eigen::MatrixXd M, const Eigen::VectorXd& scale,
                                  const Eigen::VectorXd& g, double radius);

/// Collective. The same with matrices that rank 0 holds; the result is broadcast (d + 4 doubles), bit-equal everywhere.
/// With a distributed pencil all ranks search together, from the same vectors.
TrustRegionStep trust_region_step(Hessian hessian, const Eigen::VectorXd& g, double radius);

}  // namespace attnreg
