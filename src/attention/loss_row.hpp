#pragma once

#include <Eigen/Core>
#include <span>

#include "losses/loss.hpp"

namespace attnreg {

using ArrayRow = Eigen::Ref<Eigen::ArrayXd>;
using ConstArrayRow = const Eigen::Ref<const Eigen::ArrayXd>&;

/// A row z of the logits A1 X A2^T with its target b: a vector regression of its own, all of whose sums are over the
/// row at hand (docs/attention.md). Moves from row to row; local, one for each thread.
class LossRow {
 public:
  /// `keys`: n2, the length of a row. The loss must outlive it.
  LossRow(const Loss& loss, Eigen::Index keys);

  /// Looks at another row, which must stay where it is as long. visible: the keys that it sees, if not all; the others
  /// are left out of all sums.
  void move_to(std::span<const double> z, std::span<const double> b, std::span<const Eigen::Index> visible = {});
  double value() const { return point_.value; }  ///< phi(z); +inf or NaN where it overflows
  double misfit();                               ///< |f - b|^2, f what reproduces b: `Loss::fit`
  /// phi(z + y) - phi(z) without cancellation; +inf or NaN where it overflows. y is overwritten.
  double change(ArrayRow y) const;
  /// Of a row of all keys what belongs to the visible ones.
  Eigen::ArrayXd visible(ConstArrayRow row) const;
  /// The inverse; 0 at the others.
  void spread(const Eigen::ArrayXd& of_visible, ArrayRow row) const;

  /// Makes what follows: the derivatives at z.
  void differentiate();
  // Of the visible keys.
  const Eigen::ArrayXd& gradient() const { return q_; }
  const Eigen::ArrayXd& weights() const { return c_; }        ///< f of `HessianForm`
  const Eigen::ArrayXd& curvature() const { return delta_; }  ///< delta
  const LossPoint& point() const { return point_; }
  /// t becomes Hess phi t.
  void multiply_hessian(ArrayRow t) const;

  /// A positive semidefinite model of Hess phi: diag(delta) - c m^T - m c^T + self c c^T. It is never below the
  /// Hessian, see `LossDerivatives::positive`. Of the visible keys.
  struct Model {
    const Eigen::ArrayXd &delta, &c, &m;
    double self;
  };
  Model model();

 private:
  void resize(Eigen::Index keys);
  void look_at(std::span<const double> z, std::span<const double> b);
  double change_of_visible(ArrayRow y) const;
  void multiply_visible(ArrayRow t) const;

  const Loss& loss_;
  std::span<const Eigen::Index> visible_;  ///< empty: all
  LossRows rows_;
  LossPoint point_;
  Eigen::ArrayXd exponentials_, slopes_, fit_, q_, c_, delta_, positive_, coupling_, self_;
  Eigen::ArrayXd z_, b_;  ///< of the visible keys, unless these are all
};

/// Local. The numbers of a row at some places.
Eigen::ArrayXd gathered(ConstArrayRow row, std::span<const Eigen::Index> places);
/// Local. The inverse; 0 elsewhere.
void scatter(const Eigen::ArrayXd& values, std::span<const Eigen::Index> places, ArrayRow row);

/// Local. u = softmax(z); returns log <exp(z), 1>. z and u may be the same memory.
double softmax_row(ConstArrayRow z, ArrayRow u);

/// Local. y becomes softmax(z + y) - softmax(z), f = softmax(z), accurate also for small y; NaN where it overflows.
void softmax_change(ConstArrayRow f, ArrayRow y);

}  // namespace attnreg
