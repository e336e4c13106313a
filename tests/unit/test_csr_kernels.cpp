#include "kernels/csr_kernels.hpp"
#include "kernels/sketch_kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "attnreg/row_matrix.hpp"
#include "numbers/random.hpp"

namespace attnreg::test_csr_kernels {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double tolerance = 1e-13;  // sums of fewer than 50 products of numbers of order 1

/// Rows with 0 to most columns, values exact in float.
CsrRows random_rows(Index rows, Index columns, bool single) {
  const RandomStream stream(7, Purpose::problem_rows);
  CsrRows A;
  A.columns = columns;
  A.is_single = single;
  for (Index i = 0; i < rows; ++i) {
    const double density = i % 5 == 0 ? 0 : stream.uniform(i, 1000);
    for (Index j = 0; j < columns; ++j) {
      if (stream.uniform(i, static_cast<std::uint32_t>(j)) > density) continue;
      const auto value = static_cast<float>(stream.uniform(i, static_cast<std::uint32_t>(2000 + j)) - 0.5);
      A.indices.push_back(static_cast<std::int32_t>(j));
      if (single) A.singles.push_back(value);
      if (!single) A.values.push_back(value);
    }
    A.offsets.push_back(static_cast<std::int64_t>(A.indices.size()));
  }
  return A;
}

RowMajorMatrix dense(const CsrRows& A) {
  RowMajorMatrix rows = RowMajorMatrix::Zero(A.rows(), A.columns);
  for (Index i = 0; i < A.rows(); ++i)
    for (auto k = static_cast<std::size_t>(A.offsets[static_cast<std::size_t>(i)]);
         k < static_cast<std::size_t>(A.offsets[static_cast<std::size_t>(i) + 1]); ++k)
      rows(i, A.indices[k]) += A.is_single ? static_cast<double>(A.singles[k]) : A.values[k];
  return rows;
}

class CsrKernels : public testing::TestWithParam<bool> {
 protected:
  static constexpr Index first = 3, count = 40, d = 37;
  CsrRows rows_ = random_rows(50, d, GetParam());
  RowMajorMatrix dense_ = dense(rows_).middleRows(first, count);

  template <class Use>
  void on_block(Use&& use) const {
    kernels::with_block(rows_, first, count, use);
  }
};

TEST_P(CsrKernels, Multiply) {
  const VectorXd x = VectorXd::LinSpaced(d, -1, 2);
  VectorXd z(count);
  on_block([&](const auto& A) { kernels::multiply(A, x.data(), z.data()); });
  EXPECT_LE((z - dense_ * x).cwiseAbs().maxCoeff(), tolerance);

  const RowMajorMatrix N =
      RowMajorMatrix::NullaryExpr(d, kernels::kBlockColumns, [](Index i, Index j) { return std::cos(i + 10 * j); });
  RowMajorMatrix Y(count, kernels::kBlockColumns);
  on_block([&](const auto& A) { kernels::multiply_packed(A, N.data(), Y.data()); });
  EXPECT_LE((Y - dense_ * N).cwiseAbs().maxCoeff(), tolerance);
}

TEST_P(CsrKernels, TransposeMultiply) {
  const RowMajorMatrix U = RowMajorMatrix::NullaryExpr(count, 3, [](Index i, Index j) { return std::sin(i - 3 * j); });
  const VectorXd u = U.col(1);
  VectorXd out = VectorXd::Ones(d), absolute = VectorXd::Ones(d);
  MatrixXd many = MatrixXd::Ones(d, 3);
  on_block([&](const auto& A) {
    kernels::add_transpose_multiply(A, u.data(), out.data());
    kernels::add_absolute_transpose_multiply(A, u.data(), absolute.data());
    kernels::add_transpose_multiply(A, U.data(), 3, many.data());
  });
  const VectorXd ones = VectorXd::Ones(d);
  EXPECT_LE((out - ones - dense_.transpose() * u).cwiseAbs().maxCoeff(), tolerance);
  EXPECT_LE((absolute - ones - dense_.cwiseAbs().transpose() * u).cwiseAbs().maxCoeff(), tolerance);
  EXPECT_LE((many - MatrixXd::Ones(d, 3) - dense_.transpose() * U).cwiseAbs().maxCoeff(), tolerance);
}

TEST_P(CsrKernels, RowsOneByOne) {
  VectorXd squares(count);
  const VectorXd ones = VectorXd::Ones(d);
  VectorXd out = VectorXd::Ones(d);
  RowMajorMatrix expanded = RowMajorMatrix::Constant(count, d, 99);
  on_block([&](const auto& A) {
    kernels::squared_norms(A, ones.data(), squares.data());
    kernels::add_scaled_row(A, 6, -2, out.data());
    kernels::expand(A, expanded.data());
  });
  EXPECT_LE((squares - dense_.rowwise().squaredNorm()).cwiseAbs().maxCoeff(), tolerance);
  EXPECT_LE((out - VectorXd::Ones(d) + 2 * dense_.row(6).transpose()).cwiseAbs().maxCoeff(), tolerance);
  EXPECT_EQ(expanded, dense_);
}

TEST_P(CsrKernels, GramOfSomeRows) {
  const std::vector<Index> rows{0, 2, 3, 8, 8, 39};
  const std::vector<double> weights{1, -2, 0.5, 3, 1, 0.25};
  RowMajorMatrix C = RowMajorMatrix::Zero(d, d);
  constexpr Index from = 3, to = 7;
  RowMajorMatrix panel = RowMajorMatrix::Zero(d - from, to - from);
  on_block([&](const auto& A) {
    kernels::add_gram(A, rows, weights, 0, d, d, C.data());
    kernels::add_gram(A, rows, weights, from, to, to - from, panel.data());
  });
  MatrixXd expected = MatrixXd::Zero(d, d);
  for (std::size_t k = 0; k < rows.size(); ++k)
    expected += weights[k] * dense_.row(rows[k]).transpose() * dense_.row(rows[k]);
  const MatrixXd lower = expected.triangularView<Eigen::Lower>();
  EXPECT_LE((C - lower).cwiseAbs().maxCoeff(), tolerance);
  EXPECT_EQ(panel, C.block(from, from, d - from, to - from));
}

INSTANTIATE_TEST_SUITE_P(Types, CsrKernels, testing::Bool(),
                         [](const auto& type) { return type.param ? "float32" : "float64"; });

TEST(CsrRows, SortsColumnsAndSumsDuplicates) {
  CsrRows A;
  A.columns = 6;
  A.offsets = {0, 2, 2, 7, 8, 10};
  A.indices = {1, 4, /**/ 5, 0, 5, 2, 0, /**/ 3, /**/ 3, 3};
  A.values = {1, 2, /**/ 3, 4, 5, 6, -4, /**/ 7, /**/ 8, 9};
  const RowMajorMatrix before = dense(A);
  EXPECT_THROW(check_rows(A), InvalidArgument);
  sort_rows(A);
  check_rows(A);
  EXPECT_EQ(dense(A), before);
  EXPECT_EQ(A.offsets, (std::vector<std::int64_t>{0, 2, 2, 5, 6, 7}));
  EXPECT_EQ(A.indices, (std::vector<std::int32_t>{1, 4, 0, 2, 5, 3, 3}));
  EXPECT_EQ(A.values, (std::vector<double>{1, 2, 0, 6, 8, 7, 17}));
}

TEST(CsrRows, ChecksWhatItIsGiven) {
  const auto is_refused = [](auto&& change) {
    CsrRows A = random_rows(8, 5, false);
    change(A);
    try {
      check_rows(A);
      return false;
    } catch (const InvalidArgument&) {
      return true;
    }
  };
  EXPECT_FALSE(is_refused([](CsrRows&) {}));
  EXPECT_FALSE(is_refused([](CsrRows& A) { A = CsrRows{}, A.columns = 1; }));
  EXPECT_TRUE(is_refused([](CsrRows& A) { A.columns = 0; }));
  EXPECT_TRUE(is_refused([](CsrRows& A) { A.offsets.clear(); }));
  EXPECT_TRUE(is_refused([](CsrRows& A) { A.offsets[0] = 1; }));
  EXPECT_TRUE(is_refused([](CsrRows& A) { A.offsets[3] = A.entries() + 1; }));
  EXPECT_TRUE(is_refused([](CsrRows& A) { A.values.pop_back(); }));
  EXPECT_TRUE(is_refused([](CsrRows& A) { A.indices.push_back(0); }));
  EXPECT_TRUE(is_refused([](CsrRows& A) { A.indices.back() = 5; }));
  EXPECT_TRUE(is_refused([](CsrRows& A) { A.indices.back() = -1; }));
  EXPECT_TRUE(is_refused([](CsrRows& A) { A.is_single = true; }));
}

}  // namespace attnreg::test_csr_kernels
