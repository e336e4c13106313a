#include "algebra/damped_factor.hpp"

#include <cmath>
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

namespace {

/// The same for a factor L of M + ridge diag(scale), exactly: column j of L^-T is a v with v^T (M + ridge) v = 1, and
/// the column depends on earlier ones if the ridge is a twentieth of that, or more.
VectorXd without_dependent_columns(const MatrixXd& L, double ridge, const VectorXd& scale) {
  constexpr double kSafe = 1e-10;  // of squared pivots: with larger ones no ridge matters
  constexpr double kShare = 0.05;
  VectorXd pivots = L.diagonal();
  if ((pivots.array().square() > kSafe * scale.array()).all()) return pivots;
  const MatrixXd inverse = L.triangularView<Eigen::Lower>().solve(MatrixXd::Identity(L.rows(), L.cols()));
  const VectorXd shares = ridge * inverse.cwiseAbs2() * scale;
  for (Eigen::Index j = 0; j < pivots.size(); ++j)
    if (!(shares[j] < kShare)) pivots[j] = std::sqrt(scale[j]);
  return pivots;
}

}  // namespace

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
  const VectorXd pivots = without_dependent_columns(L, ridge, positive);
  const bool singular = pivots != L.diagonal();
  L.diagonal() = pivots;
  return {ridge, singular, std::move(L)};
}

}  // namespace attnreg
