#include "algebra/dense_factors.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "support/reference.hpp"

namespace attnreg::test_dense_factors {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

/// Backward errors of LAPACK are a modest multiple of eps times the norm; matrices here have at most 12 rows.
constexpr double kTolerance = 1e-13;

double distance_from_orthonormal(const MatrixXd& Q) {
  return (Q.transpose() * Q - MatrixXd::Identity(Q.cols(), Q.cols())).norm();
}

TEST(DenseFactors, RebuildTheMatrix) {
  for (const auto& [rows, columns] : {std::pair<Index, Index>{12, 5}, {5, 12}, {6, 6}, {1, 1}, {7, 1}, {1, 7}}) {
    const MatrixXd M = reference::random_matrix(rows, columns, 1);
    const ThinSvd svd = thin_svd(M);
    EXPECT_LE((svd.U * svd.values.asDiagonal() * svd.V.transpose() - M).norm(), kTolerance * M.norm());
    EXPECT_LE(distance_from_orthonormal(svd.U) + distance_from_orthonormal(svd.V), kTolerance);
    EXPECT_EQ(svd.rank(), std::min(rows, columns));
    const SymmetricEigen eigen = symmetric_eigen(M * M.transpose(), true);
    ASSERT_TRUE(eigen.finite);
    EXPECT_LE((eigen.vectors * eigen.values.asDiagonal() * eigen.vectors.transpose() - M * M.transpose()).norm(),
              kTolerance * M.squaredNorm());
    if (rows < columns) continue;
    const MatrixXd Q = orthonormal_columns(M), R = Q.transpose() * M;
    EXPECT_LE(distance_from_orthonormal(Q) + (Q * R - M).norm(), kTolerance * (1 + M.norm()));
    EXPECT_GE(R.diagonal().minCoeff(), 0);
    EXPECT_LE(MatrixXd(R.triangularView<Eigen::StrictlyLower>()).norm(), kTolerance * M.norm());
  }
}

TEST(DenseFactors, LeastSquaresHasTheSmallestNorm) {
  MatrixXd A = reference::random_matrix(9, 4, 2);
  A.col(3) = A.col(0) - 2 * A.col(1);  // rank 3, the null space is (1, -2, 0, -1)
  const MatrixXd B = reference::random_matrix(9, 2, 3), X = least_squares(A, B);
  EXPECT_EQ(thin_svd(A).rank(), 3);
  EXPECT_LE((A.transpose() * (A * X - B)).norm(), 1e-12);
  EXPECT_LE((Eigen::RowVector4d(1, -2, 0, -1) * X).norm(), 1e-12);
}

/// LAPACK itself hangs on some of these, and calls others factored.
TEST(DenseFactors, NonFiniteNumbersGiveNaN) {
  constexpr double kBad[] = {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                             -std::numeric_limits<double>::infinity()};
  for (const double bad : kBad)
    for (const Index place : {Index{0}, Index{7}}) {
      MatrixXd M = reference::random_matrix(8, 8, 4);
      M(place, place) = bad;
      const SymmetricEigen eigen = symmetric_eigen(M, true);
      EXPECT_FALSE(eigen.finite);
      EXPECT_TRUE(eigen.values.array().isNaN().all() && eigen.vectors.array().isNaN().all());
      const ThinSvd svd = thin_svd(M);
      EXPECT_TRUE(svd.values.array().isNaN().all() && svd.U.array().isNaN().all() && svd.V.array().isNaN().all());
      EXPECT_EQ(svd.values.size(), 8);
      EXPECT_EQ(svd.rank(), 0);
      EXPECT_TRUE(least_squares(M, MatrixXd::Ones(8, 3)).array().isNaN().all());
      EXPECT_TRUE(least_squares(MatrixXd::Ones(8, 3), M).array().isNaN().all());
      EXPECT_TRUE(orthonormal_columns(M).array().isNaN().all());
    }
}

}  // namespace attnreg::test_dense_factors
