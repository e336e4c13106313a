#pragma once

#include <Eigen/Core>

#include "attnreg/row_matrix.hpp"
#include "losses/loss_bounds.hpp"
#include "rows/logit_offsets.hpp"

namespace attnreg {

/// What `HessianVariation` needs of a point besides its rows.
struct VariationFrame {
  const Eigen::VectorXd& centre;          ///< c = A^T f of `HessianForm`
  const Eigen::VectorXd& coupled_centre;  ///< A^T m; coupled losses only
  const Eigen::MatrixXd& N;               ///< d x d, replicated
  LogitOffsets offsets{};                 ///< masked rows are nowhere
};

/// How fast the Hessian H of L(x) = phi(A x) + 1/2 |diag(w) A x|^2 changes around a point, in the norm |v|_G =
/// |N^-1 v| of any positive definite G = (N N^T)^-1: |H(y) - H(x)|_G <= K |y - x|_G in a ball. It holds one number a
/// row, and `bound` 5 more. Source: theorems 2 and 3 of docs/certificate.md.
class HessianVariation {
 public:
  virtual ~HessianVariation() = default;

  /// rho = max_i |a_i - abar|_{G^-1} over all rows, max_i |a_i|_{G^-1} of losses that are not centred. Local.
  double row_distance() const { return row_distance_; }

  /// Collective, up to four reads and 2 n d^2 multiplications. K: the largest |L'''(y)[v, v, v]| over |v|_G = 1 and
  /// |y - x|_G <= radius is at most K. +infinity, and no read, if row_distance() radius > `largest_growth`.
  double bound(double radius) const;

  static constexpr double largest_growth = 30;   ///< exp(60) still leaves room in every sum
  static constexpr double sum_slack = 1 + 1e-6;  ///< covers the rounding of the sums behind K, about sqrt(n) eps

 protected:
  HessianVariation(const RowMatrix& A, const VariationFrame& frame, Eigen::VectorXd centre);

  virtual double bound_in_ball(double radius) const = 0;
  /// Collective, one read. Fills the distances. Result: sum_i weights_i N^T (a_i - centre), this rank's part.
  Eigen::VectorXd measure(const Eigen::VectorXd& weights);
  /// Collective, one read. N^T sum_i weights_i (a_i - centre)(a_i - centre)^T N on rank 0; weights >= 0.
  Eigen::MatrixXd whitened_gram(const Eigen::VectorXd& weights) const;
  double largest_eigenvalue(const Eigen::MatrixXd& matrix) const;

  const Communicator& communicator() const { return A_.communicator(); }
  const Eigen::MatrixXd& N() const { return N_; }
  const Eigen::VectorXd& distance() const { return distance_; }  ///< s_i = |a_i - centre|_{G^-1}

 private:
  const RowMatrix& A_;
  const Eigen::MatrixXd& N_;
  const LogitOffsets offsets_;
  Eigen::VectorXd centre_, distance_;
  double row_distance_ = 0;
};

}  // namespace attnreg
