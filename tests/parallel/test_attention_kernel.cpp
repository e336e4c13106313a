#include "attnreg/apply_attention.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support/reference.hpp"
#include "support/refusal.hpp"

namespace attnreg::test_attention_kernel {

using Eigen::VectorXd;
using reference::Holding;
using reference::Layout;
using reference::Matrix;
using Kind = AttentionKernel::Kind;

/// The definition, in long double: P_ij = g(z_ij) / sum_k g(z_ik), with powers by repeated multiplication.
Matrix attention_matrix(const RowMajorMatrix& Q, const RowMajorMatrix& K, const AttentionKernel& kernel) {
  const Matrix Z = static_cast<long double>(kernel.scale) * Q.cast<long double>() * K.cast<long double>().transpose();
  Matrix G = Matrix::Ones(Z.rows(), Z.cols());
  if (kernel.kind == Kind::softmax)
    G = (Z.colwise() - Z.rowwise().maxCoeff()).array().exp();
  else
    for (std::int64_t k = 0; k < kernel.degree; ++k) G = G.cwiseProduct(Z);
  return G.rowwise().sum().cwiseInverse().asDiagonal() * G;
}

/// Inner products have errors of d eps |q| |k|, at most 1e-14 here; the power multiplies relative errors by its degree,
/// and ln|z|, some tens near z = 0, its weight being small there. The sum over 300 keys adds 300 eps at most.
constexpr double kTolerance = 1e-12;

struct Shape {
  Index queries, keys, columns, values;
};
constexpr Shape shapes[] = {{1, 1, 1, 1}, {3, 700, 5, 2}, {300, 2, 1, 3}, {131, 300, 7, 4}};
const AttentionKernel even_kernels[] = {
    {Kind::softmax, 1, 1.0}, {Kind::softmax, 1, 0.3}, {Kind::polynomial, 2, 1.0}, {Kind::polynomial, 8, 0.5}};

TEST(AttentionKernel, IsTheDefinitionOnAnyNumberOfRanks) {
  const Communicator world(MPI_COMM_WORLD);
  for (const Shape& shape : shapes) {
    const RowMajorMatrix Q = reference::random_matrix(shape.queries, shape.columns, 1);
    const RowMajorMatrix K = reference::random_matrix(shape.keys, shape.columns, 2);
    const RowMajorMatrix V = reference::random_matrix(shape.keys, shape.values, 3);
    for (const Layout layout : reference::layouts) {
      const auto queries = reference::distribute(world, Q, layout);
      const auto keys = reference::distribute(world, K, Layout::random);
      const auto values = reference::distribute(world, V, Layout::even);
      for (const AttentionKernel& kernel : even_kernels) {
        const Matrix P = attention_matrix(Q, K, kernel), O = P * V.cast<long double>();
        const AttentionOutput found = apply_attention(queries, keys, values, kernel);
        const AttentionRows rows(queries, keys, kernel);
        const Index first = static_cast<Index>(queries.first_row()), count = queries.rows_local();
        EXPECT_EQ(found.output.rows(), count);
        EXPECT_LE((found.output.cast<long double>() - O.middleRows(first, count)).cwiseAbs().sum(),
                  static_cast<double>(count) * kTolerance);
        for (Index i = 0; i < count; i += 7)
          EXPECT_LE((rows.rows(i, 1).cast<long double>() - P.row(first + i)).cwiseAbs().maxCoeff(), kTolerance);
      }
    }
  }
}

TEST(AttentionKernel, TakesFloatAndSparseRows) {
  const Communicator world(MPI_COMM_WORLD);
  // Single precision holds multiples of 1/8 exactly, so all holdings are the same matrix.
  const RowMajorMatrix Q = (8 * reference::random_matrix(40, 6, 4)).array().round() / 8;
  const RowMajorMatrix V = reference::random_matrix(40, 3, 5);
  const auto values = reference::distribute(world, V, Layout::even);
  const Matrix O = attention_matrix(Q, Q, {}) * V.cast<long double>();
  for (const Holding holding : {Holding::float32, Holding::sparse64, Holding::sparse32, Holding::view}) {
    const auto both = reference::distribute(world, Q, Layout::random, holding);
    const AttentionOutput found = apply_attention(both, both, values, {});
    const Matrix expected = O.middleRows(static_cast<Index>(both.first_row()), both.rows_local());
    EXPECT_LE((found.output.cast<long double>() - expected).cwiseAbs().sum(), 40 * kTolerance);
  }
}

TEST(AttentionKernel, LogitsOfThousandsDoNotOverflow) {
  const Communicator world(MPI_COMM_WORLD);
  const RowMajorMatrix Q = RowMajorMatrix::Constant(3, 1, 5000);
  RowMajorMatrix K(3, 1), V(3, 1);
  K << 1, 1 - std::log(3.0) / 5000, -1;
  V << 1, 5, 7;
  const auto queries = reference::distribute(world, Q, Layout::even);
  const auto keys = reference::distribute(world, K, Layout::even);
  const auto values = reference::distribute(world, V, Layout::even);
  // Weights 3/4 and 1/4; logits of 5000 have an absolute error of 5000 eps, their difference twice that.
  const AttentionOutput softmax = apply_attention(queries, keys, values, {});
  // 5000^400 is beyond double; the first key's weight is (1 - ln 3 / 5000)^-400 times the second's, the third is as the
  // first.
  const AttentionOutput power = apply_attention(queries, keys, values, {Kind::polynomial, 400, 1.0});
  const double second = std::pow(K(1, 0), 400), expected = (1 + 5 * second + 7) / (2 + second);
  for (Index i = 0; i < queries.rows_local(); ++i) {
    EXPECT_NEAR(softmax.output(i, 0), 2, 1e-11);
    EXPECT_NEAR(softmax.log_normaliser[i], 5000 + std::log(4.0 / 3), 1e-11);
    EXPECT_NEAR(power.output(i, 0), expected, 1e-11);  // 400 ln 5000 = 3407, rounded
  }
}

TEST(AttentionKernel, ScaleCancelsInPowers) {
  const Communicator world(MPI_COMM_WORLD);
  const RowMajorMatrix X = reference::random_matrix(20, 3, 6);
  const auto rows = reference::distribute(world, X, Layout::random);
  const auto one = apply_attention(rows, rows, rows, {Kind::polynomial, 6, 1.0});
  const auto other = apply_attention(rows, rows, rows, {Kind::polynomial, 6, 1e-30});
  EXPECT_LE((one.output - other.output).cwiseAbs().sum(), 1e-11);  // 6 ln 1e-30 = 414 carries 60 times more rounding
}

TEST(AttentionKernel, RefusesOnAllRanksTogether) {
  using testing::HasSubstr;
  const Communicator world(MPI_COMM_WORLD);
  RowMajorMatrix X = reference::random_matrix(9, 2, 7).cwiseAbs();
  X.row(4) *= -1;
  const auto rows = reference::distribute(world, X, Layout::even);
  const auto positive = reference::distribute(world, RowMajorMatrix(X.cwiseAbs()), Layout::even);
  const auto wide = reference::distribute(world, RowMajorMatrix(RowMajorMatrix::Ones(9, 3)), Layout::even);
  const auto few = reference::distribute(world, RowMajorMatrix(RowMajorMatrix::Ones(8, 2)), Layout::even);
  const auto huge = reference::distribute(world, RowMajorMatrix(1e200 * X), Layout::even);
  const auto zero = reference::distribute(world, RowMajorMatrix(RowMajorMatrix::Zero(9, 2)), Layout::even);
  const auto message = [](const RowMatrix& Q, const RowMatrix& K, const RowMatrix& V, const AttentionKernel& kernel) {
    return refusal([&] { apply_attention(Q, K, V, kernel); });
  };
  const AttentionKernel cubic{Kind::polynomial, 3, 1.0};
  EXPECT_THAT(message(positive, rows, rows, cubic), HasSubstr("query 0 and key 4 (counted from 0) is -"));
  EXPECT_THROW(apply_attention(huge, huge, rows, {}), NotFinite);
  EXPECT_THAT(message(zero, rows, rows, cubic), HasSubstr("query 0 (counted from 0): all its logits are 0"));
  EXPECT_THAT(message(rows, wide, rows, {}), HasSubstr("2 columns and the keys 3"));
  EXPECT_THAT(message(rows, rows, few, {}), HasSubstr("9 keys and 8 values"));
  EXPECT_THAT(message(rows, rows, rows, {Kind::polynomial, 0, 1.0}), HasSubstr("degree of the polynomial is 0"));
  EXPECT_THAT(message(rows, rows, rows, {Kind::softmax, 1, 0.0}), HasSubstr("scale"));
  EXPECT_THAT(message(rows, rows, rows, {Kind::softmax, 1, NAN}), HasSubstr("scale"));
}

}  // namespace attnreg::test_attention_kernel
