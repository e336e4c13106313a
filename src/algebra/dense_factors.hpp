#pragma once

#include <Eigen/Core>

namespace attnreg {

// Factors of dense matrices by LAPACK. All functions are local. LAPACK hangs on some matrices with NaN or Inf and calls
// others factored, so the numbers are looked at before and after each call: unless all are finite and LAPACK succeeds,
// `Cholesky::factor` is false, and every number of the other results is NaN. BLAS need not be thread safe: call these
// outside of parallel regions only. Another CPU or another BLAS may round otherwise: where all ranks need the same
// bits, rank 0 factors and broadcasts.

/// L of M = L L^T, d x d.
class Cholesky {
 public:
  /// The lower triangle of M is read; false also if M is not positive definite to working precision. d^3 / 3 flops.
  bool factor(const Eigen::MatrixXd& M);
  /// M^-1 r after a successful `factor`. 2 d^2 flops.
  Eigen::VectorXd solve(const Eigen::VectorXd& r) const;
  Eigen::MatrixXd solve_columns(Eigen::MatrixXd columns) const;  ///< M^-1 times these
  Eigen::VectorXd pivots() const { return factor_.diagonal(); }  ///< of the lower factor
  Eigen::MatrixXd lower() const { return factor_.triangularView<Eigen::Lower>(); }

 private:
  Eigen::MatrixXd factor_;
};

/// Eigenvalues, ascending, and eigenvectors, as columns, of a symmetric matrix.
struct SymmetricEigen {
  bool finite = false;  ///< false: the matrix is empty, or all is NaN
  Eigen::VectorXd values;
  Eigen::MatrixXd vectors;  ///< empty unless asked for
};

/// Divide and conquer; the lower triangle is read. 9 d^3 flops at most.
SymmetricEigen symmetric_eigen(Eigen::MatrixXd matrix, bool with_vectors);

/// A bound on the error of the eigenvalues of a matrix that was summed from terms of absolute sum `size` (its Frobenius
/// norm): max(d, 16) eps size. An estimate: the worst case grows with the number of terms, the usual one with its root.
double eigenvalue_rounding(Eigen::Index d, double size);

/// M = U diag(values) V^T, m x n: U and V have k = min(m, n) orthonormal columns, the values descend.
struct ThinSvd {
  Eigen::VectorXd values;
  Eigen::MatrixXd U, V;

  /// The number of values above max(m, n) eps times the largest; 0 for NaN.
  Eigen::Index rank() const;
};

/// Divide and conquer. About 6 m n^2 + 20 n^3 flops for m >= n.
ThinSvd thin_svd(Eigen::MatrixXd M);

/// M^+ R of a positive semidefinite M, d x d, whose lower triangle is read; eigenvalues below d eps times the largest
/// count as 0. R: d x k.
Eigen::MatrixXd pseudo_solution(const Eigen::MatrixXd& M, const Eigen::MatrixXd& R);

/// The X of smallest Frobenius norm among those that minimise |A X - B|_F. A: m x n, B: m x k, X: n x k.
Eigen::MatrixXd least_squares(Eigen::MatrixXd A, const Eigen::MatrixXd& B);

/// Q of M = Q R, m x k with m >= k: orthonormal columns, and R with a diagonal >= 0. 4 m k^2 flops.
Eigen::MatrixXd orthonormal_columns(Eigen::MatrixXd M);

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
