#pragma once

#include <Eigen/Core>

namespace attnreg {

/// Eigenvalues, ascending, and eigenvectors, as columns, of a symmetric matrix.
struct SymmetricEigen {
  bool finite = false;  ///< false: the matrix or the result is not finite, or LAPACK gave up
  Eigen::VectorXd values;
  Eigen::MatrixXd vectors;  ///< empty unless asked for
};

/// Local. LAPACK's divide and conquer, lower triangle read; it neither reports nor survives NaN and Inf, so they are
/// looked for before and after. 9 d^3 flops at most.
SymmetricEigen symmetric_eigen(Eigen::MatrixXd matrix, bool with_vectors);

/// A bound on the error of the eigenvalues of a matrix that was summed from terms of absolute sum `size` (its Frobenius
/// norm): max(d, 16) eps size. An estimate: the worst case grows with the number of terms, the usual one with its root.
double eigenvalue_rounding(Eigen::Index d, double size);

}  // namespace attnreg
