#include "surrogate/secants.hpp"

namespace attnreg {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

// With orthonormal q_j, made of L^T s_j, and w_j, made of L^-1 y_j by the same combinations, T = Q^T W:
//
//     L^-1 B L^-T = W Q^T + Q W^T - Q sym(T) Q^T = X Q^T + Q X^T,   X = W - 1/2 Q sym(T).
void set_secants(const Preconditioner& M, const std::vector<Secant>& secants, Correction& correction) {
  constexpr double kDependent = 0.1;  // of a step, that is new
  const Index d = correction.e.size();
  MatrixXd Q(d, 0), W(d, 0);
  for (const Secant& secant : secants) {
    VectorXd q = M.unwhiten(secant.s), w = M.unwhiten(M.solve(secant.y));
    const double length = q.norm();
    for (int twice = 0; twice < 2; ++twice) {
      const VectorXd t = Q.transpose() * q;
      q -= Q * t;
      w -= W * t;
    }
    const double rest = q.norm();
    if (!(rest > kDependent * length) || !(w.norm() <= secant.largest * rest)) continue;
    Q.conservativeResize(Eigen::NoChange, Q.cols() + 1);
    W.conservativeResize(Eigen::NoChange, W.cols() + 1);
    Q.rightCols(1) = q / rest;
    W.rightCols(1) = w / rest;
  }
  const MatrixXd T = Q.transpose() * W, X = W - 0.25 * Q * (T + T.transpose());
  correction.Q.resize(d, Q.cols());
  correction.X.resize(d, Q.cols());
  for (Index k = 0; k < Q.cols(); ++k) {
    correction.Q.col(k) = M.multiply(Q.col(k));
    correction.X.col(k) = M.multiply(X.col(k));
  }
}

}  // namespace attnreg
