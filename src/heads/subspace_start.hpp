#pragma once

#include <deque>

#include "heads/head_passes.hpp"
#include "heads/leading_subspaces.hpp"

namespace attnreg {

/// A rectangle of one sequence, queries x keys, in which a head has a target everywhere.
struct Piece {
  std::size_t rows = 0;                ///< its place in `HeadInputs::rows`
  Index first_query = 0, queries = 0;  ///< of those of `HeadRows`
  std::vector<Index> keys;             ///< of those of `HeadRows`

  Index shorter_side() const { return std::min(queries, std::ssize(keys) - 1); }  ///< of what is centred
};

/// Collective. The pieces of this rank, of at most 512 x 512: whole sequences; of sequences under a mask or with zeros
/// queries from half, a quarter, ... on, with the keys that all of these see. And the metrics of their queries and
/// keys, centred over the piece: those of the inputs where the pieces are the sequences, so that heads share them. One
/// piece is as good as another, for pieces are all regressions of the same X; what is left out shows in the later
/// steps.
class SubspaceFrame {
 public:
  SubspaceFrame(const HeadInputs& inputs, const HeadTarget& target);

  const std::deque<Piece>& pieces() const { return pieces_; }
  bool is_empty() const { return !(largest_side_ > 0); }  ///< on all ranks
  Index largest_side() const { return largest_side_; }    ///< of the pieces of all ranks
  const Whitening& query_metric() const { return queries_ ? *queries_ : inputs_.query_metric(); }
  const Whitening& key_metric() const { return keys_ ? *keys_ : inputs_.key_metric(); }
  const HeadInputs& inputs() const { return inputs_; }

 private:
  const HeadInputs& inputs_;
  std::deque<Piece> pieces_;
  std::optional<Whitening> queries_, keys_;
  Index largest_side_ = 0;
};

/// Where a spectrum falls most.
struct RankGap {
  Index rank = 0;    ///< in front of the gap
  double ratio = 0;  ///< of the two singular values
};

/// What the log-odds of one head in the pieces of a frame say about X. Source: log b_j = A2 X^T a_j + const, so that
/// the log-odds L = A P (K Q)^T have the rank of X, and their singular vectors span A P and K Q.
class SubspaceStart {
 public:
  SubspaceStart(const SubspaceFrame& frame, const HeadTarget& target);

  /// Collective. The rank of the largest gap in the geometric mean of the pieces' spectra, among their first three
  /// quarters; 0 if it is no factor of 3. expected: a rank to look at first, as of other heads of the layer, or 0.
  RankGap rank_of_gap(Index expected);
  /// Local. Whether pieces have more than `rank` queries and keys.
  bool serves(Index rank) const { return rank > 0 && rank < frame_.largest_side(); }

  struct Result {
    HeadMatrices X;
    /// The r-th and the next eigenvalue of the sum of the pieces' subspaces, 1 being common to all: if both are near 1,
    /// more than one X reproduces the data.
    double last = 0, next = 0;
    double equations = 0, unknowns = 0;  ///< for one column of P (or Q): sum over pieces of (n - r), and d
  };
  /// Collective, 3 all-reduces of d^2, 3 and d r numbers; rank 0 finds eigenvectors. P is the intersection of the
  /// subspaces, Q the least squares solution with it; the other way round where that has more equations.
  Result find(Index rank);

 private:
  RankGap gap_of(const std::vector<VectorXd>& spectra) const;
  MatrixXd intersection(Index rank, bool of_queries, Result& result);

  const SubspaceFrame& frame_;
  std::vector<MatrixXd> log_odds_;          ///< of each piece: keys x queries, centred over the keys
  std::vector<LeadingSubspace> subspaces_;  ///< of the last rank that was looked at, of the queries
};

}  // namespace attnreg
