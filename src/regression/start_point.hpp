#pragma once

#include <string>
#include <vector>

#include "attnreg/regression.hpp"
#include "objective/regression_objective.hpp"

namespace attnreg {

/// Where a solve starts, and why there.
struct StartPoint {
  Eigen::VectorXd x;
  Start kind = Start::zero;
  std::string name;    ///< "zero", "cross-entropy", "file", "random 2"
  int iterations = 0;  ///< spent on it
};

/// Which of the two methods that start anywhere is cheaper: reads of A, or their equivalent in arithmetic, per step.
/// Local, replicated.
Method cheaper_method(std::int64_t rows, Eigen::Index columns, const SamplingOptions& sampling);

/// Collective. Minimises by `newton` or `newton_cg`.
NewtonSummary minimise(Method method, Objective& objective, Point& point, const NewtonOptions& options);

/// Collective. The start that the options ask for, by a test at x = 0, where `point` is, if they leave it open.
/// Says in `notes` what was decided and why. One read and a model for the test, and what the cross-entropy start takes.
StartPoint choose_start(RegressionObjective& objective, const Point& point, const RegressionOptions& options,
                        Method method, std::vector<std::string>& notes);

/// Collective, one read. Start number `k` >= 1 of the random ones: Gaussian in the metric of the objective's
/// preconditioner, scaled so that the logits A x have standard deviation 2.
StartPoint random_start(const RegressionObjective& objective, std::uint64_t seed, int k);

}  // namespace attnreg
