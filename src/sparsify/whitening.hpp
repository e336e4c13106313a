#pragma once

#include <Eigen/Core>
#include <cstdint>

#include "attnreg/row_matrix.hpp"

namespace attnreg {

/// Collective. K = sum_i a_i a_i^T over the rows of A, n x n, whose bits do not depend on the distribution of the rows:
/// the products are summed by `ExactSum`. Two reads and about 10 n^2 flops a row; one all-reduce of 8 and one of 12 n
/// (n + 1) bytes. A: d x n. Values that are not finite, or sums that may overflow: `InvalidArgument` on all ranks.
Eigen::MatrixXd exact_gram(const RowMatrix& A);

/// Local. T with T^T K T = I, n x rank: the eigenvectors of K by the inverse square roots of their eigenvalues.
/// Eigenvalues up to 4 eps (n + sqrt(terms)) of the largest count as null: the rounding of a sum of so many terms. K:
/// symmetric, n x n. Rank 0 if K is 0 or not finite. 9 n^3 flops at most.
Eigen::MatrixXd whitening_of(const Eigen::MatrixXd& K, std::int64_t terms);

}  // namespace attnreg
