#include <numeric>

#include "heads/subspace_start.hpp"

namespace attnreg {

namespace {

constexpr Index kLongestPiece = 512;  // enough for ranks up to some hundred; more would cost more than it tells
constexpr Index kShortestPiece = 4;
constexpr int kMostRectangles = 8;  // of one block of queries
constexpr double kReliable = 0.5;   // the weight of log-odds that are no noise

/// Each stride-th of the places, from the first-th on, so that at most `kLongestPiece` are left.
std::vector<Index> thinned(const std::vector<Index>& places, std::int64_t first) {
  const Index all = std::ssize(places), stride = (all + kLongestPiece - 1) / kLongestPiece;
  if (stride <= 1) return places;
  std::vector<Index> some;
  for (Index k = static_cast<Index>(first) % stride; k < all; k += stride)
    some.push_back(places[static_cast<std::size_t>(k)]);
  return some;
}

/// The queries [first, last) that have the same 512 rows, counted over the whole sequence.
std::vector<std::pair<Index, Index>> blocks_of(const HeadRows& rows) {
  std::vector<std::pair<Index, Index>> blocks;
  for (Index first = 0, k = 1; k <= rows.queries(); ++k) {
    const auto block = [&](Index query) { return rows.global_rows[static_cast<std::size_t>(query)] / kLongestPiece; };
    if (k < rows.queries() && block(k) == block(first)) continue;
    blocks.emplace_back(first, k);
    first = k;
  }
  return blocks;
}

/// Takes the queries of the largest rectangle of reliable weights out of `queries`, among those that consist of the
/// queries with the most keys; none: it is too small.
std::optional<Piece> largest_rectangle(const MatrixXd& weights, std::vector<Index>& queries) {
  std::vector<Index> counts(static_cast<std::size_t>(weights.cols()));
  for (const Index query : queries)
    counts[static_cast<std::size_t>(query)] = (weights.col(query).array() > kReliable).count();
  std::ranges::stable_sort(queries, std::greater{},
                           [&](Index query) { return counts[static_cast<std::size_t>(query)]; });
  std::vector<Index> keys(static_cast<std::size_t>(weights.rows())), best_keys;
  std::iota(keys.begin(), keys.end(), 0);
  Index best = 0, count = 0;
  for (Index k = 0; k < std::ssize(queries); ++k) {
    std::erase_if(keys, [&](Index key) { return !(weights(key, queries[static_cast<std::size_t>(k)]) > kReliable); });
    // Both sides count, as what a piece tells of X begins where they are above the rank.
    const Index side = std::min(k + 1, std::ssize(keys) - 1);
    if (side < best || side < kShortestPiece) continue;
    best = side;
    count = k + 1;
    best_keys = keys;
  }
  if (count == 0) return std::nullopt;
  Piece piece{0, {queries.begin(), queries.begin() + count}, std::move(best_keys), false};
  queries.erase(queries.begin(), queries.begin() + count);
  std::ranges::sort(piece.queries);
  return piece;
}

}  // namespace

SubspaceFrame::SubspaceFrame(const HeadInputs& inputs, const HeadTarget& target) : inputs_(inputs) {
  for (std::size_t k = 0; k < inputs.rows().size(); ++k) {
    const HeadRows& rows = inputs.rows()[k];
    const auto add = [&](Piece piece, Index first) {
      piece.rows = k;
      piece.is_whole = std::ssize(piece.queries) == rows.queries() && std::ssize(piece.keys) == rows.key_count() &&
                       rows.share_begin == 0 && rows.share_end == rows.key_count();
      piece.keys = thinned(piece.keys, rows.global_rows[static_cast<std::size_t>(first)] / kLongestPiece);
      piece.is_whole = piece.is_whole && std::ssize(piece.keys) == rows.key_count();
      if (piece.shorter_side() >= kShortestPiece) pieces_.push_back(std::move(piece));
    };
    for (const auto& [first, last] : blocks_of(rows)) {
      std::vector<Index> queries(static_cast<std::size_t>(last - first)),
          keys(static_cast<std::size_t>(rows.key_count()));
      std::iota(queries.begin(), queries.end(), target.is_dense() ? first : 0);
      std::iota(keys.begin(), keys.end(), 0);
      if (target.is_dense()) {
        add({0, std::move(queries), std::move(keys), false}, first);
        continue;
      }
      const MatrixXd weights = target.block(k, first, last - first, false).weights;
      for (int rectangle = 0; rectangle < kMostRectangles; ++rectangle) {
        auto piece = largest_rectangle(weights, queries);
        if (!piece) break;
        for (Index& query : piece->queries) query += first;
        add(*std::move(piece), first);
      }
    }
  }
  std::int64_t largest = 0;
  for (const auto& piece : pieces_) largest = std::max<std::int64_t>(largest, piece.shorter_side());
  largest_side_ = static_cast<Index>(inputs.communicator().max(largest));
}

void SubspaceFrame::use(Index rank) {
  if (rank == rank_) return;
  rank_ = rank;
  queries_.reset();
  keys_.reset();
  Index used = 0;
  bool whole = true;
  for (const auto& piece : pieces_)
    if (has(piece)) {
      used += std::ssize(piece.queries);
      whole = whole && piece.is_whole;
    }
  const Communicator& communicator = inputs_.communicator();
  if (communicator.min(std::int64_t{whole && used == inputs_.A().cols()}) != 0) return;
  MatrixXd G = MatrixXd::Zero(inputs_.A().rows(), inputs_.A().rows());
  MatrixXd H = MatrixXd::Zero(inputs_.K().rows(), inputs_.K().rows());
  for (const auto& piece : pieces_) {
    if (!has(piece)) continue;
    with_queries(piece, [&](MatrixPart A) { add_gram_of_rows(A, G); });
    with_keys(piece, [&](MatrixPart K) { add_gram_of_rows(K.colwise() - VectorXd(K.rowwise().mean()), H); });
  }
  queries_ = whitening(communicator, summed_gram(communicator, std::move(G)));
  keys_ = whitening(communicator, summed_gram(communicator, std::move(H)));
}

}  // namespace attnreg
