#include "distributed_gram.hpp"

#include <algorithm>
#include <span>
#include <utility>

namespace attnreg {

using Eigen::VectorXd;

namespace {

/// Both terms of a row together: with s = curvature + ridge and t = curvature / s
///
///     curvature (a - c)(a - c)^T + ridge a a^T = s (a - t c)(a - t c)^T + s t (1 - t) c c^T,
///
/// or, for sparse rows, which centring would fill, s a a^T - curvature (a c^T + c a^T) + curvature c c^T.
struct CompletedSquares {
  VectorXd weights, shares;  // s, t
  VectorXd message;          // sum curvature a, or 0; then the sum of the factors of c c^T

  CompletedSquares(const RowMatrix& A, const CurvedRows& rows) : weights(rows.curvature + rows.ridge) {
    const Eigen::Index d = A.columns();
    message = VectorXd::Zero(d + 1);
    if (A.is_sparse()) {
      message << A.sparse_sum(rows.rows, rows.curvature), rows.curvature.sum();
      return;
    }
    shares = (weights.array() > 0).select(rows.curvature.cwiseQuotient(weights), 0.0);
    message[d] = (weights.array() * shares.array() * (1 - shares.array())).sum();
  }
};

}  // namespace

DistributedMatrix distributed_gram(const RowMatrix& A, std::shared_ptr<const ProcessGrid> grid, const CurvedRows& rows,
                                   const VectorXd& centre) {
  const Index d = A.columns();
  CompletedSquares squares(A, rows);
  DistributedMatrix gram(std::move(grid), d, d);
  for (Index first = 0; first < d; first += kPanel) {
    RowMajorMatrix panel = RowMajorMatrix::Zero(std::min(kPanel, d - first), d - first);
    A.add_gram_panel(rows.rows, squares.weights, squares.shares, centre, first, panel);
    gram.add_sum(A.communicator(), panel.transpose(), first, first);
  }
  VectorXd& sums = squares.message;
  A.communicator().sum(std::span<double>(sums.data(), static_cast<std::size_t>(d) + 1));
  gram.for_each([&](Index i, Index j, double& entry) {
    entry += (sums[d] * centre[i] - sums[i]) * centre[j] - centre[i] * sums[j];
  });
  return gram;
}

double gram_reads(Index d) {
  double columns = 0;
  for (Index first = 0; first < d; first += kPanel) columns += static_cast<double>(d - first);
  return columns / static_cast<double>(d);
}

}  // namespace attnreg
