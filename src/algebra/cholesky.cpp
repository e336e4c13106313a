#include "algebra/cholesky.hpp"

#include "algebra/lapack.hpp"

namespace attnreg {

bool Cholesky::factor(const Eigen::MatrixXd& matrix) {
  if (!matrix.triangularView<Eigen::Lower>().toDenseMatrix().allFinite()) return false;
  factor_ = matrix;
  const int order = static_cast<int>(matrix.rows());
  int info = 0;
  dpotrf_("L", &order, factor_.data(), &order, &info);
  return info == 0 && factor_.diagonal().allFinite();
}

Eigen::VectorXd Cholesky::solve(const Eigen::VectorXd& right) const {
  Eigen::VectorXd solution = right;
  const int order = static_cast<int>(factor_.rows()), one = 1;
  int info = 0;
  dpotrs_("L", &order, &one, factor_.data(), &order, solution.data(), &order, &info);
  return solution;
}

}  // namespace attnreg
