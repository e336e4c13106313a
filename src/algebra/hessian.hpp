#pragma once

#include <Eigen/Core>
#include <memory>
#include <utility>

#include "attnreg/communicator.hpp"

namespace attnreg {

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
  virtual Eigen::VectorXd pivots() const = 0;  ///< the diagonal of that factor
  virtual Eigen::VectorXd multiply_H(const Eigen::VectorXd& v) const = 0;
  virtual Eigen::VectorXd multiply_M(const Eigen::VectorXd& v) const = 0;
};

/// The exact Hessian H and its positive semidefinite part M (the terms of positive curvature and the regulariser), both
/// d x d, symmetric and full, H <= M; on rank 0, empty elsewhere; or both spread over the ranks.
struct Hessian {
  Communicator communicator;  ///< of the ranks that share it
  Eigen::MatrixXd exact;
  Eigen::MatrixXd positive_part;
  Eigen::VectorXd scale;                          ///< d: the rounding of the diagonals is eps times that
  std::shared_ptr<Pencil> distributed = nullptr;  ///< in place of the matrices; then `scale` is replicated
};

/// L of a positive definite M = L L^T. Vectors are replicated, and so are the results. Local or collective, as the
/// factor is held by every rank or by all together.
class CholeskyFactor {
 public:
  virtual ~CholeskyFactor() = default;
  virtual Eigen::VectorXd solve(const Eigen::VectorXd& r) const = 0;               ///< L^-T L^-1 r
  virtual Eigen::VectorXd multiply(const Eigen::VectorXd& v) const = 0;            ///< L v
  virtual Eigen::VectorXd multiply_transpose(const Eigen::VectorXd& v) const = 0;  ///< L^T v
  virtual Eigen::VectorXd solve_transpose(const Eigen::VectorXd& v) const = 0;     ///< L^-T v
};

/// A positive definite model M = L L^T of the Hessian. Its members are collective: local on a replicated factor.
class Preconditioner {
 public:
  Preconditioner() = default;
  explicit Preconditioner(std::shared_ptr<const CholeskyFactor> factor, bool singular = false)
      : factor_(std::move(factor)), singular_(singular) {}
  /// Replicated. `factor`: L, d x d, lower triangular with a positive diagonal.
  explicit Preconditioner(Eigen::MatrixXd factor, bool singular = false);

  bool empty() const { return factor_ == nullptr; }  ///< Local.
  bool is_singular() const { return singular_; }     ///< Local. M without its ridge was: columns depend on others.
  /// M^-1 r, 2 d^2 flops
  Eigen::VectorXd solve(const Eigen::VectorXd& r) const { return factor_->solve(r); }
  /// |v|_M = |L^T v|, d^2 flops
  double norm(const Eigen::VectorXd& v) const { return factor_->multiply_transpose(v).norm(); }
  /// L^-T v: has |.|_M = |v|, d^2 flops
  Eigen::VectorXd whiten(const Eigen::VectorXd& v) const { return factor_->solve_transpose(v); }
  /// L v, d^2 flops
  Eigen::VectorXd multiply(const Eigen::VectorXd& v) const { return factor_->multiply(v); }
  /// L^T v, the inverse of L^-T, d^2 flops
  Eigen::VectorXd unwhiten(const Eigen::VectorXd& v) const { return factor_->multiply_transpose(v); }

 private:
  std::shared_ptr<const CholeskyFactor> factor_;
  bool singular_ = false;
};

}  // namespace attnreg
