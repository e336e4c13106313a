#pragma once

#include <cstdint>
#include <span>

#include "attnreg/row_storage.hpp"
#include "kernels/row_kernels.hpp"

namespace attnreg::kernels {

/// Consecutive rows of a `CsrView`; the entries of row i of the block are at [offsets[i], offsets[i + 1]).
template <class Scalar>
struct CsrBlock {
  const std::int64_t* offsets;
  const std::int32_t* indices;
  const Scalar* values;
  Index first_local;  ///< number of the first row
  Index rows, columns;
};

/// Calls `use` with rows [first, first + count) as a CsrBlock of the type in which the values are held.
template <class Use>
decltype(auto) with_block(const CsrView& rows, Index first, Index count, Use&& use) {
  const std::int64_t* const offsets = rows.offsets.data() + first;
  if (rows.is_single)
    return use(CsrBlock<float>{offsets, rows.indices.data(), rows.singles.data(), first, count, rows.columns});
  return use(CsrBlock<double>{offsets, rows.indices.data(), rows.values.data(), first, count, rows.columns});
}

// Kernels on a block of sparse rows. All of it but x and out is read once, in order. Sums run in a fixed order, in
// double. x, out, N have d rows.

/// z_i = a_i . x
template <class Scalar>
void multiply(const CsrBlock<Scalar>& A, const double* x, double* z);

/// z_i = a_i . x - shift, rounded about once; see `row_kernels.hpp`.
template <class Scalar>
void multiply_compensated(const CsrBlock<Scalar>& A, const double* x, double shift, double* z);

/// Y = A N for `kBlockColumns` packed columns. N: d x 16, Y: rows x 16, both row-major.
template <class Scalar>
void multiply_packed(const CsrBlock<Scalar>& A, const double* N, double* Y);

/// out += sum_i u_i a_i
template <class Scalar>
void add_transpose_multiply(const CsrBlock<Scalar>& A, const double* u, double* out);

/// out += A^T U. U: rows x k, row-major; out: d x k, column-major.
template <class Scalar>
void add_transpose_multiply(const CsrBlock<Scalar>& A, const double* U, Index k, double* out);

/// The fused product of `row_kernels.hpp`, some rows at a time, which the second kernel finds in the first-level cache.
template <class Scalar>
void add_normal_product(const CsrBlock<Scalar>& A, const double* x, const RowCurvature& weights, double* y,
                        double* out);

/// out += sum_i u_i |a_i|
template <class Scalar>
void add_absolute_transpose_multiply(const CsrBlock<Scalar>& A, const double* u, double* out);

/// squares_i = |a_i o factor|^2. factor: d
template <class Scalar>
void squared_norms(const CsrBlock<Scalar>& A, const double* factor, double* squares);

/// out += factor a_i, row i of the block
template <class Scalar>
void add_scaled_row(const CsrBlock<Scalar>& A, Index i, double factor, double* out);

/// Columns [begin, end) of the lower triangle of G = sum_k weights_k a_i a_i^T, i = rows[k], are added to C, row-major
/// with rows `stride` apart: entry (p, q) of G to C[(p - begin) stride + q - begin]. With [0, d) (entries of a row)^2
/// flops each.
template <class Scalar>
void add_gram(const CsrBlock<Scalar>& A, std::span<const Index> rows, std::span<const double> weights, Index begin,
              Index end, Index stride, double* C);

/// out = A, rows x d, row-major, with its zeros.
template <class Scalar>
void expand(const CsrBlock<Scalar>& A, double* out);

}  // namespace attnreg::kernels
