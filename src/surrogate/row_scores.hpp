#pragma once

#include <Eigen/Core>
#include <utility>

#include "objective/regression_objective.hpp"

namespace attnreg {

// Probabilities with which rows are kept in a sample. Vectors are this rank's rows.

/// Collective, one all-reduce. For a first sample, at a point where no model has been made: by what is known without a
/// read, the fit to come (f = b), the curvature at the point, and the norms of the rows; about 50 d rows.
Eigen::VectorXd first_probabilities(const RegressionObjective& objective, const Point& point);

/// Row i has the score s_i t_i, s = |delta| + w^2, with the norms t_i = |a_i^T N|^2 of a projected factor of a model.
class RowScores {
 public:
  /// Collective, one all-reduce of 8 bytes. t: this rank's rows.
  RowScores(const RegressionObjective& objective, const Point& point, const Eigen::VectorXd& t);

  /// About c d rows by their scores, 5 % of them spread evenly, and rows by f, 20 d more. Local.
  Eigen::VectorXd probabilities(double c) const;
  /// Collective, one all-reduce of 16 bytes. The variances of the errors of two samples' Hessians, up to a factor.
  std::pair<double, double> variances(const Eigen::VectorXd& probabilities, const Eigen::VectorXd& others,
                                      const Communicator& communicator) const;
  /// Local, replicated. The sum of the scores over d: 1 if the model is that of the point.
  double total() const { return total_; }

 private:
  double d_, n_, total_ = 0;
  Eigen::VectorXd scores_, f_;
};

}  // namespace attnreg
