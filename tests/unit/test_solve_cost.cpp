#include "regression/solve_cost.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "surrogate/surrogate.hpp"

namespace attnreg::test_solve_cost {

RegressionOptions by(Method method) {
  RegressionOptions options;
  options.method = method;
  return options;
}

SolveMemory memory(const SolveShape& shape, const SolveLayout& layout = {}, Method method = Method::automatic) {
  return solve_memory(shape, layout, by(method));
}

TEST(SolveCost, RowsAreThoseThatAreHeld) {
  const SolveShape dense{.rows = 1000000, .columns = 50};
  EXPECT_EQ(memory(dense).rank0.rows, 4e8);
  EXPECT_EQ(memory(dense, {.ranks = 4}).other.rows, 1e8);
  for (const auto& [storage, bytes] :
       {std::pair{Storage::float32, 2e8}, {Storage::float16, 1e8}, {Storage::bfloat16, 1e8}}) {
    SolveShape shape = dense;
    shape.storage = storage;
    EXPECT_EQ(memory(shape).rank0.rows, bytes);
    EXPECT_EQ(shape.bytes(), bytes);
  }
  // Values, columns, and where each row begins.
  EXPECT_EQ(memory({.rows = 1000, .columns = 50, .entries = 7000, .sparse = true}).rank0.rows, 7000 * 12 + 1000 * 8);
}

TEST(SolveCost, VectorsOverRowsAreThoseThatTestsOfMemoryMeasure) {
  const SolveShape shape{.rows = 1000000, .columns = 2};
  for (const Method method : {Method::newton, Method::newton_cg, Method::surrogate}) {
    const double doubles = memory(shape, {}, method).rank0.vectors / 8e6;
    EXPECT_GE(doubles, 6);
    EXPECT_LE(doubles, 8);
  }
  SolveShape weighted = shape;
  weighted.row_weights = true;
  EXPECT_GT(memory(weighted).rank0.vectors, memory(shape).rank0.vectors);
}

TEST(SolveCost, MatricesAreOnEveryRankUnlessSpread) {
  const SolveShape shape{.rows = 100000, .columns = 1000};
  RegressionOptions options = by(Method::newton_cg);
  const auto of = [&](LinearSolver solver, int ranks) {
    options.linear_solver.kind = solver;
    return solve_memory(shape, {.ranks = ranks}, options);
  };
  EXPECT_GE(of(LinearSolver::rank0, 64).other.matrices, of(LinearSolver::rank0, 4).other.matrices);
  EXPECT_GE(of(LinearSolver::rank0, 4).rank0.matrices, of(LinearSolver::rank0, 4).other.matrices);
  EXPECT_GT(of(LinearSolver::rank0, 1).rank0.matrices, 8e6 * 12);  // a sketch of 6 d rows, twice
  EXPECT_LT(of(LinearSolver::scalapack, 64).largest(), 0.2 * of(LinearSolver::rank0, 64).largest());
}

TEST(SolveCost, BlocksHaveWhatRanksHave) {
  const SolveShape shape{.rows = 1 << 20, .columns = 64};
  const auto of = [&](int ranks) {
    return memory(shape, {.ranks = ranks, .ranks_per_node = 31, .blocks = 16}, Method::newton_cg);
  };
  EXPECT_EQ(of(1).rank0.rows, 8.0 * (1 << 20) * 64);
  EXPECT_EQ(of(4).rank0.rows, of(1).rank0.rows / 4);
  EXPECT_EQ(of(3).rank0.rows, 6 * of(16).other.rows);
  EXPECT_EQ(of(3).other.rows, 5 * of(16).other.rows);
  EXPECT_EQ(of(31).mean_other.rows, 0.5 * of(31).other.rows);
  // The first of two nodes has all of them.
  const SolveLayout two{.ranks = 32, .ranks_per_node = 16, .blocks = 16};
  EXPECT_EQ(memory(shape, two, Method::newton_cg).mean_other.rows, of(16).other.rows);
}

// They share factors, and run in turn.
TEST(SolveCost, BlocksOfAProcessShareMatrices) {
  for (const auto& shape : {SolveShape{.rows = 1 << 20, .columns = 64}, SolveShape{.rows = 3000, .columns = 500},
                            SolveShape{.rows = 12000, .columns = 500}})
    for (const Method method : {Method::newton, Method::newton_cg}) {
      const auto of = [&](int ranks) { return memory(shape, {.ranks = ranks, .blocks = 16}, method).other.matrices; };
      EXPECT_GT(of(4), of(16));
      const bool has_sketches = method == Method::newton && shape.columns == 500;  // and shares next to nothing
      EXPECT_LT(of(4), (has_sketches ? 3.2 : 2.5) * of(16));
      EXPECT_LT(of(1), (has_sketches ? 12 : 8) * of(16));
      EXPECT_GT(of(16), 0.5 * memory(shape, {.ranks = 16}, method).other.matrices);
    }
}

TEST(SolveCost, MethodIsThatOfTheCostModel) {
  const auto method = [](std::int64_t rows, Index columns, bool sparse = false, const char* loss = "softmax") {
    RegressionOptions options;
    options.loss = loss;
    return chosen_method(rows, columns, sparse, false, options, LinearSolver::rank0);
  };
  EXPECT_EQ(method(20000, 100).method, Method::surrogate);
  EXPECT_TRUE(method(20000, 100).starts_on_sample);
  EXPECT_EQ(method(19999, 100).method, Method::newton_cg);
  EXPECT_EQ(method(3601, 100).method, Method::newton_cg);  // docs/algorithms.md, section 12
  EXPECT_EQ(method(3600, 100).method, Method::newton);
  EXPECT_EQ(method(20000, 100, true).method, Method::newton_cg);
  EXPECT_EQ(method(20000, 100, false, "exp").method, Method::newton_cg);
  EXPECT_FALSE(method(20000, 100, false, "exp").starts_on_sample);

  RegressionOptions asked = by(Method::surrogate);
  EXPECT_TRUE(chosen_method(10000, 100, false, false, asked, LinearSolver::rank0).is_replaced);
  EXPECT_FALSE(chosen_method(10000, 100, false, true, asked, LinearSolver::rank0).is_replaced);
  EXPECT_TRUE(chosen_method(20000, 100, false, false, asked, LinearSolver::scalapack).is_replaced);
}

TEST(SolveCost, LinearSolverDependsOnMemoryBetween512And2000) {
  const auto solver = [](std::int64_t columns, int ranks, double node_bytes) {
    return solve_choice({.rows = 1000 * columns, .columns = columns},
                        {.ranks = ranks, .ranks_per_node = ranks, .node_bytes = node_bytes}, {})
        .linear_solver;
  };
  EXPECT_EQ(solver(2000, 2, 1e12), LinearSolver::scalapack);
  EXPECT_EQ(solver(2000, 1, 1e12), LinearSolver::rank0);
  EXPECT_EQ(solver(600, 4, 1e12), LinearSolver::rank0);
  EXPECT_EQ(solver(600, 4, 1e8), LinearSolver::scalapack);
  EXPECT_EQ(solver(511, 4, 1e8), LinearSolver::rank0);
  EXPECT_EQ(solve_choice({.rows = 1 << 20, .columns = 3000}, {.ranks = 4, .blocks = 16}, {}).linear_solver,
            LinearSolver::rank0);
}

TEST(SolveCost, WideMatricesAreSolvedInTheirRowSpace) {
  const SolveShape shape{.rows = 20, .columns = 100000};
  EXPECT_TRUE(solve_choice(shape, {}, {}).in_row_space);
  EXPECT_EQ(solve_choice(shape, {}, {}).unknowns, 20);
  EXPECT_LT(memory(shape).rank0.total(), 8.0 * 20 * 100000 * 7);
}

TEST(SolveCost, AnyShapeHasFiniteFigures) {
  for (const std::int64_t rows : {std::int64_t{1}, std::int64_t{7}, std::int64_t{10000000000}, std::int64_t{1} << 53})
    for (const std::int64_t columns : {1, 2, 513, 20000})
      for (const int ranks : {1, 2, 100000})
        for (const Method method : {Method::automatic, Method::newton, Method::newton_cg, Method::sketched_newton}) {
          const SolveShape shape{.rows = rows, .columns = columns};
          const SolveLayout layout{.ranks = ranks, .ranks_per_node = 32};
          const double bytes = memory(shape, layout, method).largest();
          const double seconds = solve_time(shape, layout, by(method), {}).total();
          const SolveWork work = solve_work(shape, layout, by(method));
          EXPECT_TRUE(std::isfinite(bytes) && bytes > 0) << rows << " x " << columns << " on " << ranks;
          EXPECT_TRUE(std::isfinite(seconds) && seconds > 0) << rows << " x " << columns << " on " << ranks;
          EXPECT_TRUE(work.least_reads < work.reads && work.reads < work.most_reads);
        }
}

TEST(SolveCost, TimeIsThatOfReadsAndRounds) {
  const SolveShape shape{.rows = 100000000, .columns = 100};
  const auto time = [&](int ranks, double bandwidth) {
    return solve_time(shape, {.ranks = ranks, .ranks_per_node = 32}, {}, {.node_bandwidth = bandwidth});
  };
  EXPECT_EQ(time(1, 1e10).messages, 0);
  EXPECT_NEAR(time(32, 2e10).reading, time(32, 1e10).reading / 2, 1e-9);
  EXPECT_NEAR(time(64, 1e10).reading, time(32, 1e10).reading / 2, 1e-9);
  EXPECT_GT(time(1024, 1e10).messages, time(512, 1e10).messages);
}

TEST(SolveCost, TargetsComeInBatches) {
  EXPECT_EQ(targets_at_once(1, 1), 64);
  EXPECT_EQ(targets_at_once(1e9, 1e9), 4);
  const SolveShape one{.rows = 200000, .columns = 50};
  SolveShape several = one;
  several.targets = 8;
  EXPECT_GT(memory(several).rank0.vectors, 6 * memory(one).rank0.vectors);
}

}  // namespace attnreg::test_solve_cost
