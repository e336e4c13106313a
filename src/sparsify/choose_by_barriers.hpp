#pragma once

#include <Eigen/Core>
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
/// what weight. For a rank of 256 or more several steps, 32 to 64, choose among the rows that had the largest
/// differences before the first of them, with L and U as they are at the step, so that the argument holds for each;
/// where none of these rows has L >= U, all are looked at again. At last the weights are scaled so that the extreme
/// eigenvalues are 1 -+ certified_epsilon.
///
/// steps > rank: so many steps are made. 0: until epsilon is reached, which is looked at when all rows are, and takes
/// at most ceil(df rank) steps, df <= 4 / epsilon^2. Rows that are chosen again add to their weight.
///
/// The same bits on any number of ranks and threads and any partition: K is summed exactly, and the score of a row is
/// computed in an order that does not depend on other rows.
///
/// Cost: `exact_gram`, one read for the v_i, d_local x rank more doubles; for a step, or several, 2 rank^2 flops a row
/// on all ranks, and on rank 0 an eigen-decomposition, 9 rank^3 flops at most. Messages then: a broadcast of 8 rank^2
/// bytes, a gather of the rows to choose among, three small ones. Memory that is not there: `OutOfMemory` on all ranks.
/// at_once: so many steps for each time that all rows are looked at, in place of the 32 to 64; 0: by the rank.
BarrierChoice choose_by_barriers(const RowMatrix& A, double epsilon, std::int64_t steps, Index at_once = 0);

/// Collective. K = sum_i a_i a_i^T over the rows of A, n x n, whose bits do not depend on the distribution of the rows:
/// the products are summed by `ExactSum`, whose rounding is absolute. Two reads and about 10 n^2 flops a row; one
/// all-reduce of 8 n and one of 12 n (n + 1) bytes. A: d x n. Values that are not finite, or sums that may overflow:
/// `InvalidArgument` on all ranks. scales, powers of two: K of A diag(scales).
Eigen::MatrixXd exact_gram(const RowMatrix& A, const Eigen::VectorXd& scales = {});

/// Collective. A power of two that brings the largest row of A to a norm in [1/2, 1), so that squares neither under-
/// nor overflow; 1 where they do not anyway.
double scale_for_squares(const RowMatrix& A);

/// Local. T with T^T K T = I, n x rank: of K with rows and columns scaled by powers of two, to a diagonal of about 1,
/// so that the units of the rows do not matter, the eigenvectors by the inverse square roots of their eigenvalues.
/// Eigenvalues up to 4 eps (n + sqrt(terms)) of the largest count as null: the rounding of a sum of so many terms. K:
/// symmetric, n x n. Rank 0 if K is 0 or not finite. 9 n^3 flops at most.
Eigen::MatrixXd whitening_of(const Eigen::MatrixXd& K, std::int64_t terms);

}  // namespace attnreg
