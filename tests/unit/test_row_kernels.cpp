#include "kernels/row_kernels.hpp"

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "support/at_end_of_memory.hpp"
#include "support/reference.hpp"
#include "support/vector_targets.hpp"

namespace attnreg::test_row_kernels {

using kernels::DenseBlock;
using kernels::DenseRows;

class RowKernels : public testing::TestWithParam<VectorTarget> {
 protected:
  SelectVectorTarget select_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Targets, RowKernels, testing::ValuesIn(vector_targets()), vector_target_name);

/// What the bits of a half mean, by the definition of IEEE 754.
double half_value(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double size = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return (bits & 0x8000) != 0 ? -size : size;
}

// All finite numbers of either type, each at every place of a vector.
TEST_P(RowKernels, WidenExactly) {
  std::vector<Eigen::half> halves;
  std::vector<Eigen::bfloat16> shorts;
  std::vector<double> of_half, of_short;
  for (std::uint32_t k = 0; k < 65536; ++k) {
    const auto bits = static_cast<std::uint16_t>(k);
    if ((bits & 0x7c00) != 0x7c00)
      halves.push_back(std::bit_cast<Eigen::half>(bits)), of_half.push_back(half_value(bits));
    if ((bits & 0x7f80) == 0x7f80) continue;
    shorts.push_back(std::bit_cast<Eigen::bfloat16>(bits));
    of_short.push_back(static_cast<double>(std::bit_cast<float>(k << 16)));
  }
  const auto check = [](const DenseRows& rows, const std::vector<double>& expected) {
    for (std::size_t first = 0; first < 9; ++first) {
      std::vector<double> found(expected.size() - first, std::numeric_limits<double>::quiet_NaN());
      kernels::widen(rows, static_cast<Index>(first), std::ssize(found), found.data());
      std::size_t wrong = 0;
      for (std::size_t k = 0; k < found.size(); ++k)
        wrong += std::bit_cast<std::uint64_t>(found[k]) != std::bit_cast<std::uint64_t>(expected[k + first]);
      EXPECT_EQ(wrong, 0U) << first;
    }
  };
  check(halves.data(), of_half);
  check(shorts.data(), of_short);
}

// What is summed over a row has the same bits in every type, but for short rows of double and float, which have kernels
// of their own; how many rows are added up before they are added to a sum
// over rows depends on the bytes of a row.
TEST_P(RowKernels, AreThoseOfTheNumbersInDouble) {
  for (const Index d : {1, 2, 3, 7, 8, 9, 63, 64, 300}) {
    constexpr Index kPiece = 5, kRows = 4 * kPiece;
    const RowMajorMatrix A = reference::rounded_for_all(reference::random_matrix(kRows, d, 1));
    const RowMajorMatrixHalf half = A.cast<Eigen::half>();
    const RowMajorMatrixBfloat16 brief = A.cast<Eigen::bfloat16>();
    const RowMajorMatrixFloat single = A.cast<float>();
    const Eigen::VectorXd x = reference::random_vector(d, 2), curvature = reference::random_vector(kRows, 3),
                          ridge = reference::random_vector(kRows, 4);
    const RowMajorMatrix U = reference::random_matrix(kRows, 3, 5);
    const test::AtEndOfMemory<double> doubles(A), factors(x), columns(U), curvatures(curvature), ridges(ridge);
    const test::AtEndOfMemory<Eigen::half> halves(half);
    const test::AtEndOfMemory<Eigen::bfloat16> shorts(brief);
    const test::AtEndOfMemory<float> singles(single);
    for (const Index pieces : {1, 4}) {
      const auto run = [&](const DenseRows& rows) {
        const DenseBlock block{rows, d, {0, kRows / pieces, pieces, kRows / pieces}};
        std::vector<Eigen::VectorXd> found(5, Eigen::VectorXd::Zero(kRows));
        found[3].setZero(3 * d), found[4].setZero(d + 1);
        kernels::multiply(block, factors.data(), found[0].data());
        kernels::multiply_compensated(block, factors.data(), 0.1, found[1].data());
        kernels::add_transpose_multiply(block, columns.data(), 3, found[3].data());
        kernels::add_normal_product(block, factors.data(), {curvatures.data(), ridges.data(), 0.2}, found[2].data(),
                                    found[4].data());
        return found;
      };
      const auto expected = run(doubles.data());
      EXPECT_LE((expected[0] - A * x).cwiseAbs().maxCoeff(),
                2 * static_cast<double>(d) * reference::eps * x.norm() * A.norm());
      const Eigen::VectorXd u = (curvature.array() * (expected[2].array() - 0.2)).abs() +
                                (ridge.array() * expected[2].array()).abs();  // times sqrt(rows) at least their sum
      for (const DenseRows& rows : {DenseRows(singles.data()), DenseRows(halves.data()), DenseRows(shorts.data())}) {
        const auto found = run(rows);
        SCOPED_TRACE(std::to_string(d) + " columns, type " + std::to_string(rows.index()));
        const double apart = d > 8 ? 0 : 2 * static_cast<double>(d) * reference::eps * (x.norm() * A.norm() + 0.1);
        for (std::size_t k = 0; k < 3; ++k) EXPECT_LE((found[k] - expected[k]).lpNorm<Eigen::Infinity>(), apart) << k;
        const double rounding = 2 * (kRows + 1) * std::sqrt(kRows) * reference::eps, norm = A.norm();
        EXPECT_LE((found[3] - expected[3]).lpNorm<Eigen::Infinity>(), rounding * norm * U.norm());
        EXPECT_LE((found[4] - expected[4]).lpNorm<Eigen::Infinity>(), rounding * (norm + 1) * u.norm());
      }
    }
  }
}

}  // namespace attnreg::test_row_kernels
