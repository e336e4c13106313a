#pragma once

#include <Eigen/Core>

#include "attnreg/row_matrix.hpp"
#include "rows/scaled_columns.hpp"

namespace attnreg {

/// What the regulariser sees of the offsets c of centred columns, which a centred phi does not:
///
///     1/2 sum_i w_i^2 ((a_i + c) . x)^2 = 1/2 sum_i w_i^2 (a_i . x)^2 + q(x),    q(x) = (c . x)(v . x),
///
/// with v = 1/2 (sum w_i^2) c + sum_i w_i^2 a_i. All members are local; vectors: d, replicated. Without offsets q = 0.
class OffsetRidge {
 public:
  /// Collective. One read, if there are offsets. w2: the squared weights.
  OffsetRidge(const ScaledColumns& columns, const RidgeWeights& w2);

  bool is_zero() const { return c_.size() == 0; }
  double offset(const Eigen::VectorXd& x) const { return is_zero() ? 0 : c_.dot(x); }  ///< of all logits: c . x
  double value(const Eigen::VectorXd& x) const { return is_zero() ? 0 : c_.dot(x) * v_.dot(x); }
  /// grad q at x, which is also the Hessian's product with x.
  Eigen::VectorXd gradient(const Eigen::VectorXd& x) const;
  /// q(x + t s) - q(x)
  double change(const Eigen::VectorXd& x, const Eigen::VectorXd& s, double t) const;
  /// Entry (i, j) of the Hessian.
  double hessian(Eigen::Index i, Eigen::Index j) const { return c_[i] * v_[j] + v_[i] * c_[j]; }
  Eigen::MatrixXd hessian() const { return c_ * v_.transpose() + v_ * c_.transpose(); }
  /// Entry (i, j) of (sum w_i^2) c c^T: positive semidefinite, for models.
  double model(Eigen::Index i, Eigen::Index j) const { return weight_ * c_[i] * c_[j]; }
  Eigen::MatrixXd model() const { return weight_ * c_ * c_.transpose(); }
  /// In units of eps, what the rounding of c . x and v . x does to the gradient.
  Eigen::VectorXd rounding(const Eigen::VectorXd& x) const;

 private:
  Eigen::VectorXd c_, v_;  // empty: zero
  double weight_ = 0;
};

}  // namespace attnreg
