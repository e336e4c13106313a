// Blocks of so much work that their passes have several parts: what they make has the bits of one thread with two.

#include <gtest/gtest.h>
#include <omp.h>

#include <functional>
#include <string>
#include <utility>

#include "attnreg/leverage.hpp"
#include "attnreg/regression.hpp"
#include "rows/row_passes.hpp"
#include "support/attention_problems.hpp"
#include "support/reference.hpp"

namespace attnreg::test_parts_of_blocks {

using Eigen::VectorXd;
using reference::Holding;
using Solve = std::function<VectorXd(const Communicator&)>;

VectorXd of_two_blocks(int threads, const Solve& solve) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(threads);
  VectorXd x;
  Communicator(MPI_COMM_SELF).in_blocks({2}, [&](const Communicator& block) {
    const VectorXd own = solve(block);
    if (block.is_root()) x = own;
  });
  omp_set_num_threads(before);
  return x;
}

void expect_the_same_bits(const Solve& solve) {
  const VectorXd expected = of_two_blocks(1, solve);
  ASSERT_TRUE(expected.size() > 0 && expected.allFinite());
  EXPECT_TRUE(of_two_blocks(2, solve) == expected);
}

/// Rows of which each block has so many that a pass has several parts, some of the entries 0.
reference::Problem long_problem() {
  reference::Problem problem = reference::random_problem(30000, 40, 0.2, 1e-4, 9);
  problem.A.array() *= (problem.A.array().abs() > 0.01).cast<double>();
  return problem;
}

reference::Distributed distributed_rows(const Communicator& block, const reference::Problem& problem, Holding holding) {
  reference::Distributed data = reference::distribute(block, problem, reference::Layout::tiled, holding);
  EXPECT_GT(RowPasses::parts(static_cast<double>(data.A.entries_local())), 1);
  return data;
}

TEST(PartsOfBlocks, OfARegression) {
  const reference::Problem problem = long_problem();
  const std::pair<Holding, Method> cases[] = {
      {Holding::float64, Method::newton},    {Holding::float64, Method::newton_cg},
      {Holding::float32, Method::surrogate}, {Holding::bfloat16, Method::newton_cg},
      {Holding::sparse64, Method::newton},   {Holding::sparse64, Method::surrogate}};
  for (const auto& [holding, method] : cases) {
    SCOPED_TRACE(std::string(method_name(method)) + ", " + std::to_string(static_cast<int>(holding)));
    RegressionOptions options;
    options.method = method;
    options.newton.max_iterations = 3;
    expect_the_same_bits([&, holding = holding](const Communicator& block) {
      const auto data = distributed_rows(block, problem, holding);
      return solve_regression(data.A, data.b, data.w, options).x;
    });
  }
}

TEST(PartsOfBlocks, OfScores) {
  const reference::Problem problem = long_problem();
  for (const ExactRoute route : {ExactRoute::gram, ExactRoute::qr})
    expect_the_same_bits([&](const Communicator& block) {
      return exact_leverage_scores(distributed_rows(block, problem, Holding::float64).A, {}, route).scores;
    });
  expect_the_same_bits([&](const Communicator& block) {
    return leverage_scores(distributed_rows(block, problem, Holding::float64).A, {}, {}).scores;
  });
}

TEST(PartsOfBlocks, OfAnAttention) {
  using namespace attention_problems;
  auto planted = plant({3000, 1000, 5, 4, 0, 0}, 2, 1, 1, 6);
  for (auto& whole : planted.sequences) whole.target.array() *= 1 + 0.1 * (31 * whole.target.array()).sin();
  expect_the_same_bits([&](const Communicator& block) {
    const std::vector sequences{distributed(block, planted.sequences.front(), reference::Layout::even)};
    AttentionOptions options;
    options.newton.max_iterations = 1;
    return VectorXd(solve_attention(block, sequences, options).unknowns.X.reshaped());
  });
}

}  // namespace attnreg::test_parts_of_blocks
