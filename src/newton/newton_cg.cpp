#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "newton/line_search.hpp"
#include "newton/minimise.hpp"
#include "newton/progress.hpp"
#include "newton/saddle.hpp"

namespace attnreg {

namespace {

using Eigen::VectorXd;

constexpr double kLoosestForcing = 0.1;
constexpr int kMaxConjugateGradients = 40;  // one Newton step
constexpr int kTired = 12;                  // products in a step that call for a better preconditioner
constexpr double kTiredPerDecade = 6;       // more for every decade of a tighter forcing term
constexpr double kNoCurvature = 1e-13;      // relative to M: rounding, along a null direction
constexpr double kMissedCurvature = 4;      // H <= its positive part: a good model has a ratio near or below 1

struct ConjugateGradients {
  int iterations = 0;
  bool on_boundary = false;
  bool finite = true;
  double forcing = kLoosestForcing;
  Direction step;          // s
  VectorXd residual;       // g + H s of the model
  double first_ratio = 0;  // p^T H p / p^T M p of the first direction

  /// Whether the preconditioner served badly: too many products, or it misses most of the curvature of its own step.
  bool tired() const { return iterations > tiring(forcing) || first_ratio > kMissedCurvature; }
  static double tiring(double forcing) { return kTired + kTiredPerDecade * std::log10(kLoosestForcing / forcing); }
};

/// When another model of the Hessian pays: as soon as the products that an ageing one cost, beyond those of a fresh
/// one, add up to the price of a new one. In hindsight that is at most twice as dear as the best choice.
class ModelAge {
 public:
  bool is_fresh() const { return steps_ == 0; }
  int steps() const { return steps_; }
  bool pays(double price, const ConjugateGradients& last) const { return excess_ >= price || last.tired(); }
  void renewed() { steps_ = 0, rate_ = 0, excess_ = 0; }
  void used(const ConjugateGradients& cg) {
    const double decades = -std::log10(cg.forcing);
    if (is_fresh())
      rate_ = cg.iterations / decades;
    else
      excess_ += std::max(0.0, cg.iterations - rate_ * decades);
    ++steps_;
  }

 private:
  int steps_ = 0;                 // since it was made
  double rate_ = 0, excess_ = 0;  // products per decade of the residual with the fresh model; products in all
};

/// The t >= 0 with |s + t p|_M = radius; 1 when there is no radius yet.
double to_boundary(const Preconditioner& M, const VectorXd& s, const VectorXd& p, double radius) {
  if (!std::isfinite(radius)) return s.isZero(0) ? 1 : 0;
  // |s + t p|^2 = radius^2, with s^T M p from the parallelogram of norms
  const double p2 = std::pow(M.norm(p), 2), s2 = std::pow(M.norm(s), 2);
  const double sp = 0.25 * (std::pow(M.norm(s + p), 2) - std::pow(M.norm(s - p), 2));
  const double gap = std::max(0.0, radius * radius - s2), root = std::sqrt(sp * sp + p2 * gap);
  return sp > 0 ? gap / (sp + root) : (root - sp) / p2;
}

/// An approximate minimiser of the quadratic model within the radius (Steihaug 1983, Toint 1981): stops at the
/// boundary, at negative curvature, or when the residual in the norm of M^-1 has shrunk by the factor `forcing`.
ConjugateGradients minimise_model(Objective& objective, const Point& point, double radius, double forcing,
                                  int max_iterations) {
  const Preconditioner& M = objective.preconditioner();
  ConjugateGradients cg;
  cg.forcing = forcing;
  cg.step = objective.direction(VectorXd::Zero(point.x.size()));
  VectorXd r = point.gradient, v = M.solve(r);
  Direction p{-v};
  double rv = r.dot(v), size = rv;  // |p|_M^2
  const double target = forcing * forcing * rv;
  while (cg.iterations < max_iterations && rv > 0 && !objective.is_stopped()) {
    const VectorXd Hp = objective.hessian_product(point, p);
    ++cg.iterations;
    const double curvature = p.s.dot(Hp);
    cg.finite = std::isfinite(curvature) && std::isfinite(rv);
    if (!cg.finite) break;
    if (cg.iterations == 1) cg.first_ratio = curvature / rv;  // p^T M p = r^T M^-1 r there
    if (std::abs(curvature) <= kNoCurvature * size) break;
    const double alpha = rv / curvature;
    cg.on_boundary = curvature <= 0 || M.norm(cg.step.s + alpha * p.s) > radius;
    cg.step.add(cg.on_boundary ? to_boundary(M, cg.step.s, p.s, radius) : alpha, p);
    if (cg.on_boundary) break;
    r += alpha * Hp;
    v = M.solve(r);
    const double rv_next = r.dot(v);
    if (rv_next <= target) break;
    p.s = -v + rv_next / rv * p.s;
    size = rv_next + std::pow(rv_next / rv, 2) * size;
    rv = rv_next;
  }
  cg.residual = std::move(r);
  return cg;
}

/// How far the model's residual has to shrink: to what the model is worth, by its last prediction (Eisenstat and Walker
/// 1996), but not below the tolerance.
double forcing_term(double relative_gradient, double mismatch, const NewtonOptions& options) {
  const double forcing = std::min({kLoosestForcing, std::sqrt(relative_gradient), mismatch});
  return std::max(forcing, std::min(kLoosestForcing, 0.1 * options.relative_tolerance / relative_gradient));
}

}  // namespace

NewtonSummary newton_cg(Objective& objective, Point& point, const NewtonOptions& options, bool has_model) {
  check(options);
  Progress progress(objective, point, options);
  double radius = progress.radius();
  ConjugateGradients cg;
  ModelAge age;
  bool near = has_model;  // the last step was taken whole, inside the region
  double mismatch = 1;    // of the last step's model: |g - its residual| / |g before|

  if (progress.was_finished()) return progress.summary();

  for (;;) {
    if (progress.finished()) {
      if (!progress.has_converged() || progress.is_stopped()) return progress.summary();
      auto down = negative_curvature(objective, point);
      if (progress.is_stopped()) return progress.summary(Termination::stopped);
      if (!down) return progress.summary();
      if (!progress.may_go_on()) return progress.summary(Termination::saddle);
      const Trial trial = search_line(objective, point, *down, false);
      if (progress.is_stopped()) return progress.summary(Termination::stopped);
      if (!(trial.t > 0 && trial.change < 0)) return progress.summary(Termination::saddle);
      point = objective.step(std::move(point), std::move(*down), trial);
      near = false;
      progress.stepped(trial, radius);
      continue;
    }
    if (!near || age.pays(objective.preconditioner_price(), cg)) {
      const bool tired = age.steps() == 1 && cg.tired();  // though it was new
      if (objective.refresh_preconditioner(point, tired)) age.renewed();
      if (progress.is_stopped()) return progress.summary(Termination::stopped);
      if (objective.preconditioner().empty()) return progress.summary(Termination::breakdown);
    }
    progress.saw_singular(objective.preconditioner().is_singular());
    const double forcing = forcing_term(progress.relative_gradient(), mismatch, options);
    const auto patience = age.is_fresh() ? kMaxConjugateGradients : static_cast<int>(cg.tiring(forcing)) + 1;
    cg = minimise_model(objective, point, radius, forcing, patience);
    age.used(cg);
    if (progress.is_stopped()) return progress.summary(Termination::stopped);
    if (!cg.finite) return progress.summary(Termination::breakdown);

    const double norm = objective.norm(point.gradient), length = objective.preconditioner().norm(cg.step.s);
    const Trial trial = search_line(objective, point, cg.step, cg.on_boundary);
    if (progress.is_stopped()) return progress.summary(Termination::stopped);
    if (trial.t == 0) return progress.no_decrease();

    point = objective.step(std::move(point), std::move(cg.step), trial);
    near = trial.t == 1 && !cg.on_boundary;
    mismatch = near ? objective.norm(point.gradient - cg.residual) / norm : 1;
    radius = next_radius(radius, length, cg.on_boundary, trial.t);
    progress.stepped(trial, radius, cg.iterations);
    if (progress.leaves_checkpoint(radius)) return newton_cg(objective, point, options);
  }
}

}  // namespace attnreg
