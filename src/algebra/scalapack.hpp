#pragma once

#include <Eigen/Core>
#include <optional>
#include <utility>
#include <vector>

#include "algebra/distributed_matrix.hpp"
#include "algebra/hessian.hpp"

namespace attnreg {

/// What is used of ScaLAPACK. All collective over the grid, idle ranks included; right sides and results with few
/// columns are replicated and bit-equal on all ranks. Only the lower triangle of a symmetric matrix or of L is read.
/// d^3 flops are shared by the processes; a solve sends O(d) numbers for each block column.
namespace scalapack {

/// Replaces the lower triangle of A by L, A = L L^T. False on all ranks if A is not finite (looked for before and
/// after, as pdpotrf does not see NaN) or not positive definite to working precision; A is lost then. d^3 / 3 flops.
bool factor_cholesky(DistributedMatrix& A);

Eigen::MatrixXd solve_cholesky(const DistributedMatrix& L, const Eigen::MatrixXd& B);      ///< L^-T L^-1 B
Eigen::VectorXd multiply(const DistributedMatrix& L, const Eigen::VectorXd& v);            ///< L v
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

/// A Cholesky factor over a process grid, lower triangle; the members are collective over its communicator.
class DistributedFactor final : public CholeskyFactor {
 public:
  explicit DistributedFactor(DistributedMatrix L) : L_(std::move(L)) {}
  Eigen::VectorXd solve(const Eigen::VectorXd& r) const override { return scalapack::solve_cholesky(L_, r); }
  Eigen::VectorXd multiply(const Eigen::VectorXd& v) const override { return scalapack::multiply(L_, v); }
  Eigen::VectorXd multiply_transpose(const Eigen::VectorXd& v) const override {
    return scalapack::multiply_transpose(L_, v);
  }
  Eigen::VectorXd solve_transpose(const Eigen::VectorXd& v) const override { return scalapack::solve_transpose(L_, v); }

 private:
  DistributedMatrix L_;
};

/// H and M over a process grid, lower triangles; the members are collective. Takes 3 d^2 / processes doubles.
class DistributedPencil final : public Pencil {
 public:
  DistributedPencil(DistributedMatrix H, DistributedMatrix M) : H_(std::move(H)), M_(std::move(M)) {}
  bool is_finite() const override {
    const bool H = H_.is_finite(), M = M_.is_finite();  // both are collective
    return H && M;
  }
  void add_ridge(const Eigen::VectorXd& ridge) override {
    for (DistributedMatrix* const matrix : {&H_, &M_}) matrix->set_diagonal(matrix->diagonal() + ridge);
  }
  bool factor(double shift) override {
    if (!factor_) factor_.emplace(H_.shared_grid(), H_.rows(), H_.columns());
    factor_->local() = H_.local() + shift * M_.local();
    return scalapack::factor_cholesky(*factor_);
  }
  Eigen::VectorXd solve(const Eigen::VectorXd& v) const override { return scalapack::solve_cholesky(*factor_, v); }
  Eigen::VectorXd pivots() const override { return factor_->diagonal(); }
  Eigen::VectorXd multiply_H(const Eigen::VectorXd& v) const override { return scalapack::multiply_symmetric(H_, v); }
  Eigen::VectorXd multiply_M(const Eigen::VectorXd& v) const override { return scalapack::multiply_symmetric(M_, v); }

 private:
  DistributedMatrix H_, M_;
  std::optional<DistributedMatrix> factor_;  // room for H + shift M and its factor
};

}  // namespace attnreg
