#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <array>
#include <cmath>
#include <memory>
#include <vector>

#include "losses/losses.hpp"
#include "objective/regression_objective.hpp"
#include "ranks/span_of.hpp"
#include "rows/scaled_columns.hpp"
#include "support/reference.hpp"

namespace attnreg::test_scaled_columns {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::Holding;

/// Normal columns, one of them far from 0, one of another size, one constant.
RowMajorMatrix hostile_columns(Index rows, double offset, double size) {
  RowMajorMatrix A = reference::random_matrix(rows, 5, 1);
  A.col(1).array() += offset;
  A.col(2) *= size;
  A.col(4).setConstant(3.1);
  return A;
}

template <class Body>
void everywhere(const RowMajorMatrix& dense, Body&& body) {
  for (const Holding holding : {Holding::float64, Holding::view, Holding::sparse64})
    for (const auto layout : reference::layouts) {
      SCOPED_TRACE("holding " + std::to_string(static_cast<int>(holding)) + ", layout " +
                   std::to_string(static_cast<int>(layout)));
      body(reference::distribute(Communicator(MPI_COMM_WORLD), dense, layout, holding));
    }
}

TEST(ColumnStatistics, AreThoseOfTheColumns) {
  for (const double size : {1.0, 1e-200, 1e200, 1e-307}) {
    const RowMajorMatrix dense = hostile_columns(57, 1e6, size);
    everywhere(dense, [&](const RowMatrix& A) {
      const ColumnStatistics found = column_statistics(A);
      for (Index j = 0; j < 5; ++j) {
        const Eigen::Matrix<long double, Eigen::Dynamic, 1> column = dense.col(j).cast<long double>();
        const long double mean = column.mean(), unit = std::scalbn(1.0L, found.exponent[static_cast<std::size_t>(j)]);
        const long double spread = std::sqrt((column.array() - mean).square().sum());
        // sums of 57 numbers, about a centre in the column
        EXPECT_NEAR(static_cast<double>(found.mean[j] * unit / mean), 1, 1e-13) << j;
        if (j == 4)
          EXPECT_EQ(found.spread[j], 0);
        else
          EXPECT_NEAR(static_cast<double>(found.spread[j] * unit / spread), 1, 1e-9) << j;
      }
      EXPECT_EQ(std::scalbn(found.mean[4], found.exponent[4]), 3.1);
    });
  }
}

TEST(ScaledColumns, LeaveOrdinaryColumnsAlone) {
  const RowMajorMatrix dense = reference::random_matrix(40, 3, 2);
  everywhere(dense, [&](const RowMatrix& A) {
    const ScaledColumns columns(A, true);
    EXPECT_EQ(&columns.A().passes(), &A.passes());
    EXPECT_FALSE(columns.is_centred() || columns.is_scaled());
    EXPECT_TRUE(columns.notes().empty() && columns.warnings().empty());
    EXPECT_EQ(A.reads(), 0);
  });
}

TEST(ScaledColumns, TransformTheRows) {
  const RowMajorMatrix dense = hostile_columns(57, 1e6, 1e9);
  everywhere(dense, [&](const RowMatrix& A) {
    const ScaledColumns columns(A, true);
    const VectorXd centre = columns.offset().cwiseQuotient(columns.factor());
    EXPECT_EQ(centre[4], 3.1);
    EXPECT_EQ(centre[0], 0);
    EXPECT_NEAR(centre[1], 1e6, 1);
    const RowMajorMatrix expected = (dense.rowwise() - centre.transpose()) * columns.factor().asDiagonal();
    EXPECT_EQ(reference::gathered_rows(columns.A()), expected);
    const VectorXd norms = (expected * columns.scale().cwiseInverse().asDiagonal()).rowwise().norm();
    EXPECT_LE((columns.row_norms() - reference::local_part(A, norms)).lpNorm<Eigen::Infinity>(), 1e-14);
    // every pass sees them
    const VectorXd x = reference::random_vector(5, 3), u = reference::local_part(A, reference::random_vector(57, 4));
    const VectorXd z = reference::local_part(A, expected * x);
    EXPECT_LE((columns.A().multiply(x) - z).lpNorm<Eigen::Infinity>(), 1e-13);
    VectorXd sum = columns.A().passes().transpose_multiply(u);
    A.communicator().sum(span_of(sum));
    EXPECT_LE((sum - expected.transpose() * reference::random_vector(57, 4)).lpNorm<Eigen::Infinity>(), 1e-12);
  });
}

TEST(ScaledColumns, NameWhatLosesDigits) {
  const RowMajorMatrix dense = hostile_columns(57, 1e9, 1);
  everywhere(dense, [&](const RowMatrix& A) {
    for (const bool may_centre : {true, false}) {
      const ScaledColumns columns(A, may_centre);
      ASSERT_EQ(columns.warnings().size(), 1u);
      EXPECT_NE(columns.warnings()[0].find("column 1 "), std::string::npos);
      EXPECT_EQ(columns.is_centred(), may_centre);
    }
  });
}

/// The regulariser sees the columns as they are: value, gradient and Hessian are those of the caller's L.
TEST(ScaledColumns, GiveTheCallersDerivatives) {
  for (const double weight : {0.0, 1e-3}) {
    reference::Problem problem = reference::random_problem(57, 5, 1, weight, 5);
    problem.A = hostile_columns(57, 1e3, 1e5);
    problem.w = weight * reference::random_vector(57, 9);
    everywhere(problem.A, [&](const RowMatrix& A) {
      for (const char* loss : {"softmax", "cross-entropy"}) {
        problem.loss = loss;
        const VectorXd b = reference::local_part(A, problem.b), w = reference::local_part(A, problem.w);
        const auto columns = std::make_shared<const ScaledColumns>(A, true);
        ASSERT_TRUE(columns->is_centred() && columns->is_scaled());
        RegressionObjective objective(columns, b, w, make_loss(loss));
        const VectorXd& factor = columns->factor();
        const VectorXd x = 0.3 * reference::random_vector(5, 6), s = 0.2 * reference::random_vector(5, 7);
        const auto at = [&](const VectorXd& y) { return reference::evaluate(problem, y.cwiseProduct(factor)); };
        const auto expected = at(x), moved = at(x + 0.5 * s);
        Point point = objective.evaluate(x);
        const VectorXd gradient = factor.cwiseProduct(reference::to_double(expected.gradient));
        const MatrixXd hessian = factor.asDiagonal() * expected.hessian.cast<double>() * factor.asDiagonal();
        // the regulariser's terms are 1e6 w^2 n in size
        const double size = hessian.norm() + gradient.norm();
        EXPECT_NEAR(point.value, static_cast<double>(expected.value), 1e-12 * (1 + std::abs(point.value)));
        EXPECT_LE((point.gradient - gradient).norm(), 1e-12 * size);
        Direction direction = objective.direction(s);
        EXPECT_LE((objective.hessian_product(point, direction) - hessian * s).norm(), 1e-11 * size);
        const Hessian made = objective.hessian(point);
        if (A.communicator().is_root()) {
          EXPECT_LE((made.exact - hessian).norm(), 1e-11 * size);
          EXPECT_GE(Eigen::SelfAdjointEigenSolver<MatrixXd>(made.positive_part).eigenvalues()[0], -1e-11 * size);
        }
        const double change = static_cast<double>(moved.value - expected.value);
        const Trial trial = objective.try_steps(point, direction, std::array{0.5})[0];
        EXPECT_NEAR(trial.change, change, 1e-11 * (1 + std::abs(change)));
        point = objective.step(std::move(point), std::move(direction), trial);
        EXPECT_LE((point.gradient - factor.cwiseProduct(reference::to_double(moved.gradient))).norm(), 1e-11 * size);
        ASSERT_TRUE(objective.refresh_preconditioner(point, false));
      }
    });
  }
}

}  // namespace attnreg::test_scaled_columns
