#pragma once

#include <Eigen/Dense>
#include <cmath>
#include <random>

#include "support/reference.hpp"

/// Matrices whose leverage scores differ in kind, and their scores by dense algebra. The same on all ranks.
namespace attnreg::reference {

using Eigen::MatrixXd;

enum class Rows {
  gaussian,  ///< N(0, 1) entries: all scores near d / n
  cauchy,    ///< Gaussian rows times |Cauchy|: some scores near 1
  spiky,     ///< 0.01 Gaussian rows, and 4 d rows that are 5 times a unit vector, with most of the scores
};
inline constexpr Rows all_rows[] = {Rows::gaussian, Rows::cauchy, Rows::spiky};

inline RowMajorMatrix score_problem(Rows kind, Index n, Index d, std::uint64_t seed = 1) {
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

/// The scores of diag(weights)^{1/2} A: row norms of an orthonormal basis, by QR with column pivoting.
inline VectorXd dense_scores(const RowMajorMatrix& A, const VectorXd& weights) {
  const MatrixXd M = weights.cwiseSqrt().asDiagonal() * A;
  Eigen::ColPivHouseholderQR<MatrixXd> qr(M);
  qr.setThreshold(1e-10);
  const MatrixXd Q = qr.householderQ() * MatrixXd::Identity(M.rows(), qr.rank());
  return Q.rowwise().squaredNorm();
}
inline VectorXd dense_scores(const RowMajorMatrix& A) { return dense_scores(A, VectorXd::Ones(A.rows())); }

}  // namespace attnreg::reference
