#include "algebra/dense_product.hpp"

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <algorithm>

namespace attnreg::test_dense_product {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using ByRows = Eigen::Matrix<double, -1, -1, Eigen::RowMajor>;

/// The sums that define a product, without any kernel.
MatrixXd by_definition(const MatrixXd& A, const MatrixXd& B) {
  MatrixXd C = MatrixXd::Zero(A.rows(), B.cols());
  for (Index k = 0; k < A.cols(); ++k) {
    for (Index j = 0; j < B.cols(); ++j) {
      for (Index i = 0; i < A.rows(); ++i) C(i, j) += A(i, k) * B(k, j);
    }
  }
  return C;
}

/// Sums of at most 60 products of numbers below 2 in another order, times 3.
constexpr double kRounding = 1e-12;

/// Each way to put, add or subtract the product of two expressions into what is stored by columns, by rows, or is part
/// of another matrix.
template <class Left, class Right>
void expect_product(const Left& A, const Right& B) {
  const MatrixXd C = by_definition(A, B);
  const MatrixXd by_columns = A * B;
  EXPECT_LE((by_columns - C).cwiseAbs().maxCoeff(), kRounding);
  ByRows by_rows = ByRows::Ones(C.rows(), C.cols());
  by_rows.noalias() -= 3 * A * B;
  EXPECT_LE((MatrixXd(by_rows).array() - 1 + 3 * C.array()).abs().maxCoeff(), kRounding);

  MatrixXd columns = MatrixXd::Constant(2 * C.rows() + 1, 2 * C.cols() + 1, 7);
  columns.block(1, 1, C.rows(), C.cols()).noalias() += A * (2 * B);
  EXPECT_LE((columns.block(1, 1, C.rows(), C.cols()).array() - 7 - 2 * C.array()).abs().maxCoeff(), kRounding);
  columns.block(1, 1, C.rows(), C.cols()).setConstant(7);
  EXPECT_TRUE((columns.array() == 7).all()) << "beside the block";

  ByRows rows = ByRows::Constant(2 * C.rows() + 1, 2 * C.cols() + 1, 7);
  rows.block(1, 1, C.rows(), C.cols()) = A * B;
  EXPECT_LE((MatrixXd(rows.block(1, 1, C.rows(), C.cols())) - C).cwiseAbs().maxCoeff(), kRounding);
  rows.block(1, 1, C.rows(), C.cols()).setConstant(7);
  EXPECT_TRUE((rows.array() == 7).all()) << "beside the block";
}

TEST(DenseProduct, GivesTheSumsForEachOrderShapeAndKindOfExpression) {
  for (const Index m : {1, 2, 7, 40}) {
    for (const Index k : {1, 5, 50}) {
      for (const Index n : {1, 2, 4, 33}) {
        SCOPED_TRACE(testing::Message() << m << " x " << k << " times " << k << " x " << n);
        const MatrixXd A = MatrixXd::Random(m, k), B = MatrixXd::Random(k, n);
        const MatrixXd At = A.transpose(), Bt = B.transpose();
        const ByRows rows_A = A, rows_B = B, rows_At = At, rows_Bt = Bt;
        expect_product(A, B);
        expect_product(rows_A, B);
        expect_product(A, rows_B);
        expect_product(rows_A, rows_B);
        expect_product(At.transpose(), B);
        expect_product(A, rows_Bt.transpose());
        expect_product(rows_At.transpose(), Bt.transpose());
        expect_product(A + A, rows_B.cwiseAbs());
        expect_product(A.leftCols((k + 1) / 2), rows_B.topRows((k + 1) / 2));
        expect_product(A * B, Bt * At);
      }
    }
  }
}

TEST(DenseProduct, GivesTheSumsForVectorsWhoseElementsLieApart) {
  for (const Index m : {1, 3, 40}) {
    for (const Index k : {1, 5, 50}) {
      SCOPED_TRACE(testing::Message() << m << " x " << k);
      const MatrixXd A = MatrixXd::Random(m, k), X = MatrixXd::Random(k, 3);
      const ByRows rows_A = A, rows_X = X;
      const VectorXd y = by_definition(A, X.col(1));
      EXPECT_LE((VectorXd(A * rows_X.col(1)) - y).cwiseAbs().maxCoeff(), kRounding);
      EXPECT_LE((Eigen::RowVectorXd(X.col(1).transpose() * rows_A.transpose()).transpose() - y).cwiseAbs().maxCoeff(),
                kRounding);
      MatrixXd apart = MatrixXd::Ones(3, m);
      apart.row(1).transpose() += A * rows_X.col(1);
      apart.row(2) -= X.col(1).transpose() * A.transpose();
      EXPECT_LE((apart.row(1).transpose().array() - 1 - y.array()).abs().maxCoeff(), kRounding);
      EXPECT_LE((apart.row(2).transpose().array() - 1 + y.array()).abs().maxCoeff(), kRounding);
      EXPECT_TRUE((apart.row(0).array() == 1).all());
      EXPECT_NEAR(A.row(0) * rows_X.col(1), y(0), kRounding);
    }
  }
}

TEST(DenseProduct, OfNothingIsZero) {
  const MatrixXd A(3, 0), B(0, 2), none(0, 3);
  EXPECT_TRUE(MatrixXd(A * B).isZero(0));
  EXPECT_EQ((none * MatrixXd::Ones(3, 2)).rows(), 0);
  EXPECT_EQ(VectorXd(none * VectorXd::Ones(3)).size(), 0);
}

}  // namespace attnreg::test_dense_product
