#include "rows/distributed_gram.hpp"
#include "rows/row_passes.hpp"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

namespace attnreg {

using Eigen::VectorXd;

namespace {

/// Both terms of a row together: with s = curvature + ridge, m and k (which are the curvature, or the coupling and
/// self) and t = m / s
///
///     curvature a a^T - m (a c^T + c a^T) + k c c^T + ridge a a^T = s (a - t c)(a - t c)^T + (k - s t^2) c c^T,
///
/// or, for sparse rows, which centring would fill, the left hand side.
struct CompletedSquares {
  VectorXd weights, shares;  // s, t
  VectorXd message;          // sum m a, or 0; then the sum of the factors of c c^T

  CompletedSquares(const RowMatrix& A, const CurvedRows& rows) : weights(rows.curvature + rows.ridge) {
    const Eigen::Index d = A.columns();
    const VectorXd& m = rows.is_coupled ? rows.coupling : rows.curvature;
    message = VectorXd::Zero(d + 1);
    if (A.is_sparse()) {
      message << A.passes().sparse_sum(rows.rows, m), rows.self().sum();
      return;
    }
    shares = (weights.array() > 0).select(m.cwiseQuotient(weights), 0.0);
    message[d] = (rows.self().array() - m.array() * shares.array()).sum();
  }

  /// What is not in the squares.
  double rest(Index i, Index j, const VectorXd& centre) const {
    const Index d = centre.size();
    return (message[d] * centre[i] - message[i]) * centre[j] - centre[i] * message[j];
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
    A.passes().add_gram_panel(rows.rows, squares.weights, squares.shares, centre, first, panel);
    gram.add_sum(A.communicator(), panel.transpose(), first, first);
  }
  A.communicator().sum(std::span<double>(squares.message.data(), static_cast<std::size_t>(d) + 1));
  gram.for_each([&](Index i, Index j, double& entry) { entry += squares.rest(i, j, centre); });
  return gram;
}

Eigen::MatrixXd local_gram(const RowMatrix& A, const CurvedRows& rows, const VectorXd& centre) {
  const Index d = A.columns();
  const CompletedSquares squares(A, rows);
  RowMajorMatrix gram = RowMajorMatrix::Zero(d, d);
  A.passes().add_gram_panel(rows.rows, squares.weights, squares.shares, centre, 0, gram);
  Eigen::MatrixXd full = gram.transpose().triangularView<Eigen::Lower>();  // a sparse panel has its upper triangle only
  for (Index j = 0; j < d; ++j)
    for (Index i = j; i < d; ++i) full(i, j) += squares.rest(i, j, centre);
  full.triangularView<Eigen::StrictlyUpper>() = full.transpose();
  return full;
}

CurvedRows all_rows(const RowForms& forms, const VectorXd& ridge) {
  std::vector<Index> rows(static_cast<std::size_t>(ridge.size()));
  std::iota(rows.begin(), rows.end(), 0);
  CurvedRows all{std::move(rows), forms.delta, ridge};
  all.is_coupled = forms.coupling != nullptr;
  if (all.is_coupled) all.coupling = *forms.coupling, all.own = *forms.own;
  return all;
}

CurvedRows weighted_rows(const RowForms& forms, const VectorXd& ridge, std::vector<Index> rows,
                         const VectorXd& factors) {
  const auto weighted = [&](const VectorXd& values) { return VectorXd(values(rows).cwiseProduct(factors)); };
  CurvedRows kept{{}, weighted(forms.delta), weighted(ridge)};
  kept.is_coupled = forms.coupling != nullptr;
  if (kept.is_coupled) kept.coupling = weighted(*forms.coupling), kept.own = weighted(*forms.own);
  kept.rows = std::move(rows);
  return kept;
}

double gram_reads(Index d) {
  double columns = 0;
  for (Index first = 0; first < d; first += kPanel) columns += static_cast<double>(d - first);
  return columns / static_cast<double>(d);
}

}  // namespace attnreg
