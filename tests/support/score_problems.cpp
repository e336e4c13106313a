#include "support/score_problems.hpp"

#include <Eigen/QR>
#include <cmath>
#include <random>

namespace attnreg::reference {

using Eigen::MatrixXd;

RowMajorMatrix score_problem(Rows kind, Index n, Index d, std::uint64_t seed) {
  RowMajorMatrix A = random_matrix(n, d, seed);
  std::mt19937_64 engine(seed + 1);
  std::cauchy_distribution<double> cauchy;
  if (kind == Rows::cauchy)
    for (Index i = 0; i < n; ++i) A.row(i) *= std::abs(cauchy(engine));
  if (kind == Rows::spiky) {
    A *= 0.01;
    for (Index i = 0; i < 4 * d; ++i) A.row(i + 1) = 5 * VectorXd::Unit(d, i % d).transpose();
  }
  return A;
}

VectorXd dense_scores(const RowMajorMatrix& A, const VectorXd& weights) {
  const MatrixXd M = weights.cwiseSqrt().asDiagonal() * A;
  Eigen::ColPivHouseholderQR<MatrixXd> qr(M);
  qr.setThreshold(1e-10);
  const MatrixXd Q = qr.householderQ() * MatrixXd::Identity(M.rows(), qr.rank());
  return Q.rowwise().squaredNorm();
}

VectorXd dense_scores(const RowMajorMatrix& A) { return dense_scores(A, VectorXd::Ones(A.rows())); }

}  // namespace attnreg::reference
