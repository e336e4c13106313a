#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "algebra/hessian.hpp"

namespace attnreg {

/// A twice differentiable function of x in R^d as the optimiser sees it: a current point, and a direction from it.
/// Nothing above this interface knows of rows, ranks or messages. All vectors are replicated, and so is every result.
/// All members are collective unless they are called Local.
class Objective {
 public:
  virtual ~Objective() = default;

  virtual Eigen::Index dimension() const = 0;  ///< Local.

  /// Moves to x and evaluates from scratch. Two reads of A; one at x = 0, and at the current point, where what is to be
  /// expected is known.
  virtual void move_to(const Eigen::VectorXd& x) = 0;

  // The current point. Local.
  virtual const Eigen::VectorXd& x() const = 0;
  virtual double value() const = 0;
  virtual const Eigen::VectorXd& gradient() const = 0;

  /// The size below which |gradient| may be rounding only (docs/algorithms.md). Cheap unless |gradient| is near it;
  /// then one read.
  virtual double gradient_floor() = 0;

  /// The Hessian at the current point. One read and n d^2 flops.
  virtual Hessian hessian() = 0;

  /// H p. One read, one all-reduce. Keeps A p for `extend_direction`.
  virtual Eigen::VectorXd hessian_product(const Eigen::VectorXd& p) = 0;

  /// Makes a preconditioner from the curvature at the current point; `tired`: the last one served badly, spend more on
  /// this one. Its cost in reads and what it shares with the one before are the objective's business. False if the
  /// model is not finite or not definite; then the old one stays.
  virtual bool refresh_preconditioner(bool /*tired*/) { return false; }
  /// What another preconditioner will cost, in Hessian products. Local, replicated.
  virtual double preconditioner_price() const { return 0; }
  const Preconditioner& preconditioner() const { return preconditioner_; }  ///< Local. Empty before the first refresh.

  /// Sets the direction s. One read.
  virtual void set_direction(const Eigen::VectorXd& s) = 0;
  /// The same, for a step that will probably be taken whole: evaluates at x + s in the same read, and then `step(1)`
  /// costs none if x + s is not too far for it.
  virtual void set_likely_direction(const Eigen::VectorXd& s) { set_direction(s); }
  /// The largest t for which x + t s is worth a trial: beyond, L grows too fast for its model. Up to one all-reduce of
  /// 8 bytes, no read.
  virtual double longest_step() const { return std::numeric_limits<double>::infinity(); }
  /// Sets the direction to zero. Local.
  virtual void clear_direction() = 0;
  /// Adds alpha p, with the p of the last `hessian_product`, to the direction. Local, no read.
  virtual void extend_direction(double alpha) = 0;
  virtual const Eigen::VectorXd& direction() const = 0;  ///< Local.

  /// L(x + t s) - L(x) for each t, in difference form; +inf where it overflows. No read of A, one small all-reduce.
  virtual std::vector<double> change_along(std::span<const double> steps) = 0;

  /// Moves to x + t s, and evaluates there. One read; now and then it also makes A x anew, against drift.
  virtual void step(double t) = 0;

  virtual double reads_of_a() const = 0;         ///< Local.
  virtual std::int64_t collectives() const = 0;  ///< Local. Without those of ScaLAPACK and of vectors to and from it.
  virtual double seconds() const = 0;            ///< Wall-clock of rank 0 at the last evaluation. Local, replicated.

 protected:
  Preconditioner preconditioner_;
};

}  // namespace attnreg
