#include <algorithm>
#include <cmath>
#include <numeric>

#include "algebra/blas_products.hpp"
#include "attention/visible_keys.hpp"
#include "attnreg/attention_regression.hpp"
#include "errors/refuse.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr Index kRowsAtOnce = 256;
constexpr double kFewTimes = 3;  // the held-out error of a head that was found
constexpr double kSmallError = 1e-4;
constexpr double kHalf = 0.5;

/// The sums behind a `HeadFit`.
enum Sum { kQueries, kVariation, kDivergence, kSquare, kSize, kSame, kSums };

/// Adds a query with the attention f to `sums`; b is scaled to sum 1 where distributions are compared.
void add_query(const VectorXd& f, const VectorXd& b, Eigen::Ref<VectorXd> sums) {
  const double total = b.sum();
  sums[kQueries] += 1;
  sums[kSquare] += (f - b).squaredNorm();
  sums[kSize] += b.squaredNorm();
  if (!(total > 0)) return;
  const VectorXd p = b / total;
  sums[kVariation] += 0.5 * (f - p).lpNorm<1>();
  for (Index k = 0; k < p.size(); ++k)
    if (p[k] > 0) sums[kDivergence] += p[k] * std::log(p[k] / f[k]);
  Index of_f = 0, of_b = 0;
  f.maxCoeff(&of_f);
  b.maxCoeff(&of_b);
  sums[kSame] += of_f == of_b ? 1 : 0;
}

/// Uniform attention has no largest key; to guess one of the n keys is right once in n queries.
void add_uniform_query(const VectorXd& b, Eigen::Ref<VectorXd> sums) {
  const double same = sums[kSame];
  add_query(VectorXd::Constant(b.size(), 1 / static_cast<double>(b.size())), b, sums);
  sums[kSame] = same + 1 / static_cast<double>(b.size());
}

HeadFit fit_of(const Eigen::Ref<const VectorXd>& sums) {
  const double n = std::max(sums[kQueries], 1.0);
  const double size = sums[kSize];
  return {sums[kQueries], sums[kVariation] / n, sums[kDivergence] / n, size > 0 ? std::sqrt(sums[kSquare] / size) : 0,
          sums[kSame] / n};
}

void add_sequence(const AttentionSequence& sequence, const RowMajorMatrix& X, int rank, Eigen::Ref<VectorXd> sums,
                  Eigen::Ref<VectorXd> uniform) {
  std::optional<VisibleKeys> visible;
  if (sequence.mask) visible.emplace(*sequence.mask, sequence.partition, rank, sequence.keys.rows());
  const MatrixXd keys = times_transposed(X, sequence.keys.transpose().eval().transpose());
  std::vector<Index> seen(static_cast<std::size_t>(sequence.keys.rows()));
  std::iota(seen.begin(), seen.end(), 0);
  for (Index first = 0; first < sequence.queries.rows(); first += kRowsAtOnce) {
    const Index count = std::min(kRowsAtOnce, sequence.queries.rows() - first);
    const MatrixXd Z = transposed_times(keys, sequence.queries.middleRows(first, count).transpose());
    for (Index j = 0; j < count; ++j) {
      if (visible) visible->list(first + j, seen);
      VectorXd f = Z.col(j)(seen), b = sequence.target.row(first + j)(seen).transpose();
      f = (f.array() - f.maxCoeff()).exp();
      f /= f.sum();
      add_query(f, b, sums);
      add_uniform_query(b, uniform);
    }
  }
}

}  // namespace

HeadQuality head_quality(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                         const RowMajorMatrix& X) {
  const AttentionShape shape = check_sequences(communicator, sequences, "cross-entropy");
  require(X.rows() == shape.d1 && X.cols() == shape.d2,
          "X is " + std::to_string(X.rows()) + " x " + std::to_string(X.cols()) + ", the sequences need " +
              std::to_string(shape.d1) + " x " + std::to_string(shape.d2));
  const Index count = std::ssize(sequences);
  MatrixXd sums = MatrixXd::Zero(kSums, count + 1);  // the last column is of uniform attention
  for (Index k = 0; k < count; ++k)
    add_sequence(sequences[static_cast<std::size_t>(k)], X, communicator.rank(), sums.col(k), sums.col(count));
  communicator.sum(span_of(sums));
  HeadQuality quality;
  for (Index k = 0; k < count; ++k) quality.sequences.push_back(fit_of(sums.col(k)));
  quality.all = fit_of(sums.leftCols(count).rowwise().sum());
  quality.uniform = fit_of(sums.col(count));
  return quality;
}

HeadVerdict head_verdict(const HeadQuality& fit, const HeadQuality& held_out) {
  if (held_out.all.error <= std::max(kFewTimes * fit.all.error, kSmallError) &&
      held_out.all.error < kHalf * held_out.uniform.error)
    return HeadVerdict::predicts;
  if (held_out.all.error < kHalf * held_out.uniform.error) return HeadVerdict::roughly;
  return fit.all.error < kHalf * fit.uniform.error ? HeadVerdict::fits_only : HeadVerdict::neither;
}

std::vector<RowPartition> deal_sequences(const std::vector<std::pair<std::int64_t, std::int64_t>>& shapes, int ranks) {
  constexpr std::int64_t kBlock = 512;
  double all = 0;
  for (const auto& [queries, keys] : shapes) all += static_cast<double>(queries) * static_cast<double>(keys);
  std::vector<RowPartition> partitions;
  double before = 0;  // the work of what was dealt out
  for (const auto& [queries, keys] : shapes) {
    std::vector<std::int64_t> first_rows(static_cast<std::size_t>(ranks) + 1, queries);
    first_rows[0] = 0;
    for (std::int64_t row = 0; row < queries; row += kBlock) {
      // A block belongs to the rank in whose share its middle lies; that rank, and those behind, begin at it or
      // earlier.
      const double middle =
          before + 0.5 * static_cast<double>(std::min(kBlock, queries - row)) * static_cast<double>(keys);
      const int owner = all > 0 ? std::min(static_cast<int>(middle / all * ranks), ranks - 1) : 0;
      for (int rank = owner + 1; rank <= ranks; ++rank)
        first_rows[static_cast<std::size_t>(rank)] = std::min(row + kBlock, queries);
      if (row == 0)
        for (int rank = 0; rank <= owner; ++rank) first_rows[static_cast<std::size_t>(rank)] = 0;
      before += static_cast<double>(std::min(kBlock, queries - row)) * static_cast<double>(keys);
    }
    partitions.emplace_back(std::move(first_rows));
  }
  return partitions;
}

}  // namespace attnreg
