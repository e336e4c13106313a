#pragma once

#include <Eigen/Core>
#include <vector>

#include "algebra/distributed_matrix.hpp"

namespace attnreg {

/// What is used of ScaLAPACK. All collective over the grid, idle ranks included; right sides and results with few
/// columns are replicated and bit-equal on all ranks. Only the lower triangle of a symmetric matrix or of L is read.
/// d^3 flops are shared by the processes; a solve sends O(d) numbers for each block column.
namespace scalapack {

/// Replaces the lower triangle of A by L, A = L L^T. False on all ranks if A is not finite (looked for before and
/// after, as pdpotrf does not see NaN) or not positive definite to working precision; A is lost then. d^3 / 3 flops.
bool factor_cholesky(DistributedMatrix& A);

Eigen::MatrixXd solve_cholesky(const DistributedMatrix& L, const Eigen::MatrixXd& B);      ///< L^-T L^-1 B
Eigen::VectorXd multiply_transpose(const DistributedMatrix& L, const Eigen::VectorXd& v);  ///< L^T v
Eigen::VectorXd solve_transpose(const DistributedMatrix& L, const Eigen::VectorXd& v);     ///< L^-T v
Eigen::VectorXd multiply_symmetric(const DistributedMatrix& A, const Eigen::VectorXd& v);  ///< A v

/// R of M = Q R in place of M's upper triangle (Householder; what is below is undefined). 2 rows columns^2 flops.
void factor_qr(DistributedMatrix& M);

/// The same with column pivoting of the first `rows` rows of M: column j of R is column pivots[j] of M. Matrix times
/// vector work only, so slow; for M that may be rank-deficient.
std::vector<Index> factor_pivoted_qr(DistributedMatrix& M, Index rows);

/// R11^-1 B, R11 the upper triangle of the first B.rows() rows and columns of R.
Eigen::MatrixXd solve_upper(const DistributedMatrix& R, const Eigen::MatrixXd& B);

}  // namespace scalapack

}  // namespace attnreg
