#pragma once

#include <Eigen/Core>
#include <vector>

#include "attnreg/solver.hpp"
#include "losses/losses.hpp"
#include "newton/minimise.hpp"
#include "objective/regression_objective.hpp"
#include "support/reference.hpp"

namespace attnreg {

/// What came of a whole problem, with every iterate.
struct Solution {
  Eigen::VectorXd x;
  NewtonSummary summary;
  double floor = 0;
  std::vector<IterationRecord> records;
  std::vector<Eigen::VectorXd> iterates;

  bool converged() const {
    return summary.termination == Termination::converged || summary.termination == Termination::converged_rounding;
  }
};

/// Collective over `world`. Spreads the rows at random, some ranks may get none.
inline Solution solve(const reference::Problem& problem, const Eigen::VectorXd& x0, NewtonOptions options = {},
                      MPI_Comm world = MPI_COMM_WORLD) {
  const Communicator comm(world);
  const auto data = reference::distribute(comm, problem, reference::Layout::random);
  RegressionObjective objective(data.A, data.b, data.w, make_loss(problem.loss));
  Solution out;
  Point point = objective.evaluate(x0);
  options.on_iteration = [&](const IterationRecord& record) {
    out.records.push_back(record);
    out.iterates.push_back(point.x);
  };
  out.summary = newton(objective, point, options);
  out.x = point.x;
  out.floor = objective.gradient_floor(point, objective.norm(point.gradient));
  return out;
}

inline Solution solve(const reference::Problem& problem, const NewtonOptions& options = {}) {
  return solve(problem, Eigen::VectorXd::Zero(problem.A.cols()), options);
}

}  // namespace attnreg
