// Products by BLAS, leading subspaces of a matrix, eigenvectors at the end of a spectrum.

#include <gtest/gtest.h>

#include <cmath>

#include "algebra/blas_products.hpp"
#include "algebra/dense_factors.hpp"
#include "algebra/pivoted_factor.hpp"
#include "heads/leading_subspaces.hpp"
#include "support/reference.hpp"

namespace attnreg::test_leading_subspaces {

using reference::eps;

MatrixXd random_columns(Index rows, Index columns, std::uint64_t seed) {
  return orthonormal_columns(reference::random_matrix(rows, columns, seed));
}

/// The sine of the largest angle between the spans of orthonormal columns.
double sine(const MatrixXd& of, const MatrixXd& from) { return (of - from * (from.transpose() * of)).norm(); }

/// U diag(values) V^T of random U and V.
MatrixXd with_values(Index rows, Index columns, const VectorXd& values, MatrixXd* right = nullptr) {
  const MatrixXd V = random_columns(columns, values.size(), 2);
  if (right != nullptr) *right = V;
  return random_columns(rows, values.size(), 1) * values.asDiagonal() * V.transpose();
}

TEST(BlasProducts, AreThoseOfEigen) {
  const MatrixXd A = reference::random_matrix(7, 5, 1), B = reference::random_matrix(5, 6, 2),
                 C = reference::random_matrix(7, 6, 3), D = reference::random_matrix(4, 5, 4);
  EXPECT_LE((times(A, B) - A * B).norm(), 100 * eps);
  EXPECT_LE((transposed_times(A, C) - A.transpose() * C).norm(), 100 * eps);
  EXPECT_LE((times_transposed(A, D) - A * D.transpose()).norm(), 100 * eps);
  EXPECT_LE((gram_of_rows(A) - A * A.transpose()).norm(), 100 * eps);
  EXPECT_LE((float_transposed_times(A.cast<float>(), C.cast<float>()).cast<double>() - A.transpose() * C).norm(), 1e-5);
  EXPECT_LE((float_times_transposed(A.cast<float>(), D.cast<float>()).cast<double>() - A * D.transpose()).norm(), 1e-5);
  MatrixXd sum = C;
  add_times(A.leftCols(3), B.topRows(3), sum);  // parts with a stride of their own
  add_transposed_times(A.topRows(5).transpose().eval(), C.topRows(5), sum.topRows(5));
  EXPECT_LE((sum.bottomRows(2) - (C + A.leftCols(3) * B.topRows(3)).bottomRows(2)).norm(), 100 * eps);
  EXPECT_EQ(times(MatrixXd(3, 0), MatrixXd(0, 2)), MatrixXd::Zero(3, 2));
}

TEST(PivotedFactor, InverseSolvesWithTheIdentity) {
  const MatrixXd A = reference::random_matrix(9, 6, 1);
  MatrixXd gram = A.transpose() * A;
  gram.row(2) = 2 * gram.row(4);  // column 2 is twice column 4
  gram.col(2) = 2 * gram.col(4);
  gram(2, 2) = 4 * gram(4, 4);
  const PivotedFactor factor = pivoted_cholesky(gram, 1e-12);
  ASSERT_EQ(factor.rank(), 5);
  const MatrixXd N = factor.inverse();
  EXPECT_LE((N - factor.solve(MatrixXd::Identity(5, 5))).norm(), 1e-13 * N.norm());
  EXPECT_LE((N.transpose() * gram * N - MatrixXd::Identity(5, 5)).norm(), 1e-12);
}

TEST(LeadingSubspace, IsThatOfTheSingularVectors) {
  for (const double gap : {1e-6, 0.2}) {
    VectorXd values(12);
    for (Index k = 0; k < 12; ++k) values[k] = std::pow(0.8, k) * (k < 4 ? 1 : gap);
    MatrixXd V;
    const MatrixXd L = with_values(60, 50, values, &V);
    const LeadingSubspace found = leading_subspace(L, 4);
    EXPECT_LE(sine(found.vectors, V.leftCols(4)), gap < 1e-3 ? 1e-12 : 1e-3);
    EXPECT_LE((found.vectors.transpose() * found.vectors - MatrixXd::Identity(4, 4)).norm(), 1e-13);
    EXPECT_LE((found.values.head(4) - values.head(4)).cwiseAbs().maxCoeff(), 1e-3);
    const VectorXd spectrum = spectrum_of(L);
    EXPECT_EQ(spectrum.size(), 50);
    EXPECT_LE((spectrum.head(4) - values.head(4)).cwiseAbs().maxCoeff(), 1e-12);
    EXPECT_NEAR(spectrum[49], 1e-7, 1e-8);  // what is rounding in a Gram matrix
  }
}

TEST(LeadingSubspace, OfSmallAndOfZeroMatrices) {
  const MatrixXd L = reference::random_matrix(5, 3, 7);
  const LeadingSubspace found = leading_subspace(L, 3);
  EXPECT_EQ(found.vectors.cols(), 3);
  EXPECT_LE((found.values - thin_svd(L).values).norm(), 1e-13);
  EXPECT_EQ(leading_subspace(MatrixXd::Zero(20, 20), 2).values.maxCoeff(), 0);
}

/// Eigenvalues as of a sum of subspaces: some at 1, up to `defect`, the others in [0, 0.9].
class TopEigenvectors : public testing::TestWithParam<double> {};

TEST_P(TopEigenvectors, AreFound) {
  const Index d = 80, r = 6;
  VectorXd values(d);
  for (Index k = 0; k < d; ++k)
    values[k] = k < r ? 1 - GetParam() * static_cast<double>(k + 1) / r : 0.9 * (1 - static_cast<double>(k) / d);
  const MatrixXd Q = random_columns(d, d, 5), M = Q * values.asDiagonal() * Q.transpose();
  const auto found = top_eigenvectors((M + M.transpose()) / 2, r);
  EXPECT_LE(sine(found.vectors, Q.leftCols(r)), std::max(0.02 * std::sqrt(GetParam()), 1e-9));
  EXPECT_LE((found.values.head(r) - values.head(r)).cwiseAbs().maxCoeff(), 1e-3 * GetParam() + 1e-13);
  EXPECT_NEAR(found.values[r], values[r], 0.1);
  EXPECT_LE(found.values[r], values[r] + 1e-13);
}

INSTANTIATE_TEST_SUITE_P(Defects, TopEigenvectors, testing::Values(0, 1e-12, 1e-4, 0.05));

TEST(TopEigenvectorsOf, TheIdentityAndNaN) {
  const auto found = top_eigenvectors(MatrixXd::Identity(4, 4), 4);
  EXPECT_LE((found.values - (VectorXd(5) << 1, 1, 1, 1, 0).finished()).norm(), 1e-14);
  EXPECT_EQ(top_eigenvectors(MatrixXd::Constant(3, 3, NAN), 2).vectors.size(), 0);
}

}  // namespace attnreg::test_leading_subspaces
