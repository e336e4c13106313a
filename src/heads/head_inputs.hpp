#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "attention/visible_keys.hpp"
#include "attnreg/attention_regression.hpp"
#include "heads/whitening.hpp"
#include "ranks/activity.hpp"

namespace attnreg {

inline constexpr double kMissing = 1e-30;  ///< an attention below that is a 0: it has no logarithm that means something

/// B of one head and sequence as it is held, this rank's queries x keys. A view.
class TargetMatrix {
 public:
  TargetMatrix(const RowMajorMatrix& B) : double_(&B) {}
  TargetMatrix(const RowMajorMatrixFloat& B) : float_(&B) {}
  TargetMatrix(const AttentionMatrix& B) : double_(std::get_if<0>(&B)), float_(std::get_if<1>(&B)) {}

  /// use(matrix), whatever it is.
  template <class Use>
  decltype(auto) with(Use&& use) const {
    return double_ != nullptr ? use(*double_) : use(*float_);
  }
  Index rows() const { return double_ != nullptr ? double_->rows() : float_->rows(); }
  Index cols() const { return double_ != nullptr ? double_->cols() : float_->cols(); }
  double operator()(Index row, Index key) const {
    return double_ != nullptr ? (*double_)(row, key) : double{(*float_)(row, key)};
  }

 private:
  const RowMajorMatrix* double_ = nullptr;
  const RowMajorMatrixFloat* float_ = nullptr;
};

/// B of a head, one matrix for each sequence.
using HeadTargets = std::vector<TargetMatrix>;

using KeyFlags = Eigen::Matrix<std::uint8_t, Eigen::Dynamic, Eigen::Dynamic>;

/// This rank's rows of one sequence, without padding: keys that no query sees and queries without a target are left
/// out. Sequences of which the rank has no row are not listed.
struct HeadRows {
  std::size_t index = 0;                  ///< of the sequence
  std::int64_t rows_global = 0;           ///< its queries, on all ranks and with those left out
  std::vector<Index> rows, keys;          ///< those kept, of this rank's rows and of all keys
  Index first_query = 0, first_key = 0;   ///< their first columns in A and K
  Index share_begin = 0, share_end = 0;   ///< the keys that this rank counts in sums over keys; each is counted once
  std::vector<std::int64_t> global_rows;  ///< of the kept rows
  std::optional<VisibleKeys> visible;     ///< without: all

  Index queries() const { return static_cast<Index>(rows.size()); }
  Index key_count() const { return static_cast<Index>(keys.size()); }
  bool sees(Index query, Index key) const {
    return !visible || visible->sees(rows[static_cast<std::size_t>(query)], keys[static_cast<std::size_t>(key)]);
  }
  /// Which keys some of the queries see, keys x count; empty: all.
  KeyFlags visible_keys(Index first, Index count) const;
};

/// Calls use(first, count) for some of the queries at a time, of which the logits are made together: 256, or of long
/// sequences as many as make 2^20 numbers.
template <class Use>
void for_each_block(const HeadRows& rows, Use&& use) {
  constexpr Index kMost = 256, kFewest = 16, kNumbers = Index{1} << 20;
  const Index all = rows.queries(), size = std::clamp(kNumbers / std::max<Index>(rows.key_count(), 1), kFewest, kMost);
  for (Index first = 0; first < all; first += size) {
    use(first, std::min(size, all - first));
    InWork::add(std::min(size, all - first));
  }
}

/// What heads with the same inputs share: the queries of all sequences in one matrix, a column each, and the keys,
/// centred over their sequence, which takes away the key gauge X + y v^T with A2 v = 1. Local but for the metrics.
class HeadInputs {
 public:
  /// Whether a query, of sequence `index` and with that global row, belongs to these inputs.
  using Selection = std::function<bool(std::size_t index, std::int64_t row)>;

  /// Collective: up to four all-reduces, the largest of d^2 numbers; N d^2 flops for each of the two Gram matrices.
  /// sequences: checked, as by `check_sequences`; they must outlive this. heads: padding is what none of them sees;
  /// without heads it is what a mask hides. `InvalidArgument` on all ranks if nothing is left.
  HeadInputs(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
             const std::vector<HeadTargets>& heads, const Selection& selection = {});

  const Communicator& communicator() const { return communicator_; }
  const std::vector<HeadRows>& rows() const { return rows_; }
  const MatrixXd& A() const { return A_; }  ///< d1 x queries
  const MatrixXd& K() const { return K_; }  ///< d2 x keys, centred over each sequence
  /// The same in float, made when first asked for; empty where their size is not within 10^+-10. Not from two threads.
  struct Floats {
    Eigen::MatrixXf A, K;
  };
  const Floats& floats() const;
  const Whitening& query_metric() const { return queries_; }
  const Whitening& key_metric() const { return keys_; }
  std::int64_t sequences() const { return sequences_; }            ///< with a query, on all ranks
  std::int64_t queries() const { return queries_global_; }         ///< on all ranks
  bool has_query_constant() const { return has_query_constant_; }  ///< A1 u = 1 for some u
  bool is_whole() const { return is_whole_; }  ///< every query has a target for every key, in all heads

  auto queries_of(const HeadRows& rows) const { return A_.middleCols(rows.first_query, rows.queries()); }
  auto keys_of(const HeadRows& rows) const { return K_.middleCols(rows.first_key, rows.key_count()); }
  /// Those that this rank counts.
  auto shared_keys_of(const HeadRows& rows) const {
    return K_.middleCols(rows.first_key + rows.share_begin, rows.share_end - rows.share_begin);
  }

 private:
  void select(const std::vector<AttentionSequence>& sequences, const Selection& selection);
  void trim(const std::vector<AttentionSequence>& sequences, const std::vector<HeadTargets>& heads);
  void stack(const std::vector<AttentionSequence>& sequences);

  Communicator communicator_;
  std::vector<HeadRows> rows_;
  MatrixXd A_, K_;
  mutable std::optional<Floats> floats_;
  Whitening queries_, keys_;
  std::int64_t sequences_ = 0, queries_global_ = 0;
  bool is_whole_ = true, has_query_constant_ = false;
};

/// B of a head, or if there is none that of the sequences.
HeadTargets targets_of(const std::vector<AttentionSequence>& sequences, const std::vector<AttentionMatrix>& head);

/// Collective. `InvalidArgument` on all ranks unless every head has attention, numbers >= 0 of the right shape, for
/// each of the sequences, which have neither values nor weights.
void check_targets(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                   const std::vector<HeadTargets>& heads);

/// The sum of a d x d matrix over the ranks, of which the lower triangle counts; both triangles. Collective.
MatrixXd summed_gram(const Communicator& communicator, MatrixXd lower);

}  // namespace attnreg
