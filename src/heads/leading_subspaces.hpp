#pragma once

#include <Eigen/Core>

#include "algebra/blas_products.hpp"

namespace attnreg {

/// The right singular vectors of L that belong to its largest singular values. Local.
struct LeadingSubspace {
  Eigen::MatrixXd vectors;  ///< n x r, orthonormal
  Eigen::VectorXd values;   ///< of r + 8 vectors, fewer if L is smaller, descending; the last ones from below
};

/// Subspace iteration from random vectors (Halko, Martinsson, Tropp 2011, algorithm 4.4), one round if the values fall
/// by 1000 behind value r, else two: 6 or 12 m n (r + 8) flops. L: m x n; r <= min(m, n).
LeadingSubspace leading_subspace(MatrixPart L, Eigen::Index r);

/// The singular values of L, descending, at least 1e-7 of the first one, what is less being rounding. From the Gram
/// matrix of the shorter side. Local.
Eigen::VectorXd spectrum_of(MatrixPart L);

/// The eigenvectors of the r largest eigenvalues of M, symmetric with eigenvalues in [0, 1], and r + 1 eigenvalues,
/// descending; the last one is 0 if M has no more. By inverse iteration beyond 1, which takes 2 or 3 Cholesky solves
/// where r eigenvalues are 1, else by LAPACK. The vectors' angle to the true ones is below a hundredth of that from
/// which an eigenvalue falls from 1. Local; empty if M is not finite.
struct TopEigenvectors {
  Eigen::MatrixXd vectors;
  Eigen::VectorXd values;
};
TopEigenvectors top_eigenvectors(const Eigen::MatrixXd& M, Eigen::Index r);

}  // namespace attnreg
