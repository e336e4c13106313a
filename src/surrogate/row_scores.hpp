#pragma once

#include <Eigen/Core>
#include <utility>

#include "objective/regression_objective.hpp"

namespace attnreg {

// Probabilities with which rows are kept in a sample. Vectors are this rank's rows.

/// Collective, one all-reduce. For a first sample, at a point where no model has been made: by what is known without a
/// read, the fit to come (f = b), the curvature at the point, and the norms of the rows; about 50 d rows.
Eigen::VectorXd first_probabilities(const RegressionObjective& objective, const Point& point);

/// Row i has the score s_i t_i, s = |delta| + w^2, with the norms t_i = |a_i^T N|^2 of a projected factor of a model. A
/// fresh sample has about c d rows by their scores, 5 % of them spread evenly, and rows by f, 20 d more.
class RowScores {
 public:
  /// Collective, one all-reduce of 24 bytes, or two. t, present: this rank's rows; `present`: the probabilities of the
  /// sample there is.
  RowScores(const RegressionObjective& objective, const Point& point, const Eigen::VectorXd& t, double c,
            const Eigen::VectorXd& present);

  Eigen::VectorXd probabilities() && { return std::move(probabilities_); }  ///< Local. Of a fresh sample.
  // Local, replicated.
  double total() const { return total_; }  ///< The sum of the scores over d: 1 if the model is that of the point.
  /// The variance of the error of the present sample's Hessian, in units of a fresh one's.
  double variance() const { return variance_; }

 private:
  Eigen::VectorXd probabilities_;
  double total_ = 0, variance_ = 0;
};

/// Collective, one all-reduce of 8 bytes. `RowScores::total`.
double score_total(const RegressionObjective& objective, const Point& point, const Eigen::VectorXd& t);

}  // namespace attnreg
