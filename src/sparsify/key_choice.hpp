#pragma once

#include <cstdint>
#include <vector>

#include "sparsify/token_attention.hpp"

namespace attnreg {

/// How the keys of a head are chosen (docs/sparsification.md). The first is deterministic, and so are the last two; the
/// others draw each key independently, with a probability in proportion to its score, and give it the weight 1 / p.
enum class KeyMethod {
  halving,   ///< taken out one by one, half of them before chunks are put together anew; then the weights are fitted
  output,    ///< score (sum_i P_ij^2 |v_j - O_i|^2)^{1/2}: the error that a missing key makes
  mixed,     ///< the mean of the shares of leverage, norm, values, and uniform
  leverage,  ///< k_j^T (K^T K)^+ k_j
  norm,      ///< |k_j|^2
  values,    ///< |v_j|^2
  uniform,   ///< 1
  recent,    ///< the last keys, with weight 1
  topk,      ///< the keys with the largest sum_i P_ij, with weight 1
};

struct KeyOptions {
  KeyMethod method = KeyMethod::halving;
  Index keep = 1;             ///< keys, of methods that draw on average; at least 1
  Index first = 0, last = 0;  ///< so many first and last keys are kept whatever is chosen, with weights >= 1
  std::uint64_t seed = 1;
  std::uint32_t head = 0;  ///< another one has other random numbers
};

/// Keys in ascending order, with weights > 0. Replicated.
struct KeptKeys {
  std::vector<Index> keys;
  VectorXd weights;
  bool is_fitted = false;  ///< halving: the weights were fitted to all outputs at once
};

/// Collective. At most `keep` keys (those kept whatever is chosen included), or of methods that draw so many on
/// average, so that sum_j w_j e^{z_ij} v_j / sum_j w_j e^{z_ij} is near O_i. The same keys on any number of ranks, as
/// sums over queries are the same there (`TokenAttention`). `keys`: those that were loaded, for their leverage scores;
/// sums: `TokenAttention::key_sums`.
///
/// Halving: with the features of `TokenAttention::feature_grams`, a visit of all keys, then of the half that is left,
/// and so on, 256 x 4 flops for a query and key in all but the last; on rank 0 m^2 for each key that is taken out of a
/// chunk of m <= 256. Up to `kMostFitted` keys the weights are fitted at last. Others: O(n_k).
///
/// `InvalidArgument` on all ranks: keep < 1, first + last > keep.
KeptKeys choose_keys(const TokenAttention& attention, const RowMatrix& keys, const KeySums& sums,
                     const KeyOptions& options);

/// Local. The same for the methods uniform, recent and topk, on every rank.
KeptKeys baseline_keys(const KeySums& sums, const KeyOptions& options);

/// Above this number of keys their weights are not fitted: 40 bytes for each pair.
inline constexpr Index kMostFitted = 2048;

}  // namespace attnreg
