#include "kernels/gram_kernels.hpp"

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "attnreg/row_matrix.hpp"
#include "support/reference.hpp"
#include "support/vector_targets.hpp"

namespace attnreg::test_gram_kernels {

class GramKernels : public testing::TestWithParam<VectorTarget> {
 protected:
  SelectVectorTarget select_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Targets, GramKernels, testing::ValuesIn(vector_targets()), vector_target_name);

RowMajorMatrix random_matrix(Index rows, Index columns, std::uint64_t seed) {
  return reference::random_vector(rows * columns, seed).reshaped<Eigen::RowMajor>(rows, columns);
}

/// sum_k s_ik p_kj, term by term, and what its rounding can be: at most so many eps of the sum of the
/// absolute terms, a few for the rounding of the terms themselves.
struct Naive {
  RowMajorMatrix product, tolerance;
};

Naive multiply(const RowMajorMatrix& S, const RowMajorMatrix& P) {
  Naive naive{RowMajorMatrix::Zero(S.rows(), P.cols()), RowMajorMatrix::Zero(S.rows(), P.cols())};
  for (Index i = 0; i < S.rows(); ++i)
    for (Index k = 0; k < S.cols(); ++k)
      for (Index j = 0; j < P.cols(); ++j) {
        naive.product(i, j) += S(i, k) * P(k, j);
        naive.tolerance(i, j) += std::abs(S(i, k) * P(k, j));
      }
  naive.tolerance *= static_cast<double>(S.cols() + 8) * std::numeric_limits<double>::epsilon();
  return naive;
}

const std::vector<Index> kSizes{1, 3, 12, 13, 24, 63, 64, 65, 200, 257};

TEST_P(GramKernels, AddGramIsTheSumOfOuterProducts) {
  for (const Index rows : {Index{0}, Index{1}, Index{63}, Index{64}, Index{129}, Index{600}})
    for (const Index d : kSizes) {
      if (rows * d * d > 10000000) continue;
      const RowMajorMatrix P = random_matrix(rows, d, 1), before = random_matrix(d, d, 2);
      RowMajorMatrix C = before;
      kernels::add_gram(P.data(), rows, d, C.data());
      const Naive naive = multiply(P.transpose(), P);
      for (Index i = 0; i < d; ++i)
        for (Index j = 0; j <= i; ++j)
          EXPECT_NEAR(C(i, j), before(i, j) + naive.product(i, j),
                      naive.tolerance(i, j) + 4e-16 * std::abs(before(i, j)))
              << rows << " x " << d << " at " << i << ", " << j;
    }
}

// Rows of either sign and of weight 0.
TEST_P(GramKernels, AddGramInMultiplesOfItsDepthHasTheSameBits) {
  const Index d = 37, depth = kernels::gram_depth(), rows = 3 * depth + 5;
  const RowMajorMatrix P = random_matrix(rows, d, 1);
  RowMajorMatrix whole = RowMajorMatrix::Zero(d, d), parts = whole;
  kernels::add_gram(P.data(), rows, d, whole.data());
  kernels::add_gram(P.data(), 2 * depth, d, parts.data());
  kernels::add_gram(P.data() + 2 * depth * d, rows - 2 * depth, d, parts.data());
  for (Index i = 0; i < d; ++i)
    for (Index j = 0; j <= i; ++j) EXPECT_EQ(whole(i, j), parts(i, j));
}

TEST_P(GramKernels, AddSignedGramTakesRowsBySign) {
  for (const Index rows : {Index{0}, Index{1}, Index{64}, Index{700}})
    for (const Index d : {1, 13, 24, 65, 100}) {
      const RowMajorMatrix A = random_matrix(rows, d, 1);
      const Eigen::VectorXd centre = reference::random_vector(d, 2);
      Eigen::VectorXd weights = reference::random_vector(rows, 3);
      for (Index i = 0; i < rows; i += 5) weights[i] = 0;
      RowMajorMatrix sums[2] = {RowMajorMatrix::Zero(d, d), RowMajorMatrix::Zero(d, d)};
      kernels::add_signed_gram(A.data(), rows, d, weights.data(), centre.data(), sums[0].data(), sums[1].data());
      for (int k = 0; k < 2; ++k) {
        const RowMajorMatrix centred = A.rowwise() - centre.transpose();
        const Eigen::VectorXd part = (k == 0 ? 1 : -1) * weights;
        const RowMajorMatrix scaled = part.cwiseMax(0).asDiagonal() * centred;
        const Naive naive = multiply(centred.transpose(), scaled);
        for (Index i = 0; i < d; ++i)
          for (Index j = 0; j <= i; ++j) EXPECT_NEAR(sums[k](i, j), naive.product(i, j), naive.tolerance(i, j));
      }
    }
}

TEST_P(GramKernels, AddMatrixProduct) {
  for (const Index m : {1, 4, 65, 200})
    for (const Index k : {1, 64, 257})
      for (const Index d : kSizes) {
        const RowMajorMatrix S = random_matrix(m, k, 1), P = random_matrix(k, d, 2), before = random_matrix(m, d, 3);
        RowMajorMatrix out = before;
        kernels::add_matrix_product(S.data(), m, k, P.data(), d, false, out.data());
        const Naive naive = multiply(S, P);
        const RowMajorMatrix error = (out - before - naive.product).cwiseAbs();
        const RowMajorMatrix allowed = naive.tolerance + 4e-16 * (before.cwiseAbs() + naive.product.cwiseAbs());
        EXPECT_TRUE((error.array() <= allowed.array()).all()) << m << " x " << k << " x " << d;

        out = before;
        kernels::add_matrix_product(S.data(), m, k, P.data(), d, true, out.data());
        bool lower_right = true;
        for (Index i = 0; i < m; ++i)
          for (Index j = 0; j <= std::min(i, d - 1); ++j)
            lower_right &= std::abs(out(i, j) - before(i, j) - naive.product(i, j)) <= allowed(i, j);
        EXPECT_TRUE(lower_right) << "lower " << m << " x " << k << " x " << d;
      }
}

// Nothing outside of C is touched: its last rows end inside of a block of the kernel.
TEST_P(GramKernels, AddGramStaysInsideOfC) {
  for (const Index d : {1, 5, 13, 66}) {
    const RowMajorMatrix P = random_matrix(70, d, 1);
    std::vector<double> C(static_cast<std::size_t>(d * d) + 64, 7.0);
    kernels::add_gram(P.data(), 70, d, C.data() + 32);
    for (std::size_t k = 0; k < 32; ++k) {
      EXPECT_EQ(C[k], 7);
      EXPECT_EQ(C[static_cast<std::size_t>(d * d) + 32 + k], 7);
    }
  }
}

}  // namespace attnreg::test_gram_kernels
