#include "heads/subspace_start.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "algebra/blas_products.hpp"
#include "algebra/dense_factors.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr Index kLongestPiece = 512;  // enough for ranks up to some hundred; more would cost more than it tells
constexpr Index kShortestPiece = 4;
constexpr double kClearGap = 3;
constexpr double kPlainGap = 30;  // of the first sequences: the others are not looked at
constexpr std::size_t kFirstSequences = 2;
constexpr double kSingular = 1e-12;

MatrixXd columns_of(MatrixPart matrix, const std::vector<Index>& places) {
  if (std::ssize(places) == matrix.cols()) return matrix;
  MatrixXd result(matrix.rows(), std::ssize(places));
  for (Index k = 0; k < result.cols(); ++k) result.col(k) = matrix.col(places[static_cast<std::size_t>(k)]);
  return result;
}

MatrixXd queries_of(const HeadInputs& inputs, const Piece& piece) {
  return inputs.A().middleCols(inputs.rows()[piece.rows].first_query + piece.first_query, piece.queries);
}

/// Not centred over the piece.
MatrixXd keys_of(const HeadInputs& inputs, const Piece& piece) {
  return columns_of(inputs.keys_of(inputs.rows()[piece.rows]), piece.keys);
}

/// Ranges of queries of a sequence, by their global rows, that make pieces: [first, end) of `HeadRows::rows`.
std::vector<std::pair<Index, Index>> query_ranges(const HeadRows& rows, bool complete) {
  std::vector<std::pair<Index, Index>> ranges;
  const auto place = [&](std::int64_t row) {
    return static_cast<Index>(std::ranges::lower_bound(rows.global_rows, row) - rows.global_rows.begin());
  };
  std::int64_t end = rows.rows_global;
  while (end > 0) {
    // Under a causal mask the keys of a piece end where its queries begin; without, the whole sequence is one.
    std::int64_t begin = complete ? 0 : end / 2;
    for (std::int64_t last = end; last > begin;) {
      const std::int64_t first = std::max(begin, (last - 1) / kLongestPiece * kLongestPiece);
      if (place(first) < place(last)) ranges.emplace_back(place(first), place(last));
      last = first;
    }
    end = begin;
  }
  return ranges;
}

/// The keys of a piece: all that its queries have a target for, thinned out to `kLongestPiece`.
std::vector<Index> keys_of_range(const HeadRows& rows, const TargetRows& target, Index first, Index count, bool dense) {
  std::vector<Index> keys;
  for (Index key = 0; key < target.B.rows(); ++key)
    if (dense || (target.weights.row(key).segment(first, count).array() > 0).all()) keys.push_back(key);
  const Index all = std::ssize(keys), stride = (all + kLongestPiece - 1) / kLongestPiece;
  if (stride <= 1) return keys;
  std::vector<Index> some;
  for (Index k = rows.global_rows[static_cast<std::size_t>(first)] / kLongestPiece % stride; k < all; k += stride)
    some.push_back(keys[static_cast<std::size_t>(k)]);
  return some;
}

/// (C C^T)^-1 C B for C r x m.
MatrixXd solved_rows(MatrixPart C, const MatrixXd& CB) {
  MatrixXd gram = gram_of_rows(C);
  gram.diagonal().array() += kSingular * gram.trace();
  Cholesky cholesky;
  if (!cholesky.factor(gram)) return MatrixXd::Zero(CB.rows(), CB.cols());
  return cholesky.solve_columns(CB);
}

}  // namespace

SubspaceFrame::SubspaceFrame(const HeadInputs& inputs, const HeadTarget& target) : inputs_(inputs) {
  bool whole = true;
  Index largest = 0;
  for (std::size_t k = 0; k < inputs.rows().size(); ++k) {
    const HeadRows& rows = inputs.rows()[k];
    for (const auto& [first, last] : query_ranges(rows, target.is_dense())) {
      Piece piece{k, first, last - first,
                  keys_of_range(rows, target.rows()[k], first, last - first, target.is_dense())};
      if (piece.shorter_side() < kShortestPiece) continue;
      whole = whole && piece.queries == rows.queries() && std::ssize(piece.keys) == rows.key_count();
      largest = std::max(largest, piece.shorter_side());
      pieces_.push_back(std::move(piece));
    }
  }
  // A sequence of several ranks, or with too few rows for a piece, would be missing.
  Index queries = 0;
  for (const auto& piece : pieces_) queries += piece.queries;
  whole = whole && queries == inputs.A().cols() && std::ranges::all_of(inputs.rows(), [](const HeadRows& rows) {
            return rows.share_begin == 0 && rows.share_end == rows.key_count();
          });
  const Communicator& communicator = inputs.communicator();
  largest_side_ = communicator.max(std::int64_t{largest});
  if (communicator.min(std::int64_t{whole}) != 0 || is_empty()) return;
  MatrixXd G = MatrixXd::Zero(inputs.A().rows(), inputs.A().rows()),
           H = MatrixXd::Zero(inputs.K().rows(), inputs.K().rows());
  for (const auto& piece : pieces_) {
    add_gram_of_rows(queries_of(inputs, piece), G);
    MatrixXd keys = keys_of(inputs, piece);
    keys.colwise() -= VectorXd(keys.rowwise().mean());
    add_gram_of_rows(keys, H);
  }
  queries_ = whitening(communicator, summed_gram(communicator, std::move(G)));
  keys_ = whitening(communicator, summed_gram(communicator, std::move(H)));
}

SubspaceStart::SubspaceStart(const SubspaceFrame& frame, const HeadTarget& target) : frame_(frame) {
  for (const auto& piece : frame.pieces()) {
    const auto& all = target.rows()[piece.rows].log_odds.middleCols(piece.first_query, piece.queries);
    if (std::ssize(piece.keys) == all.rows()) {
      log_odds_.push_back(all);
    } else {
      MatrixXd& some = log_odds_.emplace_back(std::ssize(piece.keys), piece.queries);
      for (Index k = 0; k < some.rows(); ++k) some.row(k) = all.row(piece.keys[static_cast<std::size_t>(k)]);
      some.rowwise() -= Eigen::RowVectorXd(some.colwise().mean());
    }
  }
}

RankGap SubspaceStart::gap_of(const std::vector<VectorXd>& spectra) const {
  const Communicator& communicator = frame_.inputs().communicator();
  std::int64_t shortest = std::numeric_limits<std::int64_t>::max();
  for (const auto& spectrum : spectra) shortest = std::min(shortest, std::int64_t{spectrum.size()});
  shortest = communicator.min(shortest);
  if (shortest == std::numeric_limits<std::int64_t>::max() || shortest < 2) return {};
  VectorXd logarithms = VectorXd::Zero(shortest + 1);
  for (const auto& spectrum : spectra) {
    logarithms.head(shortest) += spectrum.head(shortest).cwiseMax(1e-300).array().log().matrix();
    logarithms[shortest] += 1;
  }
  communicator.sum(span_of(logarithms));
  RankGap gap;
  for (Index k = 0; k + 1 < shortest; ++k) {
    const double ratio = std::exp((logarithms[k] - logarithms[k + 1]) / logarithms[shortest]);
    if (ratio > gap.ratio) gap = {k + 1, ratio};
  }
  return gap;
}

RankGap SubspaceStart::rank_of_gap(Index expected) {
  const auto leading = [&](Index rank) {
    subspaces_.clear();
    std::vector<VectorXd> spectra;
    for (const auto& L : log_odds_) {
      subspaces_.push_back(leading_subspace(L, std::min({rank, L.rows(), L.cols()})));
      if (subspaces_.back().values.size() > rank + 1) spectra.push_back(subspaces_.back().values);
    }
    return gap_of(spectra);
  };
  const auto spectra_of = [&](std::size_t sequences) {
    std::vector<VectorXd> spectra;
    for (std::size_t k = 0; k < log_odds_.size(); ++k) {
      const Piece& piece = frame_.pieces()[k];
      if (2 * piece.shorter_side() <= frame_.largest_side() || frame_.inputs().rows()[piece.rows].index >= sequences)
        continue;
      const VectorXd spectrum = spectrum_of(log_odds_[k]);
      spectra.push_back(spectrum.head(3 * piece.shorter_side() / 4 + 1));
    }
    return gap_of(spectra);
  };
  if (expected > 0 && serves(expected + 1)) {
    const RankGap gap = leading(expected);
    if (gap.rank == expected && gap.ratio > kPlainGap) return gap;
  }
  const RankGap first = spectra_of(kFirstSequences);
  if (first.ratio > kPlainGap && first.rank != expected) {
    const RankGap gap = leading(first.rank);
    if (gap.rank == first.rank && gap.ratio > kClearGap) return gap;
  }
  const RankGap all = spectra_of(std::numeric_limits<std::size_t>::max());
  return all.ratio > kClearGap ? all : RankGap{};
}

MatrixXd SubspaceStart::intersection(Index rank, bool of_queries, Result& result) {
  const HeadInputs& inputs = frame_.inputs();
  const Whitening& metric = of_queries ? frame_.query_metric() : frame_.key_metric();
  const Index k = metric.dimension();
  MatrixXd sum = MatrixXd::Zero(k, k);
  for (std::size_t p = 0; p < log_odds_.size(); ++p) {
    const Piece& piece = frame_.pieces()[p];
    if (piece.shorter_side() <= rank) continue;
    const auto y = of_queries && p < subspaces_.size() && subspaces_[p].vectors.cols() == rank
                       ? times(queries_of(inputs, piece), subspaces_[p].vectors)
                   : of_queries
                       ? times(queries_of(inputs, piece), leading_subspace(log_odds_[p], rank).vectors)
                       : times(keys_of(inputs, piece), leading_subspace(log_odds_[p].transpose(), rank).vectors);
    add_gram_of_rows(transposed_times(metric.W, y), sum);
  }
  mirror(sum);
  inputs.communicator().sum_to_root(span_of(sum));
  MatrixXd found(metric.W.rows(), rank);
  VectorXd values(rank + 1);
  if (inputs.communicator().is_root()) {
    const TopEigenvectors top = top_eigenvectors(sum, rank);
    found = times(metric.W, top.vectors);
    values = top.values;
  }
  inputs.communicator().broadcast(span_of(found));
  inputs.communicator().broadcast(span_of(values));
  result.last = values[rank - 1];
  result.next = values[rank];
  return found;
}

SubspaceStart::Result SubspaceStart::find(Index rank) {
  const HeadInputs& inputs = frame_.inputs();
  std::array<double, 2> equations{};
  for (const auto& piece : frame_.pieces()) {
    if (piece.shorter_side() <= rank) continue;
    equations[0] += static_cast<double>(piece.queries - rank);
    equations[1] += static_cast<double>(std::ssize(piece.keys) - 1 - rank);
  }
  inputs.communicator().sum(equations);
  const double k1 = static_cast<double>(frame_.query_metric().dimension()),
               k2 = static_cast<double>(frame_.key_metric().dimension());
  const bool of_queries = equations[0] / k1 >= equations[1] / k2;
  Result result;
  result.equations = of_queries ? equations[0] : equations[1];
  result.unknowns = of_queries ? k1 : k2;
  MatrixXd known = intersection(rank, of_queries, result);
  const Whitening& metric = of_queries ? frame_.key_metric() : frame_.query_metric();
  MatrixXd other = MatrixXd::Zero(metric.W.rows(), rank);
  for (std::size_t p = 0; p < log_odds_.size(); ++p) {
    const Piece& piece = frame_.pieces()[p];
    if (piece.shorter_side() <= rank) continue;
    if (of_queries) {
      const MatrixXd a = transposed_times(known, queries_of(inputs, piece));
      add_times_transposed(keys_of(inputs, piece), solved_rows(a, times_transposed(a, log_odds_[p])), other);
    } else {
      MatrixXd c = transposed_times(known, keys_of(inputs, piece));
      c.colwise() -= VectorXd(c.rowwise().mean());
      add_times_transposed(queries_of(inputs, piece), solved_rows(c, times(c, log_odds_[p])), other);
    }
  }
  inputs.communicator().sum(span_of(other));
  if (inputs.communicator().is_root()) other = times(metric.W, transposed_times(metric.W, other));
  inputs.communicator().broadcast(span_of(other));
  result.X =
      of_queries ? HeadMatrices{std::move(known), std::move(other)} : HeadMatrices{std::move(other), std::move(known)};
  return result;
}

}  // namespace attnreg
