#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <utility>

#include "heads/head_passes.hpp"

namespace attnreg {

/// Local. The loss at X = 0, about, with which the rounding of B is compared.
double loss_at_zero(const HeadTarget& target, HeadLoss loss);

struct GaussNewtonOptions {
  int steps = 14;
  int products = 20;        ///< at most, of a step
  double tolerance = 1e-3;  ///< of the gradient in the preconditioner's norm, relative to the first one
  double damping = 1e-3;    ///< Levenberg's, relative to the largest preconditioner; x 0.1 after a whole step, else x 4
  double forcing = 0.1;     ///< the residual that a step may leave, at most; less as the gradient falls
  /// Relative decrease of L after which the next step is not worth it: of N numbers with noise L is known to 1 /
  /// sqrt(N) of itself, and p unknowns take p / N of it, a tenth for real heads. With 1e-7 predictions are the same, at
  /// 2 to 5 times the cost.
  double no_change = 1e-4;
  double rounding = 0x1p-23;  ///< of B: an expected gain of the square of it, relative to the loss at X = 0, is none
};

struct GaussNewtonEnd {
  HeadFactors u;
  double value = 0;
  int steps = 0;
  bool converged = false;  ///< before the limit of steps
};

/// The same X with U^T U = V^T V = diag(values), descending. Collective: rank 0 factors, one broadcast. Full X: as it
/// is, values are 1.
struct BalancedFactors {
  HeadFactors u;
  VectorXd values;
};
BalancedFactors balanced(const Communicator& communicator, HeadFactors u);

/// What `minimise` minimises, where `point` is of the type that `linearise` gives: value, gradient, mean_curvature of a
/// logit per sequence, and ridge, the curvature that all factors have beside it.
template <class Problem>
concept GaussNewtonProblem = requires(Problem& problem, const HeadFactors& u, const VectorXd& p) {
  { problem.linearise(u).gradient } -> std::convertible_to<VectorXd>;
  { problem.product(u, problem.linearise(u), p) } -> std::convertible_to<VectorXd>;
  { problem.communicator() } -> std::convertible_to<const Communicator&>;
};

/// The diagonal of the preconditioner: a column of U and V has the curvature of its singular value. Local.
VectorXd diagonal_model(const HeadFactors& u, const VectorXd& values, double curvature, double damping);

/// Conjugate gradients on (J^T C J + damping) s = -g, until the residual in the preconditioner's norm is `forcing` of
/// that of g.
template <GaussNewtonProblem Problem, class Point>
VectorXd damped_step(Problem& problem, const HeadFactors& u, const Point& around, const VectorXd& diagonal,
                     double damping, double forcing, int most_products) {
  VectorXd s = VectorXd::Zero(u.size()), r = -around.gradient, z = r.cwiseQuotient(diagonal), p = z;
  double rz = r.dot(z);
  const double target = forcing * forcing * rz;
  for (int k = 0; k < most_products; ++k) {
    const VectorXd h = problem.product(u, around, p) + damping * p;
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

/// Minimises L from u by Gauss-Newton with conjugate gradients, damped as by Levenberg and Marquardt:
///
///     (J^T C J + damping) s = -g,  u <- balanced(u + t s),  t = 1, 1/4, ... with L(u + t s) <= L(u)
///
/// none: a value of L, and an expected gain of it, that is nothing. Collective. A step is a pass, and a pass for each
/// product. Balanced factors have U^T U = V^T V diagonal, the singular values of the logits: these precondition.
/// Source: Nocedal, Wright, Numerical Optimization, section 10.3.
template <GaussNewtonProblem Problem>
GaussNewtonEnd minimise(Problem& problem, HeadFactors start, double none, const GaussNewtonOptions& options) {
  constexpr double kShortestStep = 1e-3, kLeastDamping = 1e-7, kRoundingOfL = 1e-12;
  auto [u, values] = balanced(problem.communicator(), std::move(start));
  auto point = problem.linearise(u);
  double first_gain = 0, damping = options.damping;
  int steps = 0;
  bool converged = false;
  while (!converged && steps < options.steps) {
    converged = true;  // where no step follows
    const double added = point.mean_curvature * damping * values.maxCoeff();
    const VectorXd diagonal = diagonal_model(u, values, point.mean_curvature, added + point.ridge);
    const double gain = point.gradient.cwiseAbs2().cwiseQuotient(diagonal).sum();  // twice the expected one
    if (steps == 0) first_gain = gain;
    if (point.value <= none || !(gain >= 2 * none)) break;
    const double forcing = std::min(options.forcing, std::pow(gain / first_gain, 0.25));
    const VectorXd s = damped_step(problem, u, point, diagonal, added, forcing, options.products);
    const double highest = point.value + kRoundingOfL * std::abs(point.value);
    double t = 1;
    BalancedFactors next;
    decltype(point) there;
    for (;; t /= 4) {
      next = balanced(problem.communicator(), u.with(u.numbers() + t * s));
      there = problem.linearise(next.u);
      if (there.value <= highest || t < kShortestStep) break;
    }
    if (!(there.value <= highest)) break;
    ++steps;
    converged = gain < options.tolerance * options.tolerance * first_gain ||
                point.value - there.value < options.no_change * std::abs(point.value);
    damping = std::max(damping * (t == 1 ? 0.1 : 4), kLeastDamping);
    u = std::move(next.u);
    values = std::move(next.values);
    point = std::move(there);
  }
  return {std::move(u), point.value, steps, converged};
}

/// Collective. `minimise` on a loss of a head, until what is left of it is the rounding of B.
GaussNewtonEnd gauss_newton(HeadPasses& passes, HeadFactors u, HeadLoss loss, const GaussNewtonOptions& options);

}  // namespace attnreg
