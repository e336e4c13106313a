#pragma once

#include <Eigen/Core>

#include "kernels/row_kernels.hpp"

namespace attnreg::kernels {

// Products with many more flops than numbers, on one thread; safe from several threads at once, on different results.
// The threads of a pass use them instead of BLAS: OpenBLAS built for one thread, as Debian's -serial is, hands the same
// work space to two threads once in some ten thousand calls, and the results are wrong. Each thread keeps a packed copy
// of up to 512 rows of its widest call. All matrices are row-major without gaps.

/// C += P^T P in the lower triangle; what the strict upper triangle holds afterwards is undefined. P: rows x d,
/// C: d x d. Local; rows d^2 flops. Best with 256 rows or more a call, which need not fit into a cache.
void add_gram(const double* P, Index rows, Index d, double* C);
/// Local. So many rows are added at a time: calls for multiples of them, one after the other, give the bits of one
/// call.
Index gram_depth();

/// positive += sum over w_i > 0 of w_i (a_i - c)(a_i - c)^T, negative += sum over w_i < 0 of |w_i| (a_i - c)(a_i -
/// c)^T, in the lower triangles; the strict upper ones are undefined afterwards. A: rows x d, weights: rows, centre: d,
/// positive and negative: d x d. Local; one read of A's rows with w_i != 0, no copy of them but the packed one.
/// The size of a call as above.
void add_signed_gram(const double* A, Index rows, Index d, const double* weights, const double* centre,
                     double* positive, double* negative);

/// out += S P; with `lower` only what reaches the lower triangle is computed, the rest is undefined afterwards.
/// S: m x k, P: k x d, out: m x d. Local; 2 m k d flops, half of them with `lower`. Best with k >= 64.
void add_matrix_product(const double* S, Index m, Index k, const double* P, Index d, bool lower, double* out);

}  // namespace attnreg::kernels
