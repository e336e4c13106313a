#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "heads/head_passes.hpp"
#include "newton/journal.hpp"
#include "ranks/activity.hpp"

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
  std::shared_ptr<Journal> journal{};  ///< of which the iteration is a stage; none: it leaves nothing
  std::string name{};                  ///< for who watches, before the number of the step: "head 3 of 12, "
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
  { problem.matrices(u) } -> std::convertible_to<HeadMatrices>;
  { problem.coordinates(problem.matrices(u)) } -> std::convertible_to<HeadFactors>;
};

/// Where the iteration stands: with its loss, all that it goes on from.
struct GaussNewtonState {
  BalancedFactors at;
  double damping = 0, first_gain = 0;  ///< `first_gain`: what the first step was expected to gain
  int steps = 0;
  bool converged = false;
};

/// Local. What a stage has of a state, with factors like these; none: it is of others.
std::optional<GaussNewtonState> state_in(const Stage& stage, const HeadFactors& like);
HeadMatrices matrices_in(const Stage& stage);  ///< Local. The X of that state, whatever the metric.
/// Local. The state becomes that of the stage.
void leave(const GaussNewtonState& state, double value, const HeadMatrices& X, Journal& journal, Stage& stage,
           bool finished);

/// Collective. Goes to what the stage has, if it is of this loss: its value tells.
template <GaussNewtonProblem Problem, class Point>
bool go_to(const Stage& stage, Problem& problem, GaussNewtonState& now, Point& point) {
  constexpr double kOfStart = 1e-9, kOfValue = 1e-6;
  auto left = state_in(stage, now.at.u);
  if (!left) return false;
  const double value = stage.numbers[0], slack = kOfValue * std::abs(value) + kOfStart * std::abs(point.value);
  Point there = problem.linearise(left->at.u);
  if (!(std::abs(there.value - value) <= slack)) {  // on another number of ranks the metric may have turned
    left->at = balanced(problem.communicator(), problem.coordinates(matrices_in(stage)));
    there = problem.linearise(left->at.u);
  }
  if (!(std::abs(there.value - value) <= slack)) return false;
  now = *std::move(left);
  point = std::move(there);
  return true;
}

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
  GaussNewtonState now{balanced(problem.communicator(), std::move(start)), options.damping};
  auto point = problem.linearise(now.at.u);
  Stage* const stage = options.journal ? &options.journal->open("Gauss-Newton", 0) : nullptr;
  if (stage != nullptr && !stage->empty() && !go_to(*stage, problem, now, point)) options.journal->forget();
  while (!now.converged && now.steps < options.steps && (stage == nullptr || !stage->finished)) {
    auto& [u, values] = now.at;
    note_activity(options.name + "Gauss-Newton step " + std::to_string(now.steps + 1) + ", at most " +
                  std::to_string(options.steps));
    now.converged = true;  // where no step follows
    const double added = point.mean_curvature * now.damping * values.maxCoeff();
    const VectorXd diagonal = diagonal_model(u, values, point.mean_curvature, added + point.ridge);
    const double gain = point.gradient.cwiseAbs2().cwiseQuotient(diagonal).sum();  // twice the expected one
    if (now.steps == 0) now.first_gain = gain;
    if (point.value <= none || !(gain >= 2 * none)) break;
    const double forcing = std::min(options.forcing, std::pow(gain / now.first_gain, 0.25));
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
    ++now.steps;
    now.converged = gain < options.tolerance * options.tolerance * now.first_gain ||
                    point.value - there.value < options.no_change * std::abs(point.value);
    now.damping = std::max(now.damping * (t == 1 ? 0.1 : 4), kLeastDamping);
    now.at = std::move(next);
    point = std::move(there);
    if (stage != nullptr) leave(now, point.value, problem.matrices(now.at.u), *options.journal, *stage, false);
  }
  if (stage != nullptr) leave(now, point.value, problem.matrices(now.at.u), *options.journal, *stage, true);
  return {std::move(now.at.u), point.value, now.steps, now.converged};
}

/// Collective. `minimise` on a loss of a head, until what is left of it is the rounding of B.
GaussNewtonEnd gauss_newton(HeadPasses& passes, HeadFactors u, HeadLoss loss, const GaussNewtonOptions& options);

}  // namespace attnreg
