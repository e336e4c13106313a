#include <gtest/gtest.h>
#include <mpi.h>

#include <Eigen/Core>

#include "losses/losses.hpp"
#include "objective/regression_objective.hpp"
#include "support/reference.hpp"
#include "surrogate/sampled_surrogate.hpp"

namespace attnreg::test_sampled_surrogate {

using Eigen::VectorXd;

// On rank 0 or where its rows are, a sample leads to the same ends, with models of the same rows of it.
TEST(SampledSurrogate, FindsTheSameEndsOnAnyNumberOfRanks) {
  constexpr double kMany = 1 << 20;
  const auto problem = reference::random_problem(4000, 6, 1, 1e-3, 1);
  const auto found = [&](MPI_Comm world, double few) {
    const auto data = reference::distribute(Communicator(world), problem, reference::Layout::random);
    RegressionObjective objective(data.A, data.b, data.w, make_loss("softmax"));
    const Point zero = objective.evaluate(VectorXd::Zero(6));
    SampledSurrogate surrogate(objective, 1, {1, 1});
    surrogate.use(zero, VectorXd::Constant(data.A.rows_local(), 0.25), {.seed = 3}, {.few = few});
    return surrogate.minimise_coarsely(zero, {.cross_entropy = true}, 0).candidates;
  };
  const auto alone = found(MPI_COMM_SELF, kMany);
  ASSERT_GE(alone.size(), 2u);  // an end, and the cross-entropy's minimiser
  for (const double few : {kMany, 0.0}) {
    const auto together = found(MPI_COMM_WORLD, few);
    ASSERT_EQ(together.size(), alone.size());
    for (std::size_t k = 0; k < alone.size(); ++k)
      EXPECT_LE((together[k].x - alone[k].x).norm(), 1e-8 * alone[k].x.norm()) << k;
  }
}

}  // namespace attnreg::test_sampled_surrogate
