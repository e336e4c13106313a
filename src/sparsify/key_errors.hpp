#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "sparsify/key_choice.hpp"

namespace attnreg {

/// How far outputs O~ are from O. Replicated.
struct KeyError {
  std::string name;        ///< what made them, "uniform"
  double keys = 0;         ///< that a query looks at, on average over the heads
  double output = 0;       ///< |O~ - O|_F / |O|_F
  double worst = 0;        ///< the largest |O~_i - O_i|, by the root of the mean of |O_i|^2
  std::int64_t blind = 0;  ///< queries that see no key that was kept: their O~ is 0
};

/// Collective. The errors of a choice, then of what it is measured by:
/// - "mean": O~_i is the mean of the values that query i sees, as if all keys were 0 (Y = 0);
/// - as many keys drawn uniformly, with weights; the most recent ones; those of the largest attention mass;
/// - "hyperattention", the idea of arXiv 2310.05869: queries and keys sorted by a locality-sensitive hash (signs of 7
///   random projections, in the order of a Gray code), a block of keys for each block of queries exact, keep / 2 keys;
///   the rest of the numerator from keep / 4 keys drawn with p_j ~ |v_j|^2, that of the normaliser from keep / 4
///   uniform draws;
/// - "kdeformer", that of arXiv 2302.02451 in its best case: keep keys drawn with p_j ~ |P e_j|^2 / sum + |v_j|^2 / sum
///   for the numerator, exact norms and an exact normaliser.
/// Each looks at options.keep keys for a query. `on` has the queries on which is measured, `sums` is of those for which
/// was chosen. 2 keys (d + d_v) flops a query each.
std::vector<KeyError> key_errors(const TokenAttention& on, const KeySums& sums, const KeptKeys& kept,
                                 const KeyOptions& options);

/// A bound on |O~(q) - O(q)| for any query q that sees all keys, known from the keys, the values and the weights alone.
/// With e^{<q, k>} = e^{<q0, k>} <phi(c u), phi(k / c)>, u = q - q0, for the features phi of the kernel e^{<x, y>},
///
///     |sum_j (w_j - 1) e^{z_j} v_j| <= e^{c^2 |u|^2 / 2} E_V,   E_V^2 = sum_jl a_j a_l e^{<k_j, k_l> / c^2} <v_j,
///     v_l>,
///
/// a_j = (w_j - 1) e^{<q0, k_j>} (scales left out), likewise E_1 without <v_j, v_l>, and so
///
///     |O~ - O| <= e^{c^2 |u|^2 / 2} (E_V + |O~| E_1) / (sum_j w_j e^{z_j} - e^{c^2 |u|^2 / 2} E_1).
///
/// q0 is the mean of the queries. Here as numbers for the given queries, by the root of the mean of |O_i|^2; infinite
/// where the denominator is not positive. Replicated.
struct QueryBound {
  double median = std::numeric_limits<double>::quiet_NaN();  ///< NaN: not computed
  double largest = std::numeric_limits<double>::quiet_NaN();
};

/// Collective. n_k^2 (d + d_v) flops, shared by the ranks. Not computed above `kMostBounded` keys.
QueryBound query_bound(const TokenAttention& attention, const KeptKeys& kept);
inline constexpr Index kMostBounded = 32768;

// For both:
/// Keys with factors: O~_i = sum_j numerator_j e^{z_ij} v_j / sum_j denominator_j e^{z_ij}.
struct FactoredKeys {
  std::vector<Index> keys;
  VectorXd numerator;
  VectorXd denominator;  ///< empty: the exact normaliser is used
};

/// Outputs of this rank's queries, the mean of the values included.
struct EstimatedOutputs {
  RowMajorMatrix output;
  VectorXd log_normaliser;  ///< ln sum_j denominator_j e^{z_ij}; -infinity: the query is blind
};

/// Local. Those of some queries, all at once on all threads. with_mask: hidden keys have no part in it.
void estimate_outputs(const TokenAttention& attention, const FactoredKeys& of, std::span<const Index> queries,
                      bool with_mask, EstimatedOutputs& outputs);

}  // namespace attnreg
