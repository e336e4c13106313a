#pragma once

#include <Eigen/Core>
#include <memory>
#include <optional>
#include <string>

#include "attnreg/row_storage.hpp"

namespace attnreg::hunt {

/// L(x) = phi(A x + offset) + 1/2 |diag(w) A x|^2.
struct Problem {
  RowMajorMatrix A;
  Eigen::VectorXd b, w;
  std::string loss;
  Eigen::VectorXd offset{};  ///< empty: 0
};

/// What is true of a problem at a point: computed with 50 digits, rounded at the end.
struct Truth {
  double value = 0;              ///< L
  double value_rounding = 0;     ///< what a sum in double, A x included, may lose of it
  double gradient = 0;           ///< |g|, in the norm in which the solver states it
  double gradient_rounding = 0;  ///< what a gradient in double, of an exact A x, may lose, in that norm
  double least_eigenvalue = 0;   ///< of H
  /// The least eigenvalue of S^-1 H S^-1, S_j^2 the sum of the sizes of all terms of H_jj. It has the sign of the one
  /// of H and does not depend on the units of the columns; 0 if it is below 1e-40.
  double least_curvature = 0;
  double largest_entry = 0;  ///< of H, with its sign left out
};

/// One problem, in 50 digits. The formulas are those of docs/losses.md and docs/algorithms.md, section 1.
class ExactProblem {
 public:
  explicit ExactProblem(const Problem& problem);
  ~ExactProblem();
  ExactProblem(const ExactProblem&) = delete;
  ExactProblem& operator=(const ExactProblem&) = delete;

  Truth at(const Eigen::VectorXd& x) const;

  /// |x - x*|, in the norm in which the certificate bounds it: x* is the minimum to which Newton's method leads from x,
  /// or from 0, or from 0 with ridges that fall to the problem's own. Steps are halved while neither L nor |g| falls.
  /// Nothing if a Hessian on all ways is not positive definite.
  std::optional<double> distance_to_minimum(const Eigen::VectorXd& x) const;

  /// The largest error of the gradient and the Hessian, relative to their largest entries, against central differences
  /// of L and of the gradient: some 1e-20.
  double error_of_derivatives(const Eigen::VectorXd& x) const;

 private:
  struct Parts;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace attnreg::hunt
