#include "kernels/row_kernels.hpp"

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <limits>

#include "attnreg/row_matrix.hpp"
#include "support/at_end_of_memory.hpp"
#include "support/reference.hpp"
#include "support/vector_targets.hpp"

namespace attnreg::test_short_rows {

using Eigen::VectorXd;
using kernels::DenseBlock;

constexpr double kEps = std::numeric_limits<double>::epsilon();

class ShortRows : public testing::TestWithParam<VectorTarget> {
 protected:
  /// Calls `check` for rows of every short length in double and float, and blocks with and without rows that are left
  /// over; the last block ends where the memory does.
  template <class Check>
  void for_blocks(Check&& check) {
    for (Index d = 1; d <= kernels::kShortColumns; ++d)
      for (const Index pieces : {1, 4})
        for (const Index rows : {1, 2, 3, 4, 5, 8, 9, 11, 16, 17, 23}) {
          const RowMajorMatrixFloat single = reference::random_vector((kBefore + pieces * rows) * d, 1)
                                                 .reshaped<Eigen::RowMajor>(kBefore + pieces * rows, d)
                                                 .cast<float>();
          const RowMajorMatrix A = single.cast<double>();
          const kernels::RowBlock block{kBefore, rows, pieces, rows};
          const test::AtEndOfMemory<double> doubles(A);
          const test::AtEndOfMemory<float> floats(single);
          check(A, DenseBlock{doubles.data(), d, block});
          check(A, DenseBlock{floats.data(), d, block});
        }
  }

  static constexpr Index kBefore = 2;
  SelectVectorTarget select_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Targets, ShortRows, testing::ValuesIn(vector_targets()), vector_target_name);

// At most 8 terms a product, each rounded twice.
constexpr double kOfRow = 16 * kEps;

TEST_P(ShortRows, Multiply) {
  for_blocks([&](const RowMajorMatrix& A, const DenseBlock& block) {
    ASSERT_TRUE(kernels::are_short(block));
    const Index rows = A.rows() - kBefore;
    const VectorXd x = reference::random_vector(A.cols(), 2);
    VectorXd z(rows), one(1);
    kernels::multiply(block, x.data(), z.data());
    for (Index i = 0; i < rows; ++i) {
      EXPECT_NEAR(z[i], A.row(kBefore + i).dot(x), kOfRow * A.row(kBefore + i).cwiseAbs().dot(x.cwiseAbs()));
      kernels::multiply({block.rows, A.cols(), {kBefore + i, 1, 1, 0}}, x.data(), one.data());
      EXPECT_EQ(one[0], z[i]) << "wherever the row is";
    }
  });
}

TEST_P(ShortRows, TransposeMultiply) {
  for_blocks([&](const RowMajorMatrix& A, const DenseBlock& block) {
    const Index rows = A.rows() - kBefore;
    for (const Index k : {1, 2, 3}) {
      const RowMajorMatrix U = reference::random_vector(rows * k, 3).reshaped<Eigen::RowMajor>(rows, k);
      const auto own = A.bottomRows(rows).transpose();
      Eigen::MatrixXd out = Eigen::MatrixXd::Ones(A.cols(), k);
      const Eigen::MatrixXd expected = out + own * U, scale = out + own.cwiseAbs() * U.cwiseAbs();
      kernels::add_transpose_multiply(block, U.data(), k, out.data());
      EXPECT_TRUE(((out - expected).array().abs() <= 2 * static_cast<double>(rows) * kEps * scale.array()).all());
    }
  });
}

TEST_P(ShortRows, NormalProduct) {
  for_blocks([&](const RowMajorMatrix& A, const DenseBlock& block) {
    const Index rows = A.rows() - kBefore, d = A.cols();
    const VectorXd x = reference::random_vector(d, 2), curvature = reference::random_vector(A.rows(), 4),
                   ridge = reference::random_vector(A.rows(), 5).cwiseAbs();
    const RowCurvature weights{curvature.data(), ridge.data(), 0.25};
    VectorXd y = VectorXd::Zero(A.rows()), out = VectorXd::Ones(d + 1), expected = out, scale = out;
    kernels::add_normal_product(block, x.data(), weights, y.data(), out.data());
    EXPECT_TRUE(y.head(kBefore).isZero(0));
    for (Index i = kBefore; i < A.rows(); ++i) {
      const double size = A.row(i).cwiseAbs().dot(x.cwiseAbs());
      EXPECT_NEAR(y[i], A.row(i).dot(x), kOfRow * size);
      const double u = weights.weight(i, y[i], expected[d]);
      expected.head(d) += u * A.row(i).transpose();
      scale[d] += std::abs(curvature[i]) * (size + 0.25);
      scale.head(d) += (std::abs(curvature[i]) * (size + 0.25) + ridge[i] * size) * A.row(i).cwiseAbs().transpose();
    }
    EXPECT_TRUE(((out - expected).array().abs() <= 2 * static_cast<double>(rows + 2) * kEps * scale.array()).all());
  });
}

}  // namespace attnreg::test_short_rows
