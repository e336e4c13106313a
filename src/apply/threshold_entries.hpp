#pragma once

#include <cstdint>

#include "attnreg/apply_attention.hpp"

namespace attnreg {

/// Local. Throws for a query, by its global number, whose products with the keys are not all finite: `NotFinite`; and
/// where no key is marked and the others have no weight: `InvalidArgument`.
void require_weight(std::int64_t query, bool is_finite, bool is_marked, const ThresholdOptions& options);

/// The keys of a query that are not marked: how many, and the sums of e^{z - reference} and of z over them.
struct OtherKeys {
  std::int64_t count;
  double sum, logits;
};
/// Local. The weight of each of them, relative to e^reference.
double background_of(const OtherKeys& others, double reference, ThresholdOptions::Background background);

/// Collective. `threshold_attention` where the marked entries themselves are kept, 16 bytes each: for the largest
/// logits of each query, of which it is known at the end only which these are, and for callers who want the matrix.
/// Queries, keys and values are checked. Two scans of all pairs with a threshold, of which the first counts for the
/// memory; one for the largest; then the values pass by once.
ThresholdAttention threshold_with_entries(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix& values,
                                          const ThresholdOptions& options, const AttentionMask* mask);

}  // namespace attnreg
