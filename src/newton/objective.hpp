#pragma once

#include <Eigen/Core>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "algebra/hessian.hpp"

namespace attnreg {

/// What an objective itself keeps of a point or a direction, numbers of its rows for example. Only the objective that
/// made it looks into it.
struct ObjectiveState {
  virtual ~ObjectiveState() = default;
};

/// An objective L at one x. It is moved, not copied, since its state may have vectors as long as this rank's rows.
struct Point {
  Eigen::VectorXd x;           ///< d
  double value = 0;            ///< L(x); +inf where it overflows
  Eigen::VectorXd gradient{};  ///< d
  double seconds = 0;          ///< wall-clock of rank 0 at the evaluation, since the objective was made
  std::unique_ptr<ObjectiveState> state{};
};

/// What rounding has done to numbers u_i that stand for a_i . v: |u_i - a_i . v| <= |a_i| . columns + level.
/// Replicated.
struct ProductRounding {
  Eigen::VectorXd columns{};  ///< d, >= 0; empty: nobody asks for it
  double level = 0;

  bool is_known() const { return columns.size() > 0; }
};

/// A direction s in which to leave a point.
struct Direction {
  Eigen::VectorXd s;                        ///< d
  Eigen::VectorXd As{};                     ///< A s, this rank's rows; empty where the objective has no use for it
  std::unique_ptr<ObjectiveState> ahead{};  ///< what was found out about x + s in the read that made A s
  ProductRounding rounding{};               ///< of As

  /// Local. Adds alpha p, and alpha A p.
  void add(double alpha, const Direction& p) {
    s += alpha * p.s;
    As += alpha * p.As;
    ahead.reset();
    if (!rounding.is_known()) return;
    // Twice what the sums and products of s and of A s are rounded by, the latter being at most |a_i| . |s| large.
    constexpr double kTwoRoundings = 2 * std::numeric_limits<double>::epsilon();
    rounding.columns +=
        std::abs(alpha) * p.rounding.columns + kTwoRoundings * (s.cwiseAbs() + std::abs(alpha) * p.s.cwiseAbs());
    rounding.level += std::abs(alpha) * p.rounding.level;
  }
};

/// A step x + t s along a direction.
struct Trial {
  double t = 0;
  double change = 0;                  ///< L(x + t s) - L(x), where the step was tried; +inf where it overflows
  std::optional<double> reference{};  ///< what the trial found out for `Objective::step`
};

/// A twice differentiable function L of x in R^d as the optimiser sees it. Points and directions are values: no
/// function has to be called before another. Nothing above this interface knows of ranks or messages. Vectors of length
/// d are replicated, and so is every number. All members are collective unless they are called Local.
class Objective {
 public:
  virtual ~Objective() = default;

  virtual Eigen::Index dimension() const = 0;  ///< Local.

  /// From scratch. Two reads of A; one at x = 0. x: d, finite.
  virtual Point evaluate(const Eigen::VectorXd& x) = 0;
  /// The point evaluated anew, from a fresh A x: one read, since what is to be expected is known.
  virtual Point refreshed(Point point) { return evaluate(point.x); }

  /// The size of a gradient in the norm of the stopping tests, which does not depend on the units of x. Local.
  virtual double norm(const Eigen::VectorXd& gradient) const { return gradient.norm(); }
  /// Its Euclidean norm in the caller's units of x. Local.
  virtual double callers_norm(const Eigen::VectorXd& gradient) const { return gradient.norm(); }
  /// The `norm` below which a gradient may be rounding only (docs/algorithms.md); an upper bound on it where that is
  /// below `enough`, which is cheap. Else one read.
  virtual double gradient_floor(const Point& point, double enough) = 0;

  /// One read and n d^2 flops. Of no use where `is_stopped` afterwards: rows may be missing.
  virtual Hessian hessian(const Point& point) = 0;
  /// H p.s, and p.As in the same read. One read, one all-reduce. Of no use where `is_stopped` afterwards.
  virtual Eigen::VectorXd hessian_product(const Point& point, Direction& p) = 0;

  /// A direction along which H may have negative curvature, at a point with a small gradient; none where the model
  /// shows that H is positive semidefinite, or nothing is known. Cheap beside a preconditioner.
  virtual std::optional<Eigen::VectorXd> suspected_descent(const Point& /*point*/) { return std::nullopt; }

  /// The estimated rounding error of s^T H s: a curvature that is less has no sign. Up to two all-reduces, no read.
  virtual double curvature_rounding(const Point& /*point*/, const Direction& /*s*/) const { return 0; }

  /// Makes a preconditioner from the curvature at the point; `tired`: the last one served badly, spend more on this
  /// one. Its cost in reads and what it shares with the one before are the objective's business. False if the model is
  /// not finite or not definite, or once `is_stopped`; then the old one stays.
  virtual bool refresh_preconditioner(const Point& /*point*/, bool /*tired*/) { return false; }
  /// What another preconditioner will cost, in Hessian products. Local, replicated.
  virtual double preconditioner_price() const { return 0; }
  /// Local. Forgets all models and what they were made from, as if none had been made yet.
  virtual void forget_models() { preconditioner_ = {}; }
  const Preconditioner& preconditioner() const { return preconditioner_; }  ///< Local. The last one; empty: none yet.

  /// One read; none for s = 0.
  virtual Direction direction(const Eigen::VectorXd& s) { return {s}; }
  /// The same for a step that will probably be taken whole: x + s is evaluated in the same read, and the step with t =
  /// 1 costs none if x + s is not too far for it.
  virtual Direction likely_direction(const Point& /*point*/, const Eigen::VectorXd& s) { return direction(s); }
  /// The largest t for which x + t s is worth a trial: beyond, L grows too fast for its model. Up to one all-reduce of
  /// 8 bytes, no read.
  virtual double longest_step(const Direction& /*direction*/) const { return std::numeric_limits<double>::infinity(); }

  /// Tries up to four steps. No read of A, one small all-reduce. The changes of L are made in difference form.
  virtual std::vector<Trial> try_steps(const Point& point, const Direction& direction,
                                       std::span<const double> steps) = 0;
  /// The point x + t s; `trial` was tried, or is {.t = t}. One read; now and then it also makes A x anew, against
  /// drift.
  virtual Point step(Point point, Direction direction, const Trial& trial) {
    return evaluate(point.x + trial.t * direction.s);
  }

  /// Local, replicated. Whether a message has told that the ranks were asked to stop.
  virtual bool is_stopped() const { return false; }
  /// Local, replicated. Likewise for a checkpoint, since the last call.
  virtual bool takes_checkpoint() { return false; }
  virtual double reads_of_a() const = 0;         ///< Local.
  virtual std::int64_t collectives() const = 0;  ///< Local. Without those of ScaLAPACK and of vectors to and from it.

 protected:
  Preconditioner preconditioner_;
};

}  // namespace attnreg
