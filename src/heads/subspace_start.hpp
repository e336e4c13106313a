#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "heads/head_passes.hpp"
#include "heads/leading_subspaces.hpp"

namespace attnreg {

/// A rectangle of one sequence, queries x keys, in which a head has a target everywhere. Local.
struct Piece {
  std::size_t rows = 0;              ///< its place in `HeadInputs::rows`
  std::vector<Index> queries, keys;  ///< of those of `HeadRows`
  bool is_whole = false;             ///< it has all of these

  Index shorter_side() const { return std::min(std::ssize(queries), std::ssize(keys) - 1); }  ///< of what is centred
};

/// The pieces of this rank, of at most 512 x 512. A sequence with targets everywhere is one, or cut into some. Of
/// others, under a mask or with zeros, the largest rectangles are taken. One piece is as good as another, for all are
/// regressions of the same X; what is left out counts in later steps. Heads with targets everywhere share a frame.
class SubspaceFrame {
 public:
  /// Collective.
  SubspaceFrame(const HeadInputs& inputs, const HeadTarget& target);

  const HeadInputs& inputs() const { return inputs_; }
  const std::vector<Piece>& pieces() const { return pieces_; }
  Index largest_side() const { return largest_side_; }  ///< of the pieces of all ranks; 0: there are none

  /// Collective: one all-reduce, and up to two of d^2 numbers. The metrics of the queries and keys, centred over the
  /// piece, of all pieces with a shorter side above `rank`: those of the inputs where pieces are whole sequences.
  void use(Index rank);
  bool has(const Piece& piece) const { return piece.shorter_side() > rank_; }
  const Whitening& query_metric() const { return queries_ ? *queries_ : inputs_.query_metric(); }
  const Whitening& key_metric() const { return keys_ ? *keys_ : inputs_.key_metric(); }

  /// Local. Calls use(columns) with the queries or keys of a piece, d x number; copied only if they are not all. Keys
  /// are centred over the sequence, not over the piece.
  template <class Use>
  void with_queries(const Piece& piece, Use&& use) const {
    with_columns(inputs_.queries_of(inputs_.rows()[piece.rows]), piece.queries, use);
  }
  template <class Use>
  void with_keys(const Piece& piece, Use&& use) const {
    with_columns(inputs_.keys_of(inputs_.rows()[piece.rows]), piece.keys, use);
  }

 private:
  template <class Use>
  static void with_columns(MatrixPart all, const std::vector<Index>& places, Use& use) {
    if (std::ssize(places) == all.cols())
      use(all);
    else
      use(MatrixPart(MatrixXd(all(Eigen::all, places))));
  }

  const HeadInputs& inputs_;
  std::vector<Piece> pieces_;
  std::optional<Whitening> queries_, keys_;
  Index largest_side_ = 0, rank_ = -1;
};

/// The singular values of the log-odds in a piece, descending.
struct PieceSpectrum {
  VectorXd values;
  Piece piece;      ///< empty: the values are leading ones
  Index falls = 0;  ///< from how many values to the next one it is looked at
};

/// Where spectra fall most.
struct RankGap {
  Index rank = 0;    ///< in front of the gap
  double ratio = 0;  ///< of the two singular values

  bool is_plain() const { return ratio > 30; }  ///< whatever follows, and in some of the sequences
};

/// What the log-odds of one head in the pieces of a frame say about X. Source: log b_j = A2 X^T a_j + const, so that
/// the log-odds L = A P (K Q)^T have the rank of X, and their singular vectors span A P and K Q.
class SubspaceStart {
 public:
  /// Local. Both must outlive this.
  SubspaceStart(SubspaceFrame& frame, const HeadTarget& target);

  /// Collective. The rank of the largest gap in the geometric mean of the pieces' spectra: a factor of 3 in their first
  /// three quarters with noise behind it, for real heads have such gaps between their first singular values too, or
  /// else a factor of 30. 0: there is none. expected: a rank to look at first, as of other heads of the layer, or 0.
  RankGap rank_of_gap(Index expected);
  /// Local. Whether pieces have more than `rank` queries and keys.
  bool serves(Index rank) const { return rank > 0 && rank < frame_.largest_side(); }

  /// Collective, one all-reduce. What the pieces tell of one column of P, or of Q where that is more.
  struct Equations {
    bool of_queries = true;
    double count = 0, unknowns = 0;  ///< sum over pieces of (n - r), and d

    bool suffice() const { return count >= unknowns; }
  };
  Equations equations(Index rank);

  struct Result {
    HeadMatrices X;
    /// The r-th and the next eigenvalue of the sum of the pieces' subspaces, 1 being common to all: if both are near 1,
    /// more than one X reproduces the data.
    double last = 0, next = 0;
  };
  /// Collective, 2 reductions of d^2 and d r numbers; rank 0 finds eigenvectors. P is the intersection of the
  /// subspaces, Q the least squares solution with it; the other way round where that has more equations.
  Result find(Index rank, const Equations& equations);

 private:
  RankGap gap_of(const std::vector<PieceSpectrum>& spectra) const;
  RankGap gap_of_leading(Index rank);
  RankGap gap_of_spectra(std::size_t sequences) const;
  MatrixXd intersection(Index rank, bool of_queries, Result& result);
  MatrixXd least_squares_with(const MatrixXd& known, bool of_queries) const;

  SubspaceFrame& frame_;
  std::vector<MatrixXd> log_odds_;          ///< of each piece: keys x queries, centred over the keys
  std::vector<LeadingSubspace> subspaces_;  ///< of queries, of the last rank that was looked at
};

}  // namespace attnreg
