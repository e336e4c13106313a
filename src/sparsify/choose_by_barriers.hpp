#pragma once

#include <cstdint>
#include <vector>

#include "attnreg/row_matrix.hpp"
#include "attnreg/sparsifier.hpp"

namespace attnreg {

struct BarrierChoice {
  std::vector<Index> rows{};     ///< local numbers of the chosen rows, ascending
  Eigen::VectorXd weights{};     ///< one per chosen row
  std::int64_t steps = 0;        ///< replicated, as all that follows
  double certified_epsilon = 1;  ///< of (1 - e) K <= sum weight_i a_i a_i^T <= (1 + e) K, from the eigenvalues
  SparsifyEnd end = SparsifyEnd::all_steps;
};

/// Collective. The deterministic two-barrier sparsifier of K = A^T A: rows of A and weights, so that the weighted sum
/// is between (1 - epsilon) K and (1 + epsilon) K. The rows are whitened, v_i = T^T a_i with T from `whitening_of`;
/// each step then adds the v_i with the largest L(v_i) - U(v_i), ties going to the lowest row, and `Barriers` says with
/// what weight. At last the weights are scaled so that the extreme eigenvalues are 1 -+ certified_epsilon.
///
/// steps > rank: so many steps are made. 0: until epsilon is reached, which takes at most ceil(df rank) steps, df <= 4
/// / epsilon^2. Rows that are chosen again add to their weight.
///
/// The same bits on any number of ranks and threads and any partition: K is summed exactly, and the score of a row is
/// computed in an order that does not depend on other rows.
///
/// Cost: `exact_gram`, one read for the v_i, d_local x rank more doubles; a step takes 2 rank^2 flops a row on all
/// ranks, and on rank 0 an eigen-decomposition, 9 rank^3 flops at most. Messages of a step: a broadcast of 8 rank^2 and
/// one of 8 rank bytes, two all-reduces of 8 bytes. Memory that is not there: `OutOfMemory` on all ranks.
BarrierChoice choose_by_barriers(const RowMatrix& A, double epsilon, std::int64_t steps);

}  // namespace attnreg
