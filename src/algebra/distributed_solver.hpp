#pragma once

#include <optional>

#include "algebra/distributed_matrix.hpp"
#include "algebra/hessian.hpp"
#include "algebra/scalapack.hpp"

namespace attnreg {

/// A Cholesky factor over a process grid, lower triangle; the members are collective over its communicator.
class DistributedFactor final : public CholeskyFactor {
 public:
  explicit DistributedFactor(DistributedMatrix L) : L_(std::move(L)) {}
  Eigen::VectorXd solve(const Eigen::VectorXd& r) const override { return scalapack::solve_cholesky(L_, r); }
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
