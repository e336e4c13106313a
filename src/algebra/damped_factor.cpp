#include "algebra/damped_factor.hpp"

#include <utility>

#include "algebra/dense_factors.hpp"

namespace attnreg {

using Eigen::MatrixXd;
using Eigen::VectorXd;

VectorXd positive_scale(const VectorXd& scale) {
  const double largest = scale.maxCoeff();
  return (scale.array() > 0).select(scale, largest > 0 ? largest : 1.0);
}

VectorXd without_dependent(const VectorXd& pivots, double ridge, const VectorXd& scale) {
  constexpr double kDependent = 20;  // pivots of so many ridges belong to columns that depend on earlier ones
  return (pivots.array().square() <= kDependent * ridge * scale.array()).select(scale.cwiseSqrt(), pivots);
}

DampedFactor damped_factor(MatrixXd M, const VectorXd& scale) {
  if (!M.allFinite()) return {};
  const VectorXd diagonal = M.diagonal(), positive = positive_scale(scale);
  Cholesky cholesky;
  const double ridge = damping([&](double tried) {
    M.diagonal() = diagonal + tried * positive;
    return cholesky.factor(M);
  });
  if (ridge == 0) return {};
  MatrixXd L = cholesky.lower();
  const VectorXd pivots = without_dependent(L.diagonal(), ridge, positive);
  const bool singular = pivots != L.diagonal();
  L.diagonal() = pivots;
  return {ridge, singular, std::move(L)};
}

}  // namespace attnreg
