#pragma once

#include "attnreg/apply_attention.hpp"

namespace attnreg {

/// Collective. `threshold_attention` where the marked entries themselves are kept, 16 bytes each: for the largest
/// logits of each query, of which it is known at the end only which these are, and for callers who want the matrix.
/// Queries, keys and values are checked. Two scans of all pairs with a threshold, of which the first counts for the
/// memory; one for the largest; then the values pass by once.
ThresholdAttention threshold_with_entries(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix& values,
                                          const ThresholdOptions& options, const AttentionMask* mask);

}  // namespace attnreg
