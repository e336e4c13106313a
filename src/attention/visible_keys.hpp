#pragma once

#include <cstdint>
#include <vector>

#include "attnreg/attention_regression.hpp"

namespace attnreg {

/// A mask as this rank's queries see it. Local; rows are those of this rank, keys are all.
class VisibleKeys {
 public:
  /// The mask must outlive this. `InvalidArgument` (this rank): a mask of another shape, a causal one of more queries
  /// than keys, a query that sees no key (its global row).
  VisibleKeys(const AttentionMask& mask, const RowPartition& partition, int rank, std::int64_t keys);

  bool sees(Index row, std::int64_t key) const {
    return mask_->rows ? (*mask_->rows)(row, static_cast<Index>(key)) != 0 : key <= last_of_first_ + row;
  }
  /// The keys of one query, in order.
  void list(Index row, std::vector<Index>& keys) const;
  /// How many of the rows [first, first + count) see each key.
  VectorXd counts(Index first, Index count) const;
  Index rows() const { return rows_; }

  /// Sets what belongs to hidden keys to `value`. matrix: the rows from `first` on, the keys from `first_key` on.
  void fill_hidden(Eigen::Ref<RowMajorMatrix> matrix, Index first, std::int64_t first_key, double value) const;

 private:
  const AttentionMask* mask_;
  std::int64_t keys_, last_of_first_;  ///< of a causal mask, the last key that the first row sees
  Index rows_;
};

}  // namespace attnreg
