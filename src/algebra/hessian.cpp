#include "algebra/hessian.hpp"

#include <utility>

namespace attnreg {

namespace {

/// Eigen, whose code does not depend on the CPU that runs it: every rank must get the same bits.
class ReplicatedFactor final : public CholeskyFactor {
 public:
  explicit ReplicatedFactor(Eigen::MatrixXd L) : L_(std::move(L)) {}
  Eigen::VectorXd solve(const Eigen::VectorXd& r) const override {
    Eigen::VectorXd v = L_.triangularView<Eigen::Lower>().solve(r);
    L_.triangularView<Eigen::Lower>().adjoint().solveInPlace(v);
    return v;
  }
  Eigen::VectorXd multiply(const Eigen::VectorXd& v) const override { return L_.triangularView<Eigen::Lower>() * v; }
  Eigen::VectorXd multiply_transpose(const Eigen::VectorXd& v) const override {
    return L_.triangularView<Eigen::Lower>().adjoint() * v;
  }
  Eigen::VectorXd solve_transpose(const Eigen::VectorXd& v) const override {
    return L_.triangularView<Eigen::Lower>().adjoint().solve(v);
  }

 private:
  Eigen::MatrixXd L_;
};

}  // namespace

Preconditioner::Preconditioner(Eigen::MatrixXd factor, bool singular)
    : Preconditioner(std::make_shared<const ReplicatedFactor>(std::move(factor)), singular) {}

}  // namespace attnreg
