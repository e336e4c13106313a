#include "attnreg/sparsifier.hpp"
#include "rows/row_passes.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "algebra/dense_factors.hpp"
#include "algebra/pivoted_factor.hpp"
#include "errors/refuse.hpp"
#include "kernels/gram_kernels.hpp"
#include "ranks/activity.hpp"
#include "ranks/span_of.hpp"
#include "sparsify/choose_by_barriers.hpp"

namespace attnreg {

namespace {

using Eigen::ArrayXd;

void check(const RowMatrix& X, std::span<const RowMatrix> Ys, const MatrixXd& values,
           const AttentionErrorOptions& options) {
  if (!(options.scale > 0) || !std::isfinite(options.scale)) refuse("the scale must be a number > 0");
  if (options.block_rows < 1) refuse("block_rows must be at least 1");
  if (values.rows() != X.columns() || values.cols() < 1)
    refuse("V has " + std::to_string(values.rows()) + " rows and " + std::to_string(values.cols()) +
           " columns, expected " + std::to_string(X.columns()) + " rows, one per row of X, and at least one column");
  for (const auto& Y : Ys)
    if (Y.columns() != X.columns())
      refuse("Y has " + std::to_string(Y.columns()) + " rows, X has " + std::to_string(X.columns()));
}

/// The units of Gram matrices: those of scaled columns, so that no square under- or overflows. K = scale X X^T =
/// scale (Gram matrix) / columns^2.
struct Units {
  double scale, columns;
  /// The logits that belong to numbers of a Gram matrix.
  ArrayXd logits(const ArrayXd& gram) const { return gram * scale / columns / columns; }
  double logit(double gram) const { return gram * scale / columns / columns; }
};

/// Collective, one read. Rows [first, first + height) of the Gram matrix of scaled columns, on every rank.
RowMajorMatrix gram_rows(const RowMatrix& A, Index first, Index height, double scale) {
  const Index n = A.columns();
  RowMajorMatrix block =
      A.passes().pass(RowMajorMatrix(RowMajorMatrix::Zero(height, n)), [&](const Tile& tile, auto& part) {
        const RowMajorMatrix rows = scale * tile.dense();
        const RowMajorMatrix columns = rows.middleCols(first, height).transpose();
        kernels::add_matrix_product(columns.data(), height, tile.rows(), rows.data(), n, false, part.data());
      });
  A.communicator().sum(span_of(block));
  return block;
}

double log_sum_exp(const ArrayXd& z) {
  const double largest = z.maxCoeff();
  return largest + std::log((z - largest).exp().sum());
}

/// The largest number; infinite if one is NaN, as after an overflow: comparisons would lose it.
double largest_of(const ArrayXd& values) {
  const double largest = values.maxCoeff<Eigen::PropagateNaN>();
  return std::isnan(largest) ? std::numeric_limits<double>::infinity() : largest;
}

/// What one row of logits adds to an error: z of X, e = z of Y - z.
struct RowError {
  double entry;
  ArrayXd change;  ///< of the attention weights
};

/// P(Y)_j / P(X)_j = exp(e_j - log sum_k p_k exp(e_k)). Small e lose no digits.
RowError row_error(const ArrayXd& z, const ArrayXd& p, double normaliser, const ArrayXd& e) {
  const bool small = largest_of(e.abs()) <= 1;
  const double growth = small ? std::log1p((p * e.expm1()).sum()) : log_sum_exp(z + e) - normaliser;
  const ArrayXd ratio = (e - growth).expm1();
  return {largest_of(ratio.abs()), small ? ArrayXd(p * ratio) : ArrayXd((z + e - normaliser - growth).exp() - p)};
}

/// The sums and maxima over rows.
struct Totals {
  VectorXd maxima;   ///< r, then |E| and the entry error of each Y; the first two in units of Gram matrices
  VectorXd squares;  ///< |P(X) V|^2, then |(P(Y) - P(X)) V|^2 of each Y
};

/// Local. Adds one row: Gram matrices of X, then of each Y.
void add_row(std::span<const RowMajorMatrix> blocks, Index row, const MatrixXd& values, const Units& units,
             Totals& totals) {
  const ArrayXd gram = blocks[0].row(row).transpose(), z = units.logits(gram);
  const double normaliser = log_sum_exp(z);
  const ArrayXd p = (z - normaliser).exp();
  totals.maxima[0] = std::max(totals.maxima[0], largest_of(gram.abs()));
  totals.squares[0] += (values.transpose() * p.matrix()).squaredNorm();
  for (std::size_t k = 1; k < blocks.size(); ++k) {
    const ArrayXd e = blocks[k].row(row).transpose().array() - gram;
    const RowError error = row_error(z, p, normaliser, units.logits(e));
    const auto place = static_cast<Index>(k);
    totals.maxima[2 * place - 1] = std::max(totals.maxima[2 * place - 1], largest_of(e.abs()));
    totals.maxima[2 * place] = std::max(totals.maxima[2 * place], error.entry);
    totals.squares[place] += (values.transpose() * error.change.matrix()).squaredNorm();
  }
}

/// Local. The largest |lambda - 1| of T^T K_Y T.
double spectral_error(const MatrixXd& T, const MatrixXd& K_Y) {
  if (T.cols() == 0) return 0;
  const SymmetricEigen eigen = symmetric_eigen(T.transpose() * K_Y * T, false);
  return eigen.finite ? (eigen.values.array() - 1).abs().maxCoeff() : std::numeric_limits<double>::infinity();
}

/// Collective. Spectral errors on every rank, made by rank 0 from the whole matrices.
void add_spectral_errors(const RowMatrix& X, const std::vector<RowMajorMatrix>& whole, AttentionErrors& result) {
  VectorXd message(static_cast<Index>(result.errors.size()) + 1);
  if (X.communicator().is_root()) {
    const MatrixXd T = whitening_of(whole[0], X.rows_global());
    message[0] = static_cast<double>(T.cols());
    for (std::size_t k = 1; k < whole.size(); ++k) message[static_cast<Index>(k)] = spectral_error(T, whole[k]);
  }
  X.communicator().broadcast(span_of(message));
  result.rank = static_cast<Index>(message[0]);
  for (std::size_t k = 0; k < result.errors.size(); ++k) {
    AttentionError& error = result.errors[k];
    error.spectral = message[static_cast<Index>(k) + 1];
    error.entry_bound = std::expm1(2 * error.spectral * result.largest_logit);
  }
}

/// Collective.
AttentionErrors summed_up(const Communicator& communicator, const Units& units, Totals& totals) {
  for (double& value : totals.maxima) value = communicator.max(value);
  communicator.sum(span_of(totals.squares));
  const auto ratio = [](double value, double size) { return value == 0 ? 0 : value / size; };
  AttentionErrors result;
  result.largest_logit = units.logit(totals.maxima[0]);
  for (Index k = 1; k < totals.squares.size(); ++k)
    result.errors.push_back({.gram = ratio(totals.maxima[2 * k - 1], totals.maxima[0]),
                             .entry = totals.maxima[2 * k],
                             .output = std::sqrt(ratio(totals.squares[k], totals.squares[0]))});
  return result;
}

}  // namespace

AttentionErrors attention_errors(const RowMatrix& X, std::span<const RowMatrix> Ys, const MatrixXd& values,
                                 const AttentionErrorOptions& options) {
  check(X, Ys, values, options);
  const Communicator& communicator = X.communicator();
  const Index n = X.columns(), matrices = static_cast<Index>(Ys.size()) + 1;
  const bool spectral = n <= options.spectral_limit;
  std::vector<RowMajorMatrix> whole(static_cast<std::size_t>(matrices));
  if (spectral && communicator.is_root()) std::ranges::fill(whole, RowMajorMatrix(n, n));
  const double size = values.cwiseAbs().maxCoeff();
  const MatrixXd V = size > 0 ? MatrixXd(values * scale_for(size)) : values;  // its squares may not overflow
  const Units units{options.scale, scale_for_squares(X)};
  Totals totals{VectorXd::Zero(2 * matrices - 1), VectorXd::Zero(matrices)};
  const InWork rows("errors", "rows", static_cast<double>(n));
  for (Index first = 0; first < n; first += options.block_rows) {
    const Index height = std::min(options.block_rows, n - first);
    std::vector<RowMajorMatrix> blocks{gram_rows(X, first, height, units.columns)};
    for (const auto& Y : Ys) blocks.push_back(gram_rows(Y, first, height, units.columns));
    const Index ranks = communicator.size(), rank = communicator.rank();
    for (Index row = height * rank / ranks; row < height * (rank + 1) / ranks; ++row)
      add_row(blocks, row, V, units, totals);
    if (spectral && communicator.is_root())
      for (std::size_t k = 0; k < blocks.size(); ++k) whole[k].middleRows(first, height) = blocks[k];
    InWork::add(height);
  }
  AttentionErrors result = summed_up(communicator, units, totals);
  if (spectral) add_spectral_errors(X, whole, result);
  return result;
}

}  // namespace attnreg
