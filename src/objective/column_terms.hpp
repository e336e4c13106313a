#pragma once

#include <Eigen/Core>
#include <memory>
#include <utility>

#include "attnreg/row_matrix.hpp"
#include "rows/scaled_columns.hpp"

namespace attnreg {

/// What L has in x itself, apart from A x: a quadratic form of two parts, either of which may be missing. One is the
/// ridge of the columns, 1/2 sum_j r_j x_j^2. The other is what the regulariser sees of the offsets c of centred
/// columns, which a centred phi does not:
///
///     1/2 sum_i w_i^2 ((a_i + c) . x)^2 = 1/2 sum_i w_i^2 (a_i . x)^2 + (c . x)(v . x),
///
/// with v = 1/2 (sum w_i^2) c + sum_i w_i^2 a_i. Where the Gram matrix of the regulariser is known, it may stand for
/// all of that, and for the regulariser itself. All members are local; vectors: d, replicated.
class ColumnTerms {
 public:
  /// Collective. One read, if there are offsets. w2: the squared weights.
  ColumnTerms(const ScaledColumns& columns, const RidgeWeights& w2);
  /// 1/2 x^T G x. G: d x d, positive semidefinite, replicated.
  explicit ColumnTerms(std::shared_ptr<const Eigen::MatrixXd> G) : G_(std::move(G)) {}

  bool is_zero() const { return c_.size() == 0 && !has_ridge(); }
  bool has_ridge() const { return r_.size() > 0 || G_ != nullptr; }
  double offset(const Eigen::VectorXd& x) const { return c_.size() == 0 ? 0 : c_.dot(x); }  ///< of all logits: c . x
  double ridge(const Eigen::VectorXd& x) const { return 0.5 * x.dot(ridge_gradient(x)); }
  /// Of both parts.
  double value(const Eigen::VectorXd& x) const { return ridge(x) + (c_.size() == 0 ? 0 : c_.dot(x) * v_.dot(x)); }
  /// The gradient at x, which is also the Hessian's product with x.
  Eigen::VectorXd gradient(const Eigen::VectorXd& x) const;
  /// The value at x + t s, less that at x.
  double change(const Eigen::VectorXd& x, const Eigen::VectorXd& s, double t) const;
  /// Entry (i, j) of the Hessian.
  double hessian(Eigen::Index i, Eigen::Index j) const;
  Eigen::MatrixXd hessian() const;
  /// Entry (i, j) of the ridge + (sum w_i^2) c c^T: positive semidefinite, for models.
  double model(Eigen::Index i, Eigen::Index j) const;
  Eigen::MatrixXd model() const;
  /// In units of eps, what the rounding of r_j x_j, of c . x and of v . x does to the gradient.
  Eigen::VectorXd rounding(const Eigen::VectorXd& x) const;

 private:
  Eigen::VectorXd ridge_gradient(const Eigen::VectorXd& x) const;

  std::shared_ptr<const Eigen::MatrixXd> G_;  // none: the others are what there is
  Eigen::VectorXd r_;                         // empty: no ridge
  Eigen::VectorXd c_, v_;                     // empty: no offsets
  double weight_ = 0;
};

}  // namespace attnreg
