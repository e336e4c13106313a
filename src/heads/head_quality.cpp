#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "algebra/blas_products.hpp"
#include "attention/visible_keys.hpp"
#include "attnreg/attention_regression.hpp"
#include "errors/refuse.hpp"
#include "heads/head_inputs.hpp"
#include "numbers/vector_math.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr Index kRowsAtOnce = 256;
constexpr double kFewTimes = 3;  // the held-out error of a head that was found
constexpr double kSmallError = 1e-4;
constexpr double kHalf = 0.5;

/// The sums behind a `HeadFit`.
enum Sum { kQueries, kVariation, kDivergence, kSquare, kSize, kSame, kSums };

/// What is compared of a query: attention f and b, of the keys that it sees.
struct SeenKeys {
  VectorXd f, log_f, b, log_b;

  /// From logits in log_f.
  void normalise() {
    const double largest = log_f.maxCoeff();
    log_f.array() -= largest;
    f.resize(log_f.size());
    kernels::exp(span_of(log_f), span_of(f));
    const double sum = f.sum();
    f /= sum;
    log_f.array() -= std::log(sum);
  }
};

/// Adds a query to `sums`; b is scaled to sum 1 where distributions are compared.
void add_query(const SeenKeys& query, Eigen::Ref<VectorXd> sums) {
  const auto& [f, log_f, b, log_b] = query;
  const double total = b.sum();
  sums[kQueries] += 1;
  sums[kSquare] += (f - b).squaredNorm();
  sums[kSize] += b.squaredNorm();
  if (!(total > 0)) return;
  sums[kVariation] += 0.5 * (f - b / total).lpNorm<1>();
  sums[kDivergence] += (b.array() > 0).select(b.array() * (log_b - log_f).array(), 0.0).sum() / total - std::log(total);
  Index of_f = 0, of_b = 0;
  f.maxCoeff(&of_f);
  b.maxCoeff(&of_b);
  sums[kSame] += of_f == of_b ? 1 : 0;
}

/// Uniform attention has no largest key; to guess one of the n keys is right once in n queries.
void add_uniform_query(SeenKeys query, Eigen::Ref<VectorXd> sums) {
  const double same = sums[kSame], n = static_cast<double>(query.b.size());
  query.f.setConstant(1 / n);
  query.log_f.setConstant(-std::log(n));
  add_query(query, sums);
  sums[kSame] = same + 1 / n;
}

HeadFit fit_of(const Eigen::Ref<const VectorXd>& sums) {
  const double n = std::max(sums[kQueries], 1.0);
  const double size = sums[kSize];
  return {sums[kQueries], sums[kVariation] / n, sums[kDivergence] / n, size > 0 ? std::sqrt(sums[kSquare] / size) : 0,
          sums[kSame] / n};
}

/// X = P Q^T; without Q P is X.
struct Factors {
  MatrixXd P, Q;
};

void add_sequence(const AttentionSequence& sequence, const TargetMatrix& B, const Factors& X, int rank,
                  Eigen::Ref<VectorXd> sums, Eigen::Ref<VectorXd> uniform) {
  std::optional<VisibleKeys> visible;
  if (sequence.mask) visible.emplace(*sequence.mask, sequence.partition, rank, sequence.keys.rows());
  // Row-major rows are the columns of a transpose.
  const Eigen::Map<const MatrixXd> A(sequence.queries.data(), sequence.queries.cols(), sequence.queries.rows()),
      K(sequence.keys.data(), sequence.keys.cols(), sequence.keys.rows());
  if (A.cols() == 0) return;
  const bool low = X.Q.size() > 0;
  const MatrixXd keys = low ? transposed_times(X.Q, K) : times(X.P, K);
  std::vector<Index> seen(static_cast<std::size_t>(K.cols()));
  std::iota(seen.begin(), seen.end(), 0);
  SeenKeys query;
  for (Index first = 0; first < A.cols(); first += kRowsAtOnce) {
    const Index count = std::min(kRowsAtOnce, A.cols() - first);
    const auto rows = A.middleCols(first, count);
    const MatrixXd Z = transposed_times(keys, low ? transposed_times(X.P, rows) : MatrixXd(rows));
    for (Index j = 0; j < count; ++j) {
      if (visible) visible->list(first + j, seen);
      query.log_f = Z.col(j)(seen);
      query.b = B.with([&](const auto& matrix) -> VectorXd {
        return matrix.row(first + j)(seen).template cast<double>().transpose();
      });
      query.normalise();
      query.log_b = query.b.cwiseMax(std::numeric_limits<double>::min());
      kernels::log(span_of(query.log_b), span_of(query.log_b));
      add_query(query, sums);
      add_uniform_query(query, uniform);
    }
  }
}

HeadQuality quality_of(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                       const Factors& X, const std::vector<AttentionMatrix>& head) {
  const AttentionShape shape = check_sequences(communicator, sequences, "cross-entropy", head.empty());
  const Index columns = X.Q.size() > 0 ? X.Q.rows() : X.P.cols();
  require(X.P.rows() == shape.d1 && columns == shape.d2 && (X.Q.size() == 0 || X.Q.cols() == X.P.cols()),
          "X is " + std::to_string(X.P.rows()) + " x " + std::to_string(columns) + ", the sequences need " +
              std::to_string(shape.d1) + " x " + std::to_string(shape.d2));
  const HeadTargets targets = targets_of(sequences, head);
  check_targets(communicator, sequences, {targets});
  const Index count = std::ssize(sequences);
  MatrixXd sums = MatrixXd::Zero(kSums, count + 1);  // the last column is of uniform attention
  for (Index k = 0; k < count; ++k)
    add_sequence(sequences[static_cast<std::size_t>(k)], targets[static_cast<std::size_t>(k)], X, communicator.rank(),
                 sums.col(k), sums.col(count));
  communicator.sum(span_of(sums));
  HeadQuality quality;
  for (Index k = 0; k < count; ++k) quality.sequences.push_back(fit_of(sums.col(k)));
  quality.all = fit_of(sums.leftCols(count).rowwise().sum());
  quality.uniform = fit_of(sums.col(count));
  return quality;
}

}  // namespace

HeadQuality head_quality(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                         const RowMajorMatrix& X, const std::vector<AttentionMatrix>& head) {
  return quality_of(communicator, sequences, {X, {}}, head);
}

HeadQuality head_quality(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                         const HeadResult& found, const std::vector<AttentionMatrix>& head) {
  if (found.rank == 0) return head_quality(communicator, sequences, found.X, head);
  return quality_of(communicator, sequences, {found.P, found.Q}, head);
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
