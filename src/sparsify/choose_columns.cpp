#include "attnreg/sparsifier.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "rows/row_passes.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>
#include <utility>

#include "ranks/memory.hpp"
#include "ranks/span_of.hpp"
#include "rows/dense_rows.hpp"
#include "sampling/sampling.hpp"
#include "sampling/sketch.hpp"
#include "sparsify/choose_by_barriers.hpp"

namespace attnreg {

namespace {

void check(const SparsifyOptions& options) {
  const auto inside = [](double value) { return value > 0 && value < 1; };
  if (!inside(options.epsilon)) refuse("epsilon is " + text_of(options.epsilon) + ": give a number in (0, 1)");
  if (!inside(options.delta)) refuse("delta is " + text_of(options.delta) + ": give a number in (0, 1)");
  if (options.columns < 0 || options.columns >= std::int64_t{1} << 31)
    refuse(std::to_string(options.columns) + " columns: give 1 to 2^31 - 1, or 0 for as many as epsilon asks for");
}

/// Collective. The methods that do not look at all values themselves would draw columns with NaN, or leave them out.
void require_finite(const RowMatrix& X) {
  X.communicator().agree([&] {
    if (!X.passes().row_norms().allFinite())
      throw InvalidArgument("X has columns whose norms are not finite, or overflow");
  });
}

/// Collective. Rows in proportion to `shares` >= 0, with replacement. The scores of `sample_with_replacement` are at
/// most 1 and sum to less than 2^21.
SampledRows draw_by(const RowMatrix& X, const VectorXd& shares, std::int64_t draws, std::uint64_t seed) {
  const Communicator& communicator = X.communicator();
  const double largest = communicator.max(shares.size() == 0 ? 0.0 : shares.maxCoeff());
  const double sum = communicator.sum(shares.sum());
  if (!(largest > 0)) return {};
  // A power of two: the ranks' sum depends on their number, and the scores must not.
  const double scale = std::exp2(std::floor(std::log2(std::min(1 / largest, 0x1p20 / sum))));
  return sample_with_replacement(X, scale * shares, {.draws = draws, .seed = seed});
}

SampledRows draw_by_leverage(const RowMatrix& X, const SparsifyOptions& options, std::int64_t columns) {
  LeverageOptions scores = options.scores;
  scores.seed = options.seed;
  const LeverageScores found = leverage_scores(X, {}, scores);
  if (options.with_replacement) return draw_by(X, found.scores, columns, options.seed);
  const double oversampling = static_cast<double>(columns) / static_cast<double>(X.columns());
  return sample_poisson(X, found.scores, {.oversampling = oversampling, .seed = options.seed});
}

/// Collective. The largest t for which at least `count` of all values, which are >= 0, are t or more; by halving the
/// range of bit patterns, which are in the order of the numbers.
double threshold_for(const Communicator& communicator, const VectorXd& values, std::int64_t count) {
  const auto reaching = [&](std::int64_t bits) {
    const auto least = std::bit_cast<double>(bits);
    return communicator.sum(static_cast<std::int64_t>((values.array() >= least).count()));
  };
  std::int64_t low = 0, high = std::bit_cast<std::int64_t>(std::numeric_limits<double>::infinity());
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (reaching(middle) >= count ? low : high) = middle;
  }
  return std::bit_cast<double>(low);
}

/// Collective. The rows with the `count` largest norms, the lower numbers of equal ones; weights 1.
SampledRows largest_rows(const RowMatrix& X, std::int64_t count) {
  const Communicator& communicator = X.communicator();
  const VectorXd& norms = X.passes().row_norms();
  count = std::min(count, X.rows_global());
  const double threshold = threshold_for(communicator, norms, count);
  const std::int64_t above = communicator.sum(static_cast<std::int64_t>((norms.array() > threshold).count()));
  const auto equal = communicator.all_gather(static_cast<std::int64_t>((norms.array() == threshold).count()));
  std::int64_t left = count - above;  // of those that equal the threshold, for this rank and the ranks after it
  for (int rank = 0; rank < communicator.rank(); ++rank) left -= equal[static_cast<std::size_t>(rank)];
  SampledRows sample;
  for (Index i = 0; i < norms.size(); ++i)
    if (norms[i] > threshold || (norms[i] == threshold && left-- > 0)) sample.rows.push_back(i);
  sample.weights = VectorXd::Ones(static_cast<Index>(sample.rows.size()));
  sample.count_global = count;
  return sample;
}

/// Collective. sqrt(weight_k) x_k for the rows of a sample.
RowMatrix scaled_rows(const RowMatrix& X, const std::vector<Index>& rows, const VectorXd& weights) {
  const Communicator& communicator = X.communicator();
  const auto partition = RowPartition::from_local(communicator, static_cast<std::int64_t>(rows.size()));
  if (partition.rows_global() == 0) return no_columns(X);
  RowMajorMatrix Y;
  communicator.agree([&] { Y.resize(static_cast<Index>(rows.size()), X.columns()); });
  X.passes().visit_rows(rows, [&](std::size_t k, std::span<const double> row) {
    const auto i = static_cast<Index>(k);
    Y.row(i) = std::sqrt(weights[i]) * Eigen::Map<const Eigen::RowVectorXd>(row.data(), X.columns());
  });
  if (X.is_sparse()) return RowMatrix(communicator, partition, sparse_rows(Y));
  return RowMatrix(communicator, partition, std::move(Y));
}

Sparsifier from_sample(const RowMatrix& X, const SampledRows& sample, std::int64_t draws) {
  Sparsifier result{.Y = scaled_rows(X, sample.rows, sample.weights),
                    .weights = sample.weights,
                    .columns_global = sample.count_global,
                    .draws = draws};
  for (const Index row : sample.rows) result.columns.push_back(X.first_row() + row);
  return result;
}

/// Collective. The rows of G^T X^T, G: d x m, dealt out to the ranks.
Sparsifier random_combinations(const RowMatrix& X, std::int64_t m, std::uint64_t seed) {
  const Communicator& communicator = X.communicator();
  require_memory(communicator, 16.0 * static_cast<double>(m) * static_cast<double>(X.columns()),
                 "the JL matrix's product, " + std::to_string(m) + " x " + std::to_string(X.columns()));
  const RowMajorMatrix part =
      sketch(X, {}, {.kind = SketchKind::gaussian, .rows = static_cast<Index>(m), .seed = seed});
  RowPartition partition = RowPartition::in_blocks(m, 1, communicator.size());
  std::vector<std::int64_t> counts;
  for (int rank = 0; rank < communicator.size(); ++rank) counts.push_back(partition.rows_local(rank) * X.columns());
  RowMajorMatrix Y(partition.rows_local(communicator.rank()), X.columns());
  communicator.sum_scatter(span_of(part), counts, span_of(Y));
  return {.Y = RowMatrix(communicator, std::move(partition), std::move(Y)), .columns_global = m, .draws = m};
}

Sparsifier by_barriers(const RowMatrix& X, const SparsifyOptions& options) {
  const BarrierChoice choice = choose_by_barriers(X, options.epsilon, options.columns);
  const auto count = X.communicator().sum(static_cast<std::int64_t>(choice.rows.size()));
  const SampledRows sample{.rows = choice.rows, .weights = choice.weights, .count_global = count};
  Sparsifier result = from_sample(X, sample, choice.steps);
  result.end = choice.end;
  result.certified_epsilon = choice.certified_epsilon;
  return result;
}

}  // namespace

std::int64_t columns_for(const SparsifyOptions& options, Index n) {
  check(options);
  if (options.columns > 0) return options.columns;
  if (options.method == ColumnMethod::leverage && !options.with_replacement)
    return static_cast<std::int64_t>(
        std::ceil(poisson_oversampling(n, options.epsilon, options.delta, {}) * static_cast<double>(n)));
  return with_replacement_size(n, options.epsilon, options.delta);
}

Sparsifier sparsify(const RowMatrix& X, const SparsifyOptions& options) {
  check(options);
  if (options.method == ColumnMethod::bss) return by_barriers(X, options);
  if (options.method != ColumnMethod::leverage) require_finite(X);
  const std::int64_t m = columns_for(options, X.columns());
  switch (options.method) {
    case ColumnMethod::leverage:
      return from_sample(X, draw_by_leverage(X, options, m), options.with_replacement ? m : 0);
    case ColumnMethod::uniform: return from_sample(X, draw_by(X, VectorXd::Ones(X.rows_local()), m, options.seed), m);
    case ColumnMethod::norm: {
      const VectorXd norms = scale_for_squares(X) * X.passes().row_norms();
      return from_sample(X, draw_by(X, norms.cwiseAbs2(), m, options.seed), m);
    }
    case ColumnMethod::topk: return from_sample(X, largest_rows(X, m), 0);
    default: return random_combinations(X, m, options.seed);
  }
}

RowMatrix no_columns(const RowMatrix& X) {
  const auto partition = RowPartition::in_blocks(1, 1, X.communicator().size());
  RowMajorMatrix zero = RowMajorMatrix::Zero(X.communicator().is_root() ? 1 : 0, X.columns());
  if (X.is_sparse()) return RowMatrix(X.communicator(), partition, sparse_rows(zero));
  return RowMatrix(X.communicator(), partition, std::move(zero));
}

}  // namespace attnreg
