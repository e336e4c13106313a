#pragma once

#include <Eigen/Core>

namespace attnreg {

/// A quadratic function that is added to an objective, so that its gradient is right at some points:
///
///     k(x) = e . s + 1/2 s^T B s,   s = x - at,   B = X Q^T + Q X^T.
///
/// Empty: 0. All is replicated, and all members are local; 4 d columns(Q) flops.
struct Correction {
  Eigen::VectorXd e{}, at{};  ///< d
  Eigen::MatrixXd X{}, Q{};   ///< d x k; k = 0: B = 0

  bool is_zero() const { return e.size() == 0; }
  /// B p
  Eigen::VectorXd product(const Eigen::VectorXd& p) const {
    if (Q.cols() == 0) return Eigen::VectorXd::Zero(p.size());
    return X * (Q.transpose() * p) + Q * (X.transpose() * p);
  }
  double value(const Eigen::VectorXd& x) const {
    if (is_zero()) return 0;
    const Eigen::VectorXd s = x - at;
    return e.dot(s) + 0.5 * s.dot(product(s));
  }
  Eigen::VectorXd gradient(const Eigen::VectorXd& x) const {
    return is_zero() ? Eigen::VectorXd(Eigen::VectorXd::Zero(x.size())) : Eigen::VectorXd(e + product(x - at));
  }
  /// k(x + t s) - k(x)
  double change(const Eigen::VectorXd& x, const Eigen::VectorXd& s, double t) const {
    return is_zero() ? 0 : t * gradient(x).dot(s) + 0.5 * t * t * s.dot(product(s));
  }
};

}  // namespace attnreg
