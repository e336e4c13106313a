#pragma once

#include <Eigen/Core>
#include <optional>

#include "objective/regression_objective.hpp"

namespace attnreg {

// Probabilities with which rows are kept in a sample. Vectors are this rank's rows.

/// Collective, one all-reduce. For a first sample, at a point where no model has been made: by what is known without a
/// read, the fit to come (f = b), the curvature at the point, and the norms of the rows; about 50 d rows.
Eigen::VectorXd first_probabilities(const RegressionObjective& objective, const Point& point);
double most_first_rows(Eigen::Index d);  ///< Local. Of such a sample, about, at most.

/// Row i has the score s_i t_i, s = |delta| + w^2, with the norms t_i = |a_i^T N|^2 of a projected factor of a model. A
/// fresh sample has about c d rows by their scores, 5 % of them spread evenly, and rows by f, 20 d more.
class RowScores {
 public:
  /// Sums over all rows, from f and delta of a point.
  struct Sums {
    double total = 0;                      ///< of the scores
    double present = 0;                    ///< the variance of the error of the present sample's Hessian, about
    double fresh = 0, fresh_of_twice = 0;  ///< those of samples with c and with 2 c
    double rows = 0, rows_of_twice = 0;    ///< of such samples, about
    /// Of samples with 2 c.
    Sums of_twice() const { return {total, present, fresh_of_twice, 0, rows_of_twice, 0}; }
  };
  /// What finds the sums out in the read of a point. t, present: must outlive it; t may be made in the same read.
  static RegressionObjective::Besides in_read(const RegressionObjective& objective, const Eigen::VectorXd& t, double c,
                                              const Eigen::VectorXd& present);
  static Sums sums_of(const RegressionObjective::Besides& read) {
    return {read.sums[0], read.sums[1], read.sums[2], read.sums[3], read.sums[4], read.sums[5]};
  }

  /// Collective: without sums one all-reduce of 48 bytes, or two; with sums none, unless they are too large. t,
  /// present: this rank's rows; `present`: the probabilities of the sample there is.
  RowScores(const RegressionObjective& objective, const Point& point, const Eigen::VectorXd& t, double c,
            const Eigen::VectorXd& present, const std::optional<Sums>& known);

  Eigen::VectorXd probabilities() const;  ///< Local. Of a fresh sample; drops the point's curvatures.
  // Local, replicated.
  double total() const { return total_; }  ///< The sum of the scores over d: 1 if the model is that of the point.
  /// The variance of the error of the present sample's Hessian, in units of a fresh one's.
  double variance() const { return variance_; }
  double rows() const { return rows_; }  ///< Of a fresh sample, about.

 private:
  const RegressionObjective& objective_;
  const Point& point_;
  const Eigen::VectorXd& t_;
  double c_, factor_ = 1;
  double total_ = 0, variance_ = 0, rows_ = 0;
};

/// Collective, one all-reduce of 8 bytes. `RowScores::total`.
double score_total(const RegressionObjective& objective, const Point& point, const Eigen::VectorXd& t);

}  // namespace attnreg
