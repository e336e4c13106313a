#pragma once

#include <Eigen/Core>
#include <memory>
#include <optional>
#include <vector>

#include "attnreg/regression.hpp"
#include "objective/regression_objective.hpp"
#include "regression/fit.hpp"
#include "regression/start_point.hpp"
#include "surrogate/surrogate.hpp"

namespace attnreg {

/// One regression, from x = 0 on.
class Regression {
 public:
  /// Collective. Evaluates x = 0, and chooses the method. b must outlive it. Throws as `solve_regression`.
  Regression(const std::shared_ptr<const ScaledColumns>& columns, const Eigen::VectorXd& b, const RidgeWeights& w,
             const RegressionOptions& options);

  RegressionObjective& objective() { return objective_; }

  /// Collective. Makes the other's first model, unless it is there, and takes over the scores behind it.
  void share_scores_of(Regression& other);

  /// Collective. Whether it works on samples for which the Gram matrix of the regulariser pays, if `others` share it.
  bool wants_ridge_gram(int others) const;
  /// Collective. Makes the other's Gram matrix of the regulariser, unless it is there, and takes it over.
  void share_ridge_gram_of(Regression& other);

  /// Collective. Once.
  RegressionResult run();

 private:
  void choose_method();
  StartPoint first_start();
  std::optional<StartPoint> next_start(int k);
  Method start_method() const { return result_.method == Method::newton ? Method::newton : Method::newton_cg; }
  NewtonSummary solve_from(StartPoint& start);
  NewtonSummary solve_by_samples(StartPoint& start);
  void remove_null_directions();
  bool is_centred() const { return objective_.loss().is_shift_invariant(); }
  bool is_far() const;
  void look_for_minimiser();
  void certify_result();

  const RowMatrix& A_;
  RegressionOptions options_;
  RegressionObjective objective_;
  Point point_;
  Target target_;
  RegressionResult result_;
  Eigen::VectorXd x0_;
  double value_at_zero_ = 0;
  bool all_rows_at_first_ = false;
  bool is_singular_ = false;  // in one of the solves columns depended on others
  bool is_first_solve_ = true;
  bool starts_on_sample_ = false;
  std::vector<SampledEnd> ends_;  // of starts on a sample
  std::string start_;             // the name of the one that is solved from
};

}  // namespace attnreg
