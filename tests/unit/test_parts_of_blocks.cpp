// A block of so much work that its passes have several parts: x has the bits of one thread with two.

#include <gtest/gtest.h>
#include <omp.h>

#include <functional>
#include <string>

#include "attnreg/regression.hpp"
#include "rows/row_passes.hpp"
#include "support/attention_problems.hpp"
#include "support/reference.hpp"

namespace attnreg::test_parts_of_blocks {

using Eigen::VectorXd;
using reference::Holding;
using Solve = std::function<VectorXd(const Communicator&)>;

VectorXd of_one_block(int threads, const Solve& solve) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(threads);
  VectorXd x;
  Communicator(MPI_COMM_SELF).in_blocks({1}, [&](const Communicator& block) { x = solve(block); });
  omp_set_num_threads(before);
  return x;
}

void expect_the_same_bits(const Solve& solve) {
  const VectorXd expected = of_one_block(1, solve);
  ASSERT_TRUE(expected.size() > 0 && expected.allFinite());
  EXPECT_TRUE(of_one_block(2, solve) == expected);
}

TEST(PartsOfBlocks, OfARegression) {
  reference::Problem problem = reference::random_problem(15000, 40, 0.2, 1e-4, 9);
  problem.A.array() *= (problem.A.array().abs() > 0.01).cast<double>();
  for (const Holding holding : {Holding::float64, Holding::sparse64})
    for (const Method method : {Method::newton, Method::surrogate}) {
      SCOPED_TRACE(std::string(method_name(method)) + (holding == Holding::sparse64 ? " of sparse rows" : ""));
      RegressionOptions options;
      options.method = method;
      options.newton.max_iterations = 3;
      expect_the_same_bits([&](const Communicator& block) {
        const auto data = reference::distribute(block, problem, reference::Layout::tiled, holding);
        EXPECT_GT(RowPasses::parts(static_cast<double>(data.A.entries_local())), 1);
        return solve_regression(data.A, data.b, data.w, options).x;
      });
    }
}

TEST(PartsOfBlocks, OfAnAttention) {
  using namespace attention_problems;
  auto planted = plant({1100, 1000, 5, 4, 0, 0}, 2, 1, 1, 6);
  for (auto& whole : planted.sequences) whole.target.array() *= 1 + 0.1 * (31 * whole.target.array()).sin();
  expect_the_same_bits([&](const Communicator& block) {
    const std::vector sequences{distributed(block, planted.sequences.front(), reference::Layout::even)};
    AttentionOptions options;
    options.newton.max_iterations = 1;
    return VectorXd(solve_attention(block, sequences, options).unknowns.X.reshaped());
  });
}

}  // namespace attnreg::test_parts_of_blocks
