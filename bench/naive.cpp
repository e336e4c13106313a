#include "naive.hpp"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "algebra/lapack.hpp"

namespace attnreg::bench {

using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

/// Collective. A^T diag(weights) A, lower triangle.
MatrixXd naive_gram(const BenchMatrix& matrix, const VectorXd& weights) {
  const Index n = matrix.A().rows_local(), d = matrix.A().columns();
  constexpr Index kRows = 512;
  MatrixXd G = MatrixXd::Zero(d, d);
  RowMajorMatrix rows;
  std::vector<std::pair<Index, double>> row;
  const int order = static_cast<int>(d);
  const double one = 1;
  for (Index first = 0; first < n; first += kRows) {
    const int count = static_cast<int>(std::min(kRows, n - first));
    if (matrix.type() != RowType::csr) {
      rows.resize(count, d);
      for (Index i = 0; i < count; ++i)
        matrix.for_entries(first + i, [&](Index j, double a) { rows(i, j) = std::sqrt(weights[first + i]) * a; });
      dsyrk_("L", "N", &order, &count, &one, rows.data(), &order, &one, G.data(), &order);
      continue;
    }
    for (Index i = first; i < first + count; ++i) {
      row.clear();
      matrix.for_entries(i, [&](Index j, double a) { row.emplace_back(j, a); });
      for (const auto& [j, a] : row)
        for (const auto& [k, c] : row) G(k, j) += weights[i] * a * c;
    }
  }
  matrix.A().communicator().sum({G.data(), static_cast<std::size_t>(G.size())});
  return G;
}

}  // namespace

double difference(const Eigen::Ref<const MatrixXd>& found, const Eigen::Ref<const MatrixXd>& expected) {
  if (!found.allFinite() || found.size() != expected.size()) return INFINITY;
  return expected.size() == 0 ? 0 : (found - expected).cwiseAbs().maxCoeff() / expected.cwiseAbs().maxCoeff();
}

VectorXd naive_multiply(const BenchMatrix& matrix, const VectorXd& v) {
  const Index n = matrix.A().rows_local();
  VectorXd out = VectorXd::Zero(n);
  for (Index i = 0; i < n; ++i) matrix.for_entries(i, [&](Index j, double a) { out[i] += a * v[j]; });
  return out;
}

VectorXd naive_transpose(const BenchMatrix& matrix, const VectorXd& u) {
  const Index n = matrix.A().rows_local(), d = matrix.A().columns();
  std::vector<long double> out(static_cast<std::size_t>(d));
  for (Index i = 0; i < n; ++i)
    matrix.for_entries(
        i, [&](Index j, double a) { out[static_cast<std::size_t>(j)] += static_cast<long double>(a) * u[i]; });
  VectorXd rounded(d);
  std::copy(out.begin(), out.end(), rounded.begin());
  return rounded;
}

double naive_value(const BenchMatrix& matrix, const VectorXd& v, const VectorXd& b, const VectorXd& ridge) {
  const auto& communicator = matrix.A().communicator();
  const VectorXd logits = naive_multiply(matrix, v);
  VectorXd g = logits.array().exp();
  g /= communicator.sum(g.sum());
  return communicator.sum(0.5 * (g - b).squaredNorm() + 0.5 * ridge.dot(logits.cwiseAbs2()));
}

VectorXd naive_scores(const BenchMatrix& matrix, const VectorXd& weights, std::span<const Index> rows) {
  const Eigen::LLT<MatrixXd> llt(naive_gram(matrix, weights));
  VectorXd scores(static_cast<Index>(rows.size()));
  for (std::size_t k = 0; k < rows.size(); ++k) {
    VectorXd a = VectorXd::Zero(matrix.A().columns());
    matrix.for_entries(rows[k], [&](Index j, double value) { a[j] = value; });
    scores[static_cast<Index>(k)] = weights[rows[k]] * a.dot(llt.solve(a));
  }
  return scores;
}

}  // namespace attnreg::bench
