#include "attention/visible_keys.hpp"

#include <algorithm>
#include <string>

#include "attnreg/error.hpp"

namespace attnreg {

VisibleKeys::VisibleKeys(const AttentionMask& mask, const RowPartition& partition, int rank, std::int64_t keys)
    : mask_(&mask),
      keys_(keys),
      last_of_first_(partition.begin(rank) + keys - partition.rows_global()),
      rows_(partition.rows_local(rank)) {
  if (!mask.rows) {
    if (partition.rows_global() > keys)
      throw InvalidArgument("a causal mask needs as many keys as queries, or more; there are " +
                            std::to_string(partition.rows_global()) + " queries and " + std::to_string(keys) +
                            " keys, and query 0 would see none");
    return;
  }
  const auto& rows = *mask.rows;
  if (rows.rows() != rows_ || rows.cols() != keys)
    throw InvalidArgument("the mask is " + std::to_string(rows.rows()) + " x " + std::to_string(rows.cols()) +
                          " on this rank, expected " + std::to_string(rows_) + " x " + std::to_string(keys));
  for (Index row = 0; row < rows_; ++row)
    if (!(rows.row(row).array() != 0).any())
      throw InvalidArgument("query " + std::to_string(partition.begin(rank) + row) +
                            " (counted from 0) sees no key: its row of the mask is 0");
}

void VisibleKeys::list(Index row, std::vector<Index>& keys) const {
  keys.clear();
  for (Index key = 0; key < static_cast<Index>(keys_); ++key)
    if (sees(row, key)) keys.push_back(key);
}

VectorXd VisibleKeys::counts(Index first, Index count) const {
  VectorXd counts = VectorXd::Zero(static_cast<Index>(keys_));
  for (Index row = first; row < first + count; ++row)
    for (Index key = 0; key < counts.size(); ++key) counts[key] += sees(row, key) ? 1 : 0;
  return counts;
}

void VisibleKeys::fill_hidden(Eigen::Ref<RowMajorMatrix> matrix, Index first, std::int64_t first_key,
                              double value) const {
  for (Index i = 0; i < matrix.rows(); ++i)
    for (Index k = 0; k < matrix.cols(); ++k)
      if (!sees(first + i, first_key + k)) matrix(i, k) = value;
}

}  // namespace attnreg
