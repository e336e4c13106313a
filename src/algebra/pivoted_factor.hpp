#pragma once

#include <Eigen/Core>
#include <vector>

namespace attnreg {

using Eigen::Index;

/// Local. The power of two, 2^-1020 to 2^1000, that brings `norm` into [1/2, 1) or nearest; 0 for 0.
double scale_for(double norm);

/// R of a factorization with column pivoting and a rank test: M C Pi = Q [R11 R12; 0 ~0], where C scales the columns by
/// powers of two to norms in [1/2, 1), so that the rank does not depend on the units of the columns. Columns of norm
/// below 2^-900 count as zero.
struct PivotedFactor {
  bool finite = false;           ///< whether M and R are; the rest is empty if not
  Eigen::MatrixXd R11;           ///< rank x rank, upper triangular
  std::vector<Index> pivots;     ///< the columns of M that belong to R11
  Eigen::VectorXd column_scale;  ///< the diagonal of C

  Index rank() const { return R11.rows(); }

  /// Local. N = C Pi [R11^{-1} G; 0], so that |M N|_F^2 = |G|_F^2. G: rank x k; result: d x k.
  Eigen::MatrixXd solve(const Eigen::MatrixXd& G) const;
  /// Local. N for G = I: d x rank. rank^3 / 3 flops.
  Eigen::MatrixXd inverse() const;
};

/// Local. From M, m x d, by QR; column j counts as dependent on its predecessors if |R_jj| <= tolerance |R_11|. If R is
/// far from singular without pivoting, the pivots are 0, 1, ... R11 has a positive diagonal, which makes it unique.
PivotedFactor pivoted_qr(Eigen::MatrixXd M, double tolerance);

/// Local. From M^T M, symmetric and full, by Cholesky; |R_jj|^2 <= tolerance |R_11|^2 counts as dependent.
PivotedFactor pivoted_cholesky(Eigen::MatrixXd gram, double tolerance);

/// Local. The same without pivoting, faster: the R of `pivoted_qr` where that does not pivot. Not finite unless the
/// square of LAPACK's estimate of the condition of R is below 1 / tolerance.
PivotedFactor regular_cholesky(Eigen::MatrixXd gram, double tolerance);

}  // namespace attnreg
