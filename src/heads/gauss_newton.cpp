#include "heads/gauss_newton.hpp"

#include <algorithm>
#include <cmath>

#include "algebra/dense_factors.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

// Relative decrease of L after which the next step is not worth it: of N numbers with noise L is known to 1 / sqrt(N)
// of itself, and p unknowns take p / N of it, a tenth for real heads. With 1e-7 predictions are the same, at 2 to 5
// times the cost.
constexpr double kNoChange = 1e-4;
constexpr double kShortestStep = 1e-3;
constexpr double kLeastDamping = 1e-7;
constexpr double kRoundingOfL = 1e-12;

/// The diagonal of the preconditioner: a column of U and V has the curvature of its singular value.
VectorXd preconditioner(const HeadFactors& u, const VectorXd& values, double curvature, double damping) {
  HeadFactors diagonal = u;
  if (u.is_full()) {
    diagonal.numbers().setConstant(curvature + damping);
  } else {
    const VectorXd columns = (curvature * values).array() + damping;
    for (Index k = 0; k < u.rank(); ++k) {
      diagonal.U().col(k).setConstant(columns[k]);
      diagonal.V().col(k).setConstant(columns[k]);
    }
  }
  return diagonal.numbers();
}

/// Conjugate gradients on (J^T C J + damping) s = -g, until the residual in the preconditioner's norm is `forcing` of
/// that of g.
VectorXd step_of(HeadPasses& passes, const HeadFactors& u, const HeadLinearisation& around, const VectorXd& diagonal,
                 double damping, double forcing, int most_products) {
  VectorXd s = VectorXd::Zero(u.size()), r = -around.gradient, z = r.cwiseQuotient(diagonal), p = z;
  double rz = r.dot(z);
  const double target = forcing * forcing * rz;
  for (int k = 0; k < most_products; ++k) {
    const VectorXd h = passes.product(u, around, p) + damping * p;
    const double curvature = p.dot(h);
    if (!(curvature > 0)) break;
    s += rz / curvature * p;
    r -= rz / curvature * h;
    z = r.cwiseQuotient(diagonal);
    const double before = rz;
    rz = r.dot(z);
    if (rz < target) break;
    p = z + rz / before * p;
  }
  return s;
}

}  // namespace

double loss_at_zero(const HeadTarget& target, HeadLoss loss) {
  switch (loss) {
    case HeadLoss::cross_entropy: return target.entropy();
    case HeadLoss::softmax: return target.half_square();
    default: return target.log_odds_size();
  }
}

BalancedFactors balanced(const Communicator& communicator, HeadFactors u) {
  if (u.is_full()) return {std::move(u), VectorXd::Ones(1)};
  VectorXd values(u.rank());
  if (communicator.is_root()) {
    const MatrixXd left = orthonormal_columns(u.U()), right = orthonormal_columns(u.V());
    const ThinSvd svd = thin_svd((left.transpose() * u.U()) * (right.transpose() * u.V()).transpose());
    values = svd.values;
    const VectorXd roots = values.cwiseSqrt();
    u.U() = left * (svd.U * roots.asDiagonal());
    u.V() = right * (svd.V * roots.asDiagonal());
  }
  communicator.broadcast(span_of(u.numbers()));
  communicator.broadcast(span_of(values));
  return {std::move(u), std::move(values)};
}

GaussNewtonEnd gauss_newton(HeadPasses& passes, HeadFactors start, HeadLoss loss, const GaussNewtonOptions& options) {
  const Communicator& communicator = passes.inputs().communicator();
  const double size = loss_at_zero(passes.target(), loss), none = options.rounding * options.rounding * size;
  auto [u, values] = balanced(communicator, std::move(start));
  HeadLinearisation point = passes.linearise(u, loss);
  double first_gain = 0, damping = options.damping;
  int steps = 0;
  bool converged = false;
  while (!converged && steps < options.steps) {
    converged = true;  // where no step follows
    const double ridge = point.mean_curvature * damping * values.maxCoeff();
    const VectorXd diagonal = preconditioner(u, values, point.mean_curvature, ridge);
    const double gain = point.gradient.cwiseAbs2().cwiseQuotient(diagonal).sum();  // twice the expected one
    if (steps == 0) first_gain = gain;
    if (point.value <= none || !(gain >= 2 * none)) break;
    const double forcing = std::min(options.forcing, std::pow(gain / first_gain, 0.25));
    const VectorXd s = step_of(passes, u, point, diagonal, ridge, forcing, options.products);
    const double highest = point.value + kRoundingOfL * std::abs(point.value);
    double t = 1;
    BalancedFactors next;
    HeadLinearisation there;
    for (;; t /= 4) {
      next = balanced(communicator, u.with(u.numbers() + t * s));
      there = passes.linearise(next.u, loss);
      if (there.value <= highest || t < kShortestStep) break;
    }
    if (!(there.value <= highest)) break;
    ++steps;
    converged = gain < options.tolerance * options.tolerance * first_gain ||
                point.value - there.value < kNoChange * std::abs(point.value);
    damping = std::max(damping * (t == 1 ? 0.1 : 4), kLeastDamping);
    u = std::move(next.u);
    values = std::move(next.values);
    point = std::move(there);
  }
  return {std::move(u), point.value, steps, converged};
}

}  // namespace attnreg
