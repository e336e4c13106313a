#include "kernels/sketch_kernels.hpp"

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <limits>
#include <vector>

#include "attnreg/row_matrix.hpp"
#include "support/reference.hpp"
#include "support/vector_targets.hpp"

namespace attnreg::test_sketch_kernels {

using kernels::Scatter;

constexpr double kEps = std::numeric_limits<double>::epsilon();

class SketchKernels : public testing::TestWithParam<VectorTarget> {
 protected:
  SelectVectorTarget select_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Targets, SketchKernels, testing::ValuesIn(vector_targets()), vector_target_name);

RowMajorMatrix random_rows(Index rows, Index d) {
  return reference::random_vector(rows * d, 1).reshaped<Eigen::RowMajor>(rows, d);
}

// Both sums have at most 20 terms a number, each rounded twice.
TEST_P(SketchKernels, ScatterRows) {
  for (const Index d : {1, 3, 8, 13, 64, 100}) {
    const RowMajorMatrix A = random_rows(40, d);
    std::vector<Scatter> entries;
    for (Index k = 0; k < 70; ++k) entries.push_back({k * 7 % 40, k * k % 9, 0.1 * static_cast<double>(k - 30)});
    RowMajorMatrix expected = RowMajorMatrix::Zero(9, d), scale = expected, found = expected;
    for (const auto& entry : entries) {
      expected.row(entry.target) += entry.value * A.row(entry.source);
      scale.row(entry.target) += (entry.value * A.row(entry.source)).cwiseAbs();
    }
    kernels::scatter_rows(A.data(), d, entries, found.data());
    EXPECT_TRUE(((found - expected).array().abs() <= 40 * kEps * scale.array()).all()) << d;
    const RowMajorMatrix before = found;
    kernels::scatter_rows(A.data(), d, {}, found.data());
    EXPECT_EQ(found, before) << d;
  }
}

// One chain of sums for a number of the result, each term rounded twice.
TEST_P(SketchKernels, AddTransposedBlock) {
  constexpr Index k = kernels::kGroupColumns;
  for (const Index rows : {1, 7, 40})
    for (const Index d : {1, 2, 3, 5, 6, 13, 64, 100})
      for (const Index groups : {1, 2, 3}) {
        const RowMajorMatrix A = random_rows(rows, d).cast<double>();
        const RowMajorMatrix U =
            reference::random_vector(rows * groups * k, 3).reshaped<Eigen::RowMajor>(rows, groups * k);
        const RowMajorMatrix expected = (A.transpose() * U).array() + 1,
                             scale = A.cwiseAbs().transpose() * U.cwiseAbs();
        std::vector<double> out(static_cast<std::size_t>(d * groups * k), 1.0);
        kernels::add_transposed_block(A.data(), rows, d, U.data(), groups, out.data());
        for (Index g = 0; g < groups; ++g) {
          const Eigen::Map<const RowMajorMatrix> of_group(out.data() + g * d * k, d, k);
          const auto error = (of_group - expected.middleCols(g * k, k)).array().abs();
          const auto bound = 4 * static_cast<double>(rows) * kEps * (1 + scale.middleCols(g * k, k).array());
          EXPECT_TRUE((error <= bound).all()) << rows << " x " << d << ", group " << g;
        }
      }
}

TEST_P(SketchKernels, MultiplyBlock) {
  constexpr Index k = kernels::kBlockColumns;
  for (const Index rows : {1, 5, 6, 7, 40})
    for (const Index d : {1, 3, 64, 100}) {
      const RowMajorMatrix A = random_rows(rows, d);
      const RowMajorMatrix N = reference::random_vector(d * k, 2).reshaped<Eigen::RowMajor>(d, k);
      RowMajorMatrix found(rows, k), one(1, k);
      kernels::multiply_block(A.data(), rows, d, N.data(), found.data());
      const RowMajorMatrix scale = A.cwiseAbs() * N.cwiseAbs();
      const double roundings = 2 * static_cast<double>(d + 1) * kEps;  // d products and sums, here and in Eigen
      EXPECT_TRUE(((found - A * N).array().abs() <= roundings * scale.array()).all()) << rows << " x " << d;
      for (Index i = 0; i < rows; ++i) {  // the same bits, whatever the other rows
        kernels::multiply_block(A.row(i).data(), 1, d, N.data(), one.data());
        EXPECT_EQ(one, found.row(i)) << rows << " x " << d;
      }
    }
}

}  // namespace attnreg::test_sketch_kernels
