#include "heads/leading_subspaces.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "algebra/dense_factors.hpp"
#include "algebra/lapack.hpp"
#include "numbers/random.hpp"

namespace attnreg {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

constexpr Index kMoreVectors = 8;     // than wanted, in a subspace iteration
constexpr int kMostIterations = 8;    // of inverse iteration, which then costs as much as LAPACK
constexpr double kFirstShift = 1e-8;  // beyond 1: far below the gap, far above the rounding of M
constexpr double kLastShift = 1e-4;
constexpr int kMostRounds = 2;      // of subspace iteration
constexpr double kSharpGap = 1e-3;  // behind value r: one round gives its cube
constexpr double kAngle = 1e-2;     // of the vectors, relative to that of the eigenvalue from 1
constexpr double kLeastDefect = 1e-16;
constexpr double kRoundingOfGram = 1e-7;  // sqrt(100 eps), of singular values, relative to the first one

/// Random signs: as good as normal numbers for a start, and cheaper.
MatrixXd random_vectors(Index rows, Index columns) {
  constexpr Index kBits = 128;
  const RandomStream stream(0, Purpose::subspace_start);
  MatrixXd vectors(rows, columns);
  std::array<std::uint32_t, 4> bits{};
  for (Index k = 0; k < vectors.size(); ++k) {
    const Index place = k % kBits;
    if (place == 0) bits = stream.bits(k / kBits);
    vectors.data()[k] = (bits[static_cast<std::size_t>(place / 32)] >> (place % 32)) & 1 ? 1 : -1;
  }
  return vectors;
}

/// Singular values from the eigenvalues of a Gram matrix, descending; what would be rounding is 1e-7 of the first one.
VectorXd singular_values(const VectorXd& eigenvalues) {
  if (eigenvalues.size() == 0) return {};
  return eigenvalues.cwiseMax(kRoundingOfGram * kRoundingOfGram * eigenvalues[0]).cwiseMax(0).cwiseSqrt();
}

/// Eigenvalues and vectors in descending order.
TopEigenvectors leading_part(const SymmetricEigen& eigen, Index count) {
  return {eigen.vectors.rightCols(count).rowwise().reverse(), eigen.values.tail(count).reverse()};
}

}  // namespace

LeadingSubspace leading_subspace(MatrixPart L, Index r) {
  const Index k = std::min({r + kMoreVectors, L.rows(), L.cols()});
  MatrixXd right = random_vectors(L.cols(), k);
  for (int round = 1;; ++round) {
    right = orthonormal_columns(transposed_times(L, orthonormal_columns(times(L, right))));
    const MatrixXd image = times(L, right);
    const auto [vectors, eigenvalues] = leading_part(symmetric_eigen(transposed_times(image, image), true), k);
    const VectorXd values = singular_values(eigenvalues);
    if (round == kMostRounds || k == r || values[r] < kSharpGap * values[r - 1])
      return {times(right, vectors.leftCols(r)), values};
    right = times(right, vectors);
  }
}

VectorXd spectrum_of(MatrixPart L) {
  const MatrixXd gram = L.rows() < L.cols() ? gram_of_rows(L) : transposed_times(L, L);
  return singular_values(symmetric_eigen(gram, false).values.reverse());
}

TopEigenvectors top_eigenvectors(const MatrixXd& M, Index r) {
  const Index d = M.rows(), k = std::min(r + kMoreVectors / 2, d), wanted = std::min(r + 1, d);
  if (!M.allFinite()) return {};
  const auto ended = [&](MatrixXd vectors, VectorXd values) {
    values.conservativeResizeLike(VectorXd::Zero(r + 1));
    return TopEigenvectors{vectors.leftCols(r), std::move(values)};
  };
  double shift = kFirstShift;
  Cholesky cholesky;
  while (shift < kLastShift && !cholesky.factor((1 + shift) * MatrixXd::Identity(d, d) - M)) shift *= 100;
  if (shift < kLastShift) {
    MatrixXd vectors = random_vectors(d, k);
    for (int iteration = 0; iteration < kMostIterations; ++iteration) {
      vectors = orthonormal_columns(cholesky.solve_columns(vectors));
      const MatrixXd image = times(M, vectors);
      const auto [turn, values] = leading_part(symmetric_eigen(transposed_times(vectors, image), true), k);
      vectors = times(vectors, turn);
      const MatrixXd residual = times(image, turn).leftCols(r) - vectors.leftCols(r) * values.head(r).asDiagonal();
      const double gap = values[r - 1] - (k > r ? values[r] : 0), defect = std::max(1 - values[r - 1], kLeastDefect);
      if (residual.norm() <= kAngle * std::sqrt(defect) * gap) return ended(vectors, values.head(wanted));
    }
  }
  const auto [vectors, values] = leading_part(symmetric_eigen(M, true), wanted);
  return ended(vectors, values);
}

}  // namespace attnreg
