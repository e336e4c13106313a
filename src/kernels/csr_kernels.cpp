#include "kernels/csr_kernels.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/prefetch.hpp"
#include "kernels/sketch_kernels.hpp"
#include "numbers/vector_clones.hpp"

#define ATTNREG_INLINE inline __attribute__((always_inline))

namespace attnreg::kernels {
namespace {

constexpr Index kPacked = kBlockColumns;
constexpr std::int64_t kCachedEntries = 2048;  // stay in the first-level cache between two kernels: 24 KiB
constexpr Index kFusedRows = 256;              // at most

// Scalar loads: on the CPUs at hand gathers are not faster, and most rows are short.
template <class Scalar>
ATTNREG_INLINE double dot(const std::int32_t* j, const Scalar* a, std::int64_t entries, const double* x) {
  double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  std::int64_t k = 0;
  for (; k + 4 <= entries; k += 4) {
    s0 += static_cast<double>(a[k]) * x[j[k]];
    s1 += static_cast<double>(a[k + 1]) * x[j[k + 1]];
    s2 += static_cast<double>(a[k + 2]) * x[j[k + 2]];
    s3 += static_cast<double>(a[k + 3]) * x[j[k + 3]];
  }
  for (; k < entries; ++k) s0 += static_cast<double>(a[k]) * x[j[k]];
  return (s0 + s1) + (s2 + s3);
}

template <class Scalar>
ATTNREG_INLINE void scatter(const std::int32_t* j, const Scalar* a, std::int64_t entries, double u, double* out) {
  for (std::int64_t k = 0; k < entries; ++k) out[j[k]] += u * static_cast<double>(a[k]);
}

/// Asks for what will be needed some rows later. While entries that are in cache are scattered nothing streams in by
/// itself, and a fused product would wait for memory at the start of its next block. Addresses beyond the end do no
/// harm.
template <class Scalar>
ATTNREG_INLINE void prefetch(const std::int32_t* j, const Scalar* a) {
  constexpr std::uintptr_t entries_ahead = 1024, line = 64;
  const std::uintptr_t columns = reinterpret_cast<std::uintptr_t>(j) + entries_ahead * sizeof(std::int32_t);
  const std::uintptr_t values = reinterpret_cast<std::uintptr_t>(a) + entries_ahead * sizeof(Scalar);
  prefetch_line(columns);
  prefetch_line(values);
  prefetch_line(values + line);
}

/// Calls `body(i, columns, values, entries)` for the rows of the block.
template <class Scalar, class Body>
ATTNREG_INLINE void each_row(const CsrBlock<Scalar>& A, Body&& body) {
  std::int64_t begin = A.rows > 0 ? A.offsets[0] : 0;
  for (Index i = 0; i < A.rows; ++i) {
    const std::int64_t end = A.offsets[i + 1];
    body(i, A.indices + begin, A.values + begin, end - begin);
    begin = end;
  }
}

/// Two columns of U at a time share the loads of the entries.
template <class Scalar>
ATTNREG_CLONES void add_pair(const CsrBlock<Scalar>& A, const double* U, Index k, Index d, double* out) {
  each_row(
      A, [&](Index i, const std::int32_t* j, const Scalar* a, std::int64_t entries) __attribute__((always_inline)) {
        prefetch(j, a);
        const double u0 = U[i * k], u1 = U[i * k + 1];
        for (std::int64_t e = 0; e < entries; ++e) {
          const double value = static_cast<double>(a[e]);
          out[j[e]] += u0 * value;
          out[d + j[e]] += u1 * value;
        }
      });
}

}  // namespace

template <class Scalar>
ATTNREG_CLONES void multiply(const CsrBlock<Scalar>& A, const double* x, double* z) {
  each_row(
      A, [&](Index i, const std::int32_t* j, const Scalar* a, std::int64_t entries)
             __attribute__((always_inline)) { z[i] = dot(j, a, entries, x); });
}

template <class Scalar>
ATTNREG_CLONES void multiply_compensated(const CsrBlock<Scalar>& A, const double* x, double shift, double* z) {
  each_row(
      A, [&](Index i, const std::int32_t* j, const Scalar* a, std::int64_t entries) __attribute__((always_inline)) {
        double high = -shift, low = 0;
        for (std::int64_t k = 0; k < entries; ++k) {
          const double ak = static_cast<double>(a[k]), xk = x[j[k]], product = ak * xk;
          const double sum = high + product, rounded = sum - high;
          low += std::fma(ak, xk, -product) + ((high - (sum - rounded)) + (product - rounded));
          high = sum;
        }
        z[i] = high + low;
      });
}

template <class Scalar>
ATTNREG_CLONES void multiply_packed(const CsrBlock<Scalar>& A, const double* N, double* Y) {
  each_row(
      A, [&](Index i, const std::int32_t* j, const Scalar* a, std::int64_t entries) __attribute__((always_inline)) {
        double even[kPacked] = {}, odd[kPacked] = {};  // two chains of sums hide the latency of each other
        std::int64_t k = 0;
        for (; k + 2 <= entries; k += 2) {
          const double a0 = static_cast<double>(a[k]), a1 = static_cast<double>(a[k + 1]);
          const double *n0 = N + j[k] * kPacked, *n1 = N + j[k + 1] * kPacked;
#pragma omp simd
          for (Index c = 0; c < kPacked; ++c) {
            even[c] += a0 * n0[c];
            odd[c] += a1 * n1[c];
          }
        }
        if (k < entries) {
          const double a0 = static_cast<double>(a[k]);
          const double* n0 = N + j[k] * kPacked;
#pragma omp simd
          for (Index c = 0; c < kPacked; ++c) even[c] += a0 * n0[c];
        }
#pragma omp simd
        for (Index c = 0; c < kPacked; ++c) Y[i * kPacked + c] = even[c] + odd[c];
      });
}

template <class Scalar>
ATTNREG_CLONES void add_transpose_multiply(const CsrBlock<Scalar>& A, const double* u, double* out) {
  each_row(
      A, [&](Index i, const std::int32_t* j, const Scalar* a, std::int64_t entries) __attribute__((always_inline)) {
        prefetch(j, a);
        scatter(j, a, entries, u[i], out);
      });
}

template <class Scalar>
void add_transpose_multiply(const CsrBlock<Scalar>& A, const double* U, Index k, double* out) {
  const Index d = A.columns;
  Index c = 0;
  for (; c + 2 <= k; c += 2) add_pair(A, U + c, k, d, out + c * d);
  if (c == k) return;
  each_row(A, [&](Index i, const std::int32_t* j, const Scalar* a, std::int64_t entries) {
    scatter(j, a, entries, U[i * k + c], out + c * d);
  });
}

template <class Scalar>
void add_normal_product(const CsrBlock<Scalar>& A, const double* x, const RowCurvature& weights, double* y,
                        double* out) {
  const std::int64_t entries = A.offsets[A.rows] - A.offsets[0];
  const Index step = std::clamp<Index>(kCachedEntries * A.rows / (entries + 1), 1, kFusedRows);
  double u[kFusedRows];
  CsrBlock<Scalar> part = A;
  for (Index first = 0; first < A.rows; first += step) {
    part.offsets = A.offsets + first;
    part.first_local = A.first_local + first;
    part.rows = std::min(step, A.rows - first);
    multiply(part, x, y + part.first_local);
    for (Index i = 0; i < part.rows; ++i)
      u[i] = weights.weight(part.first_local + i, y[part.first_local + i], out[A.columns]);
    add_transpose_multiply(part, u, out);
  }
}

template <class Scalar>
void add_absolute_transpose_multiply(const CsrBlock<Scalar>& A, const double* u, double* out) {
  each_row(A, [&](Index i, const std::int32_t* j, const Scalar* a, std::int64_t entries) {
    for (std::int64_t k = 0; k < entries; ++k) out[j[k]] += u[i] * std::abs(static_cast<double>(a[k]));
  });
}

template <class Scalar>
void squared_norms(const CsrBlock<Scalar>& A, const double* factor, double* squares) {
  each_row(A, [&](Index i, const std::int32_t* columns, const Scalar* a, std::int64_t entries) {
    squares[i] = 0;
    for (std::int64_t k = 0; k < entries; ++k) {
      const double value = static_cast<double>(a[k]) * factor[columns[k]];
      squares[i] += value * value;
    }
  });
}

template <class Scalar>
void add_scaled_row(const CsrBlock<Scalar>& A, Index i, double factor, double* out) {
  const std::int64_t begin = A.offsets[i];
  scatter(A.indices + begin, A.values + begin, A.offsets[i + 1] - begin, factor, out);
}

template <class Scalar>
void add_gram(const CsrBlock<Scalar>& A, std::span<const Index> rows, std::span<const double> weights, Index begin,
              Index end, Index stride, double* C) {
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const std::int32_t* const first = A.indices + A.offsets[rows[r]];
    const std::int32_t* const last = A.indices + A.offsets[rows[r] + 1];
    const std::int32_t* const from = begin == 0 ? first : std::lower_bound(first, last, begin);
    const std::int32_t* const to = first == last || last[-1] < end ? last : std::lower_bound(from, last, end);
    const Scalar* const a = A.values + (from - A.indices);
    for (const std::int32_t* p = from; p < last; ++p) {
      const double factor = weights[r] * static_cast<double>(a[p - from]);
      double* const out = C + (*p - begin) * stride;
      const std::int64_t entries = std::min(p + 1, to) - from;
      for (std::int64_t k = 0; k < entries; ++k) out[from[k] - begin] += factor * static_cast<double>(a[k]);
    }
  }
}

template <class Scalar>
void expand(const CsrBlock<Scalar>& A, double* out) {
  std::fill_n(out, A.rows * A.columns, 0.0);
  each_row(A, [&](Index i, const std::int32_t* j, const Scalar* a, std::int64_t entries) {
    for (std::int64_t k = 0; k < entries; ++k) out[i * A.columns + j[k]] = static_cast<double>(a[k]);
  });
}

#define ATTNREG_INSTANTIATE(Scalar)                                                                                \
  template void multiply(const CsrBlock<Scalar>&, const double*, double*);                                         \
  template void multiply_compensated(const CsrBlock<Scalar>&, const double*, double, double*);                     \
  template void multiply_packed(const CsrBlock<Scalar>&, const double*, double*);                                  \
  template void add_transpose_multiply(const CsrBlock<Scalar>&, const double*, double*);                           \
  template void add_transpose_multiply(const CsrBlock<Scalar>&, const double*, Index, double*);                    \
  template void add_normal_product(const CsrBlock<Scalar>&, const double*, const RowCurvature&, double*, double*); \
  template void add_absolute_transpose_multiply(const CsrBlock<Scalar>&, const double*, double*);                  \
  template void squared_norms(const CsrBlock<Scalar>&, const double*, double*);                                    \
  template void add_scaled_row(const CsrBlock<Scalar>&, Index, double, double*);                                   \
  template void add_gram(const CsrBlock<Scalar>&, std::span<const Index>, std::span<const double>, Index, Index,   \
                         Index, double*);                                                                          \
  template void expand(const CsrBlock<Scalar>&, double*);

ATTNREG_INSTANTIATE(double)
ATTNREG_INSTANTIATE(float)

}  // namespace attnreg::kernels
