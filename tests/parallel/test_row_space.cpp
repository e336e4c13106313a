// Problems with more columns than rows: solved in the row space, against the solve with all columns.

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "algebra/dense_factors.hpp"
#include "attnreg/regression.hpp"
#include "regression/row_space.hpp"
#include "support/reference.hpp"

namespace attnreg::test_row_space {

using Eigen::VectorXd;
using reference::Layout;
using reference::Problem;

constexpr Index kRows = 20, kColumns = 600;

Problem wide_problem(const std::string& loss, double weight) {
  Problem problem = reference::random_problem(kRows, kColumns, 1 / std::sqrt(double{kColumns}), weight, 5);
  problem.loss = loss;
  if (loss == "exp") problem.b *= 20;
  return problem;
}

RegressionResult solved(const Problem& problem, RegressionOptions options, Layout layout = Layout::random) {
  const Communicator comm(MPI_COMM_WORLD);
  const auto data = reference::distribute(comm, problem, layout);
  options.loss = problem.loss;
  options.newton.relative_tolerance = 1e-12;
  return solve_regression(data.A, data.b, data.w, options);
}

/// The full certificate asks for the solve with all columns.
RegressionResult solved_with_all_columns(const Problem& problem, RegressionOptions options = {}) {
  options.certificate = CertificateLevel::full;
  return solved(problem, options);
}

bool is_good(const RegressionResult& result) {
  return result.summary.termination == Termination::converged ||
         result.summary.termination == Termination::converged_rounding;
}

bool notes_row_space(const RegressionResult& result) {
  for (const auto& note : result.notes)
    if (note.find("row space") != std::string::npos) return true;
  return false;
}

/// Same L, same gradient reference, same x where x is unique: with weights, A x is, and the least x with it.
void expect_same(const RegressionResult& found, const RegressionResult& expected, double tolerance) {
  EXPECT_TRUE(is_good(found)) << termination_name(found.summary.termination);
  EXPECT_TRUE(is_good(expected)) << termination_name(expected.summary.termination);
  EXPECT_TRUE(notes_row_space(found));
  EXPECT_FALSE(notes_row_space(expected));
  EXPECT_NEAR(found.summary.value, expected.summary.value, 1e-12 * (1 + std::abs(expected.summary.value)));
  EXPECT_NEAR(found.summary.gradient_reference, expected.summary.gradient_reference,
              1e-10 * expected.summary.gradient_reference);
  ASSERT_EQ(found.x.size(), expected.x.size());
  EXPECT_LE((found.x - expected.x).norm(), tolerance * expected.x.norm());
}

TEST(RowSpace, IsForManyMoreColumnsThanASmallMatrixHas) {
  EXPECT_TRUE(solves_in_row_space(20, 600, {}));
  EXPECT_TRUE(solves_in_row_space(599, 600, {}));
  EXPECT_FALSE(solves_in_row_space(600, 600, {}));
  EXPECT_FALSE(solves_in_row_space(20, 60, {}));
  RegressionOptions all_columns;
  all_columns.certificate = CertificateLevel::full;
  EXPECT_FALSE(solves_in_row_space(20, 600, all_columns));
  all_columns = {};
  all_columns.epsilon = 1e-3;
  EXPECT_FALSE(solves_in_row_space(20, 600, all_columns));
  all_columns = {};
  all_columns.method = Method::sketched_newton;
  EXPECT_FALSE(solves_in_row_space(20, 600, all_columns));
}

TEST(RowSpace, GivesTheLeastX) {
  for (const std::string loss : {"softmax", "cross-entropy", "exp"}) {
    SCOPED_TRACE(loss);
    const Problem problem = wide_problem(loss, 1e-3);
    expect_same(solved(problem, {}), solved_with_all_columns(problem), 1e-6);
  }
}

/// The part of S x, relative, that is no combination of the rows of A S^-1, which are centred first if so asked.
double outside_of_rows(RowMajorMatrix A, const VectorXd& x, bool centred) {
  if (centred) A.rowwise() -= A.colwise().mean().eval();
  const VectorXd scale = A.colwise().norm();
  const VectorXd scaled = scale.cwiseProduct(x);
  const ThinSvd svd = thin_svd(scale.cwiseInverse().asDiagonal() * A.transpose());
  const Eigen::MatrixXd U = svd.U.leftCols(svd.rank());
  return (scaled - U * (U.transpose() * scaled)).norm() / scaled.norm();
}

// Nothing but phi sees x, which vanishes at all x with some A x, for softmax but for a constant.
TEST(RowSpace, GivesTheLeastXWithoutWeights) {
  for (const std::string loss : {"softmax", "cross-entropy", "exp"}) {
    SCOPED_TRACE(loss);
    const Problem problem = wide_problem(loss, 0);
    const RegressionResult found = solved(problem, {});
    EXPECT_TRUE(is_good(found) && notes_row_space(found));
    EXPECT_LE(outside_of_rows(problem.A, found.x, loss != "exp"), 1e-9);
    VectorXd f =
        loss == "exp" ? VectorXd((problem.A * found.x).array().exp().matrix()) : reference::softmax(problem.A, found.x);
    if (loss == "cross-entropy") f *= problem.b.sum();
    EXPECT_LE((f - problem.b * (loss == "softmax" ? 1 / problem.b.sum() : 1.0)).norm(), 1e-7 * problem.b.norm());
  }
}

TEST(RowSpace, DoesNotDependOnTheUnitsOfColumnsOrTheirLevel) {
  Problem problem = wide_problem("softmax", 1e-3);
  const RegressionResult before = solved(problem, {});
  VectorXd units(kColumns);
  for (Index j = 0; j < kColumns; ++j) units[j] = std::scalbn(1.0, static_cast<int>(j % 41) - 20);
  problem.A = (problem.A * units.asDiagonal()).eval();
  const RegressionResult after = solved(problem, {});
  EXPECT_TRUE(is_good(after));
  EXPECT_LE((after.x.cwiseProduct(units) - before.x).norm(), 1e-7 * before.x.norm());
  EXPECT_NEAR(after.summary.scaled_gradient, before.summary.scaled_gradient, 1e-9 * before.summary.gradient_reference);

  problem = wide_problem("softmax", 0);  // without weights a level of a column, which is centred, is not seen
  const RegressionResult near = solved(problem, {});
  problem.A.col(3).array() += 1024;
  const RegressionResult far = solved(problem, {});
  EXPECT_TRUE(is_good(far));
  EXPECT_LE((far.x - near.x).norm(), 1e-7 * near.x.norm());
}

TEST(RowSpace, TakesDependentRows) {
  Problem problem = wide_problem("softmax", 1e-3);
  problem.A.row(7) = problem.A.row(2);
  problem.A.row(8) = problem.A.row(3) - problem.A.row(4);
  problem.A.row(9).setZero();
  expect_same(solved(problem, {}), solved_with_all_columns(problem), 1e-6);
  problem.A.setZero();  // nothing to see
  const RegressionResult nothing = solved(problem, {});
  EXPECT_TRUE(is_good(nothing));
  EXPECT_EQ(nothing.x.norm(), 0);
}

TEST(RowSpace, StartsWhereItIsTold) {
  const Problem problem = wide_problem("softmax", 1e-3);
  RegressionOptions options;
  const RegressionResult first = solved(problem, options);
  options.start = Start::given;
  options.x0 = first.x;
  const RegressionResult again = solved(problem, options);
  EXPECT_TRUE(is_good(again));
  EXPECT_LE(again.summary.iterations, 1);
  EXPECT_LE((again.x - first.x).norm(), 1e-9 * first.x.norm());
}

TEST(RowSpace, ServesPathsAndTargets) {
  const Communicator comm(MPI_COMM_WORLD);
  const Problem problem = wide_problem("softmax", 1e-3);
  const auto data = reference::distribute(comm, problem, Layout::random);
  RegressionOptions options;
  options.newton.relative_tolerance = 1e-12;
  const auto path = solve_path(data.A, data.b, {1e-2, 1e-3}, options);
  const RegressionResult alone = solve_regression(data.A, data.b, data.w, options);
  ASSERT_EQ(path.size(), 2u);
  EXPECT_TRUE(notes_row_space(path[0]) && notes_row_space(path[1]));
  EXPECT_LE((path[1].x - alone.x).norm(), 1e-7 * alone.x.norm());

  Eigen::MatrixXd B(data.b.size(), 2);
  B << data.b, data.b;
  const auto targets = solve_targets(data.A, B, data.w, options);
  for (const auto& target : targets) {
    EXPECT_TRUE(notes_row_space(target));
    EXPECT_LE((target.x - alone.x).norm(), 1e-7 * alone.x.norm());
    EXPECT_LE((target.fitted - alone.fitted).norm(), 1e-9);
  }
}

}  // namespace attnreg::test_row_space
