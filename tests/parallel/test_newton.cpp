#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SVD>
#include <cmath>

#include "losses/losses.hpp"
#include "support/dense_algebra.hpp"
#include "support/solve.hpp"

namespace attnreg::test_newton {

using Eigen::MatrixXd;
using Eigen::VectorXd;

/// What must hold after any solve: finite, a gradient as small as claimed, no ascent.
void expect_sound(const reference::Problem& problem, const Solution& out, const NewtonOptions& options = {}) {
  const auto there = reference::evaluate(problem, out.x);
  EXPECT_TRUE(out.x.allFinite());
  EXPECT_TRUE(out.converged()) << termination_name(out.summary.termination) << ", |g| " << out.summary.gradient_norm;
  const double bound =
      std::max(out.summary.gradient_floor, options.relative_tolerance * out.summary.gradient_reference);
  EXPECT_LE(static_cast<double>(there.gradient.norm()), bound + out.floor);
  EXPECT_LE(out.records.back().value, out.records.front().value);
}

TEST(Newton, ConvergesOnBothLossesWithMonotoneValues) {
  for (const auto& loss : loss_names()) {
    auto problem = reference::random_problem(400, 6, 1, 1e-2, 1);
    problem.loss = loss;
    const auto out = solve(problem);
    expect_sound(problem, out);
    EXPECT_EQ(out.summary.termination, Termination::converged);
    EXPECT_EQ(out.summary.iterations, static_cast<int>(out.records.size()) - 1);
    EXPECT_LE(out.summary.relative_gradient, 1e-10);
    for (std::size_t k = 1; k < out.records.size(); ++k) {
      EXPECT_LE(out.records[k].value, out.records[k - 1].value * (1 + 4 * reference::eps));
      EXPECT_EQ(out.records[k].iteration, static_cast<int>(k));
      EXPECT_GE(out.records[k].reads_of_a, out.records[k - 1].reads_of_a + 2);  // Hessian, A s, gradient
      EXPECT_GE(out.records[k].seconds, out.records[k - 1].seconds);
    }
  }
}

// g(x + s) = g + H s + r with |r| <= K |A|^3 |s|^2 / 2, K = 0.5715 for |b|_1 <= 1 (docs/algorithms.md): with the exact
// Hessian a full Newton step leaves r only.
TEST(Newton, ConvergesQuadraticallyWithTheExactHessian) {
  const auto problem = reference::random_problem(300, 4, 1, 0.1, 2);
  const auto out = solve(problem);
  const double norm = MatrixXd(problem.A).jacobiSvd().singularValues()[0];
  int newton_steps = 0;
  for (std::size_t k = 1; k < out.records.size(); ++k) {
    const double s2 = (out.iterates[k] - out.iterates[k - 1]).squaredNorm();
    EXPECT_EQ(out.records[k].step, 1);
    EXPECT_LE(out.records[k].gradient_norm, 0.5 * 0.5715 * std::pow(norm, 3) * s2 + out.floor);
    newton_steps += out.records[k].relative_gradient < 1e-3 ? 1 : 0;
  }
  EXPECT_GE(newton_steps, 2);
  EXPECT_LE(out.summary.iterations, 8);
}

TEST(Newton, EndsInAMinimumFromIndefiniteStarts) {
  int indefinite = 0;
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    const auto problem = reference::random_problem(60, 4, 1.5, 1e-2, 10 * seed);
    const VectorXd x0 = 3 * reference::random_vector(4, seed);
    const auto least = [&](const VectorXd& x) {
      const MatrixXd H = reference::evaluate(problem, x).hessian.cast<double>();
      return reference::eigenvalues(H)[0] / H.norm();
    };
    const auto out = solve(problem, x0);
    SCOPED_TRACE("seed " + std::to_string(seed));
    expect_sound(problem, out);
    indefinite += least(x0) < 0 ? 1 : 0;
    EXPECT_GE(least(out.x), -1e-9);
  }
  EXPECT_GE(indefinite, 3);  // the seeds were chosen for it
}

// L(-x) = L(x), and the curvature at 0 is about -1/8: a saddle, which a solve leaves even if it starts there.
TEST(Newton, LeavesASaddle) {
  reference::Problem problem{RowMajorMatrix(4, 1), VectorXd(4), VectorXd::Constant(4, 0.05)};
  problem.A << 1, -1, 0.5, -0.5;
  problem.b << 1, 1, -0.5, -0.5;
  const auto at_zero = solve(problem), beside = solve(problem, VectorXd::Constant(1, 1e-3));
  expect_sound(problem, beside);
  EXPECT_TRUE(at_zero.converged());
  EXPECT_NEAR(at_zero.summary.value, beside.summary.value, 1e-12);
  EXPECT_LT(beside.summary.value, static_cast<double>(reference::evaluate(problem, VectorXd::Zero(1)).value));
}

/// The same solution as from this rank alone, to 1e-9; and the same bits on all ranks.
void expect_same_as_alone(const reference::Problem& problem, const Solution& out) {
  const auto alone = solve(problem, VectorXd::Zero(problem.A.cols()), {}, MPI_COMM_SELF);
  EXPECT_LE((out.x - alone.x).norm(), 1e-9 * alone.x.norm());
  EXPECT_EQ(out.summary.iterations, alone.summary.iterations);
}

TEST(Newton, TheNumberOfRanksDoesNotMatter) {
  for (const auto& loss : loss_names()) {
    auto problem = reference::random_problem(500, 5, 1, 1e-2, 3);
    problem.loss = loss;
    const auto out = solve(problem);
    const bool replicated = Communicator(MPI_COMM_WORLD).is_replicated(reference::span_of(out.x));
    EXPECT_TRUE(replicated);
    expect_same_as_alone(problem, out);
  }
}

struct Odd {
  const char* name;
  reference::Problem problem;
};

/// Problems at the edge: few rows, and Hessians that are singular.
std::vector<Odd> odd_problems() {
  std::vector<Odd> all;
  const auto add = [&](const char* name, Index rows, Index columns, double weight, auto&& change) {
    all.push_back({name, reference::random_problem(rows, columns, 1, weight, 40 + all.size())});
    change(all.back().problem);
  };
  const auto nothing = [](reference::Problem&) {};
  add("one row", 1, 3, 0.5, nothing);
  add("one row, w = 0", 1, 3, 0, nothing);
  add("two rows, fewer than ranks", 2, 2, 0.1, nothing);
  add("one column", 50, 1, 0.1, nothing);
  add("one column, w = 0", 50, 1, 0, nothing);
  add("fewer rows than columns", 5, 9, 0.1, nothing);
  add("duplicate rows", 60, 4, 0.1, [](auto& p) {
    p.A.bottomRows(30) = p.A.topRows(30).eval();
    p.b.tail(30) = p.b.head(30).eval();
    p.b /= p.b.sum();
  });
  add("ones column, w = 0", 50, 4, 0, [](auto& p) { p.A.col(2).setOnes(); });
  add("constant column, small w", 50, 4, 1e-3, [](auto& p) { p.A.col(2).setConstant(30); });
  add("zero columns", 50, 5, 0.1, [](auto& p) { p.A.col(0).setZero(), p.A.col(4).setZero(); });
  add("zero columns, w = 0", 50, 5, 0, [](auto& p) { p.A.col(1).setZero(); });
  add("duplicate columns", 50, 6, 0.1, [](auto& p) { p.A.rightCols(3) = p.A.leftCols(3).eval(); });
  add("duplicate columns, w = 0", 50, 6, 0, [](auto& p) { p.A.rightCols(3) = p.A.leftCols(3).eval(); });
  add("columns of different size", 80, 4, 1e-2, [](auto& p) { p.A.col(0) *= 1e-5, p.A.col(1) *= 1e4; });
  add("A = 0", 20, 3, 0.1, [](auto& p) { p.A.setZero(); });
  add("negative b", 50, 4, 0.1, [](auto& p) { p.b = -p.b; });
  return all;
}

TEST(Newton, OddProblemsEndWithAFiniteStationaryPoint) {
  for (const auto& [name, problem] : odd_problems()) {
    const auto out = solve(problem);
    SCOPED_TRACE(name);
    expect_sound(problem, out);
    EXPECT_LE(out.x.norm(), 1e6);
  }
}

TEST(Newton, ColumnsThatDoNothingStayAtTheStart) {
  auto problem = reference::random_problem(50, 4, 1, 0.1, 5);
  problem.A.col(2).setZero();
  const auto out = solve(problem, VectorXd::Constant(4, 0.25));
  EXPECT_EQ(out.x[2], 0.25);
}

// w = 0 and b = e_k: the infimum 0 is not attained, x runs away until the gradient is small or rounding.
TEST(Newton, AnInfimumAtInfinityEndsInALimitOrASmallGradient) {
  reference::Problem problem{reference::random_matrix(20, 3, 6), VectorXd::Unit(20, 4), VectorXd::Zero(20)};
  problem.A.row(4) = 3 * problem.A.colwise().maxCoeff().cwiseAbs();  // can be separated
  const auto out = solve(problem);
  EXPECT_TRUE(out.x.allFinite());
  EXPECT_NE(out.summary.termination, Termination::breakdown);
  EXPECT_LT(out.summary.value, 1e-8);
}

TEST(Newton, NothingToDoConvergesAtOnce) {
  reference::Problem one_row{RowMajorMatrix::Ones(1, 2), VectorXd::Constant(1, 0.5), VectorXd::Zero(1)};
  auto exact = reference::random_problem(100, 3, 1, 0, 7);
  const VectorXd x = reference::random_vector(3, 8);
  exact.b = reference::softmax(exact.A, x);
  const auto at_zero = solve(one_row), at_solution = solve(exact, x);
  EXPECT_EQ(at_zero.summary.termination, Termination::converged);
  EXPECT_EQ(at_zero.summary.gradient_reference, 0);
  EXPECT_EQ(at_zero.summary.relative_gradient, 0);
  EXPECT_EQ(at_solution.summary.termination, Termination::converged_rounding);
  for (const auto* out : {&at_zero, &at_solution}) EXPECT_EQ(out->summary.iterations, 0);
}

}  // namespace attnreg::test_newton
