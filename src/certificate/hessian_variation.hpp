#pragma once

#include <Eigen/Core>

#include "attnreg/row_matrix.hpp"
#include "losses/loss_bounds.hpp"

namespace attnreg {

/// How fast the Hessian H of L(x) = phi(A x) + 1/2 |diag(w) A x|^2 changes around a point, in the norm |v|_G =
/// |N^-1 v| of any positive definite G = (N N^T)^-1: |H(y) - H(x)|_G <= K |y - x|_G in a ball. It holds one number a
/// row, and `bound` 5 more. Source: theorem 2 of docs/certificate.md.
class HessianVariation {
 public:
  /// Collective, one read and n d^2 multiplications. A, the rows of a point and their centre A^T f, the bounds of their
  /// loss; N: d x d, replicated. All but `centre` must outlive this.
  HessianVariation(const RowMatrix& A, const PointRows& rows, const Eigen::VectorXd& centre, const LossBounds& loss,
                   const Eigen::MatrixXd& N);

  /// rho = max_i |a_i - abar|_{G^-1} over all rows. Local.
  double row_distance() const { return row_distance_; }

  /// Collective, three reads and 3/2 n d^2 multiplications. K: the largest |L'''(y)[v, v, v]| over |v|_G = 1 and
  /// |y - x|_G <= radius is at most K. +infinity, and no read, if row_distance() radius > `largest_growth`.
  double bound(double radius) const;

  static constexpr double largest_growth = 30;  ///< exp(60) still leaves room in every sum

 private:
  BallGrowth growth_in_ball(double radius) const;
  /// N^T (sum_i weights_i (a_i - abar)(a_i - abar)^T) N on rank 0; weights >= 0.
  Eigen::MatrixXd whitened_gram(const Eigen::VectorXd& weights) const;
  double largest_eigenvalue(const Eigen::MatrixXd& matrix) const;

  const RowMatrix& A_;
  const PointRows& rows_;
  const LossBounds& loss_;
  const Eigen::MatrixXd& N_;
  Eigen::VectorXd centre_;
  Eigen::VectorXd distance_;  // s_i = |a_i - abar|_{G^-1}
  double row_distance_ = 0;
  double mean_term_ = 0;  // mu >= |sum delta_i (a_i - abar)|_{G^-1}
};

}  // namespace attnreg
