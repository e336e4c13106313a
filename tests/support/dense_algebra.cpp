#include "support/dense_algebra.hpp"

#include <Eigen/Dense>
#include <limits>

namespace attnreg::reference {

using Eigen::MatrixXd;
using Eigen::VectorXd;

VectorXd eigenvalues(const MatrixXd& symmetric) {
  return Eigen::SelfAdjointEigenSolver<MatrixXd>(symmetric, Eigen::EigenvaluesOnly).eigenvalues();
}

VectorXd eigenvalues(const MatrixXd& symmetric, const MatrixXd& metric) {
  return eigen_pairs(symmetric, metric).values;
}

EigenPairs eigen_pairs(const MatrixXd& symmetric, const MatrixXd& metric) {
  const Eigen::GeneralizedSelfAdjointEigenSolver<MatrixXd> solver(symmetric, metric);
  return {solver.eigenvalues(), solver.eigenvectors()};
}

double spectral_error(const MatrixXd& H, const MatrixXd& M) {
  if (Eigen::LLT<MatrixXd>(H).info() != Eigen::Success) return std::numeric_limits<double>::infinity();
  return (eigenvalues(M, H).array() - 1).abs().maxCoeff();
}

MatrixXd cholesky_factor(const MatrixXd& M) { return M.llt().matrixL(); }

MatrixXd solved(const MatrixXd& M, const MatrixXd& B) { return M.llt().solve(B); }

MatrixXd inverse(const MatrixXd& M) { return M.inverse(); }

VectorXd singular_values(const MatrixXd& M) { return Eigen::BDCSVD<MatrixXd>(M).singularValues(); }

}  // namespace attnreg::reference
