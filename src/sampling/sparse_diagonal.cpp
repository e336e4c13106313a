#include <algorithm>
#include <cmath>
#include <span>

#include "numbers/random.hpp"
#include "sampling/sampling.hpp"
#include "rows/packed_columns.hpp"
#include "rows/weighted_gram.hpp"
#include "rows/row_passes.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

MatrixXd gram_of_sparse_rows(const RowMatrix& A, const SampledRows& sample, const VectorXd& weights,
                             const VectorXd& centre, const VectorXd& ridge, std::span<const std::size_t> positive,
                             std::span<const std::size_t> negative) {
  const auto gram_of = [&](std::span<const std::size_t> chosen) {
    std::vector<Index> rows;
    std::vector<double> centred, plain;
    for (const std::size_t j : chosen) {
      rows.push_back(sample.rows[j]);
      centred.push_back(std::abs(weights[static_cast<Index>(j)]));
      plain.push_back(ridge.size() == 0 ? 0 : ridge[static_cast<Index>(j)]);
    }
    return A.passes().sparse_gram(rows, centred, centre.size() == 0 ? VectorXd(VectorXd::Zero(A.columns())) : centre, plain);
  };
  RowMajorMatrix gram = gram_of(positive);
  if (!negative.empty()) gram -= gram_of(negative);
  gram.triangularView<Eigen::StrictlyUpper>() = gram.transpose();
  return gram;
}

}  // namespace

SparseDiagonal::SparseDiagonal(const SampledRows& sample, const VectorXd& D)
    : rows_(sample.rows), values_(sample.weights), count_global_(sample.count_global) {
  for (Index k = 0; k < values_.size(); ++k) values_[k] *= D[rows_[static_cast<std::size_t>(k)]];
}

double SparseDiagonal::spectral_error(const RowMatrix& A, const VectorXd& D, const MatrixXd& probes) const {
  VectorXd difference = -D;  // D~ - D
  for (std::size_t k = 0; k < rows_.size(); ++k) difference[rows_[k]] += values_[static_cast<Index>(k)];
  const PackedColumns columns(probes);
  const Index k = probes.cols(), padded = (k + kernels::kBlockColumns - 1) / kernels::kBlockColumns;
  const MatrixXd zero = MatrixXd::Zero(padded * kernels::kBlockColumns, 2);
  const auto all = A.passes().pass(zero, [&](const Tile& tile, MatrixXd& sum) {
    const auto part = difference.segment(tile.first_local(), tile.rows());
    const auto size = D.segment(tile.first_local(), tile.rows());
    columns.multiply(tile, [&](Index first, const RowMajorMatrix& Y) {
      const RowMajorMatrix squares = Y.cwiseAbs2();
      sum.block(first, 0, Y.cols(), 1) += squares.transpose() * part;
      sum.block(first, 1, Y.cols(), 1) += squares.transpose() * size.cwiseAbs();
    });
  });
  MatrixXd sums = all.topRows(k);
  A.communicator().sum(span_of(sums));
  double error = 0;
  for (Index j = 0; j < k; ++j)
    if (sums(j, 1) > 0) error = std::max(error, std::abs(sums(j, 0)) / sums(j, 1));
  return error;
}

MatrixXd gaussian_probes(Index d, int count, std::uint64_t seed, std::uint32_t iteration) {
  const RandomStream stream(seed, Purpose::spectral_probes, iteration);
  MatrixXd probes(d, count);
  for (int k = 0; k < count; ++k)
    stream.normals(k, std::span<double>(probes.col(k).data(), static_cast<std::size_t>(d)));
  return probes;
}

// With the ridge: w (a - c)(a - c)^T + r a a^T = (w + r)(a - t c)(a - t c)^T + w r / (w + r) c c^T, t = w / (w + r), so
// that a row is one outer product, without cancellation.
MatrixXd sampled_gram(const RowMatrix& A, const SampledRows& sample, const VectorXd& weights, const VectorXd& centre,
                      const VectorXd& ridge) {
  constexpr std::size_t kRows = 4096;  // gathered at once
  const Index d = A.columns();
  const VectorXd totals = ridge.size() == 0 ? weights : VectorXd(weights + ridge);
  std::vector<std::size_t> positive, negative;
  for (std::size_t j = 0; j < sample.rows.size(); ++j) {
    const double total = totals[static_cast<Index>(j)];
    if (total != 0) (total > 0 ? positive : negative).push_back(j);
  }
  A.passes().count_reads(static_cast<double>(sample.count_global) / static_cast<double>(A.rows_global()));
  if (A.is_sparse()) return gram_of_sparse_rows(A, sample, weights, centre, ridge, positive, negative);
  RowMajorMatrix gram = RowMajorMatrix::Zero(d, d), gathered;
  double centre_weight = 0;
  const auto add = [&](const std::vector<std::size_t>& chosen, double sign) {
    for (std::size_t first = 0; first < chosen.size(); first += kRows) {
      std::vector<Index> rows;
      for (std::size_t j = first; j < std::min(first + kRows, chosen.size()); ++j)
        rows.push_back(sample.rows[chosen[j]]);
      gathered.resize(static_cast<Index>(rows.size()), d);
      A.passes().visit_rows(rows, [&](std::size_t position, std::span<const double> row) {
        const auto j = static_cast<Index>(chosen[first + position]);
        const double scale = std::sqrt(std::abs(totals[j])), share = weights[j] / totals[j];
        auto to = gathered.row(static_cast<Index>(position));
        to = scale * Eigen::Map<const Eigen::RowVectorXd>(row.data(), d);
        if (centre.size() != 0) to -= scale * share * centre.transpose();
      });
      add_outer_products(gathered, sign, gram);
    }
    if (ridge.size() != 0)
      for (const std::size_t k : chosen)
        centre_weight += weights[static_cast<Index>(k)] * ridge[static_cast<Index>(k)] / totals[static_cast<Index>(k)];
  };
  add(positive, 1);
  add(negative, -1);
  if (centre.size() != 0 && centre_weight != 0) gram.noalias() += centre_weight * centre * centre.transpose();
  gram.triangularView<Eigen::StrictlyUpper>() = gram.transpose();
  return gram;
}

}  // namespace attnreg
