#include "newton/saddle.hpp"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>

namespace attnreg {

std::optional<Direction> negative_curvature(Objective& objective, const Point& point) {
  constexpr double kNegative = -1e-8;  // relative to M; above, it may be rounding
  constexpr double kClear = 2;         // distances from an eigenvalue: with more, none near is negative
  constexpr Eigen::Index kMaxSteps = 8;
  const auto suspected = objective.suspected_descent(point);
  const Preconditioner& M = objective.preconditioner();
  if (!suspected || M.empty()) return std::nullopt;
  // Lanczos on L^-1 H L^-T, M = L L^T, with all vectors kept orthogonal.
  const Eigen::Index d = point.x.size(), most = std::min(kMaxSteps, d);
  Eigen::MatrixXd V(d, 0), projected = Eigen::MatrixXd::Zero(most, most);
  Eigen::VectorXd next = M.unwhiten(*suspected);
  for (Eigen::Index k = 0; k < most; ++k) {
    for (int twice = 0; twice < 2; ++twice) next -= V * (V.transpose() * next);
    const double norm = next.norm();
    if (!(norm > 0) || !std::isfinite(norm)) break;
    V.conservativeResize(Eigen::NoChange, k + 1);
    V.col(k) = next / norm;
    Direction v{M.whiten(V.col(k))};
    const Eigen::VectorXd image = M.unwhiten(M.solve(objective.hessian_product(point, v)));  // L^-1 H L^-T
    projected.col(k).head(k + 1) = V.transpose() * image;
    projected.row(k).head(k + 1) = projected.col(k).head(k + 1).transpose();
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> ritz(projected.topLeftCorner(k + 1, k + 1));
    if (ritz.eigenvalues()[0] < kNegative) {
      Eigen::VectorXd s = M.whiten(V * ritz.eigenvectors().col(0));
      if (point.gradient.dot(s) > 0) s = -s;
      Direction down = objective.direction(s);  // |s|_M = 1
      if (-ritz.eigenvalues()[0] <= objective.curvature_rounding(point, down)) return std::nullopt;
      return down;
    }
    next = image - V * projected.col(k).head(k + 1);
    // The least Ritz value is that far from an eigenvalue, at most.
    const double distance = next.norm() * std::abs(ritz.eigenvectors()(k, 0));
    if (ritz.eigenvalues()[0] > kClear * distance) return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace attnreg
