// Samples of rows, and surrogates on them, of problems with offsets of the logits and masked rows.

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <string>

#include "attnreg/regression.hpp"
#include "losses/losses.hpp"
#include "objective/regression_objective.hpp"
#include "support/reference.hpp"
#include "surrogate/row_sample.hpp"

namespace attnreg::test_offset_samples {

using Eigen::VectorXd;

/// `masks`: every third row is masked, and 100 times as long.
reference::Problem tall_problem(const std::string& loss, bool masks, Index rows, double weight) {
  reference::Problem problem = reference::random_problem(rows, 8, 1, weight, 7);
  problem.loss = loss;
  problem.offset = 2 * reference::random_vector(rows, 8);
  for (Index i = 0; masks && i < rows; i += 3) {
    problem.offset[i] = -std::numeric_limits<double>::infinity();
    problem.A.row(i) *= 100;
    if (loss == "cross-entropy") problem.b[i] = 0;
  }
  return problem;
}

TEST(OffsetSamples, OfAllRowsAreTheObjective) {
  const Communicator comm(MPI_COMM_WORLD);
  const VectorXd x0 = reference::random_vector(8, 5), x = x0 + 0.3 * reference::random_vector(8, 6);
  for (const std::string loss : {"softmax", "cross-entropy"})
    for (const bool masks : {false, true})
      for (const double few : {1e9, 0.0}) {  // sent to rank 0, or none
        SCOPED_TRACE(loss + (masks ? ", masks" : ""));
        const auto problem = tall_problem(loss, masks, 500, 1e-2);
        const auto data = reference::distribute(comm, problem, reference::Layout::random);
        const auto columns =
            std::make_shared<const ScaledColumns>(data.A, true, LogitOffsets(comm, data.offset, false));
        RegressionObjective objective(columns, data.b, data.w, make_loss(loss));
        const Point base = objective.evaluate(x0), there = objective.evaluate(x);
        const double target = comm.sum(objective.b().sum());
        const VectorXd all = VectorXd::Ones(data.A.rows_local());
        const RowSample sample(objective, base, all, {.seed = 3, .iteration = 5}, {few});
        if (!sample.is_here()) continue;
        const auto sampled = sample.problem(loss, sample.b(), sample.weights_squared(), target);
        const Point found = sampled->objective.evaluate(x);
        EXPECT_NEAR(found.value, there.value, 1e-12 * std::abs(there.value));
        EXPECT_LE(objective.norm(found.gradient - there.gradient), 1e-11 * objective.norm(base.gradient));
      }
}

// Tall enough for samples that leave rows out.
TEST(OffsetSamples, SurrogatesServe) {
  for (const std::string loss : {"softmax", "cross-entropy"})
    for (const bool masks : {false, true}) {
      SCOPED_TRACE(loss + (masks ? ", masks" : ""));
      const auto problem = tall_problem(loss, masks, 20000, 1e-5);
      const auto data = reference::distribute(Communicator(MPI_COMM_WORLD), problem, reference::Layout::random);
      RegressionOptions options;
      options.loss = loss;
      options.offset = data.offset;
      options.method = Method::surrogate;
      const RegressionResult result = solve_regression(data.A, data.b, data.w, options);
      options.method = Method::newton;
      options.start = Start::given;
      options.x0 = result.x;
      const RegressionResult expected = solve_regression(data.A, data.b, data.w, options);
      EXPECT_EQ(result.summary.termination, Termination::converged);
      EXPECT_LE((result.x - expected.x).norm(), 1e-6 * expected.x.norm());
      EXPECT_GT(result.sample_reads, 0);
      EXPECT_LE(result.summary.iterations, 12);  // without the offsets of their rows samples would not serve
    }
}

}  // namespace attnreg::test_offset_samples
