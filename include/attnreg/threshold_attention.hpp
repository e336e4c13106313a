#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <string_view>
#include <vector>

#include "attnreg/row_matrix.hpp"

namespace attnreg {

/// Attention that is exact where it is large: with the logits z_ij = scale q_i . k_j and the marked keys
/// S_i = {j: z_ij >= tau}
///
///     A_ij = e^{z_ij} for j in S_i,   c_i for the others;   output_i = sum_j A_ij v_j / sum_j A_ij,
///
/// a sparse matrix plus one of rank one (after arXiv 2307.08045).
struct ThresholdOptions {
  enum class Background {
    row_mean,     ///< c_i = mean of e^{z_ij} over the others: keeps the row's normaliser; the best where logits spread
    exp_of_mean,  ///< c_i = e^{mean of z_ij}
    zero,         ///< c_i = 0: the sparse part alone
  };
  double tau = 0;
  Background background = Background::row_mean;
  double scale = 1;  ///< > 0
};

struct ThresholdAttention {
  RowMajorMatrix output;             ///< local queries x d_v
  std::vector<std::int64_t> marked;  ///< |S_i|, one per local query
};

/// Collective. One exact scan of all pairs, in the blocks, with the messages and the cost of `apply_attention` and one
/// more product with the values; A is never formed. Which keys are marked can depend on rounding where z_ij = tau to
/// the last digits.
///
/// Shapes and errors as for `apply_attention`; also tau that is NaN, and for `Background::zero` a query without a
/// marked key.
ThresholdAttention threshold_attention(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix& values,
                                       const ThresholdOptions& options);

/// Local. Queries to an oracle for S_i that Grover searches for all `marked` of `items` keys take, the number of marked
/// ones not being known: a simulation, not a quantum computation. Each search (Boyer, Brassard, Hoyer, Tapp 1998) draws
/// j uniformly from the integers below M, runs j iterations of j queries and one query to check, succeeds with
/// probability sin^2((2 j + 1) theta), sin^2 theta = t / N, and else makes M 6/5 times larger, at most sqrt(N); a key
/// that was found is taken out. About 2.3 to 2.9 sqrt(N marked) together, for few marked. That none is left is not
/// searched for. Random numbers depend on (seed, query).
///
/// items >= 1, 0 <= marked <= items; else `InvalidArgument` (this rank).
std::int64_t simulated_grover_queries(std::int64_t items, std::int64_t marked, std::uint64_t seed, std::int64_t query);

}  // namespace attnreg
