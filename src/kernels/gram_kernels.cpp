#include "kernels/gram_kernels.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <new>

#include "hwy/aligned_allocator.h"
#include "hwy/cache_control.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gram_kernels.cpp"
#include "hwy/foreach_target.h"  // compiles this file once for each kind of vectors
#include "hwy/highway.h"

#ifndef ATTNREG_GRAM_KERNELS_ONCE
#define ATTNREG_GRAM_KERNELS_ONCE
namespace attnreg::kernels {

/// Memory of a thread, for two packed matrices.
inline double* workspace(int which, Index size) {
  struct Buffer {
    hwy::AlignedFreeUniquePtr<double[]> data;
    Index size = 0;
  };
  thread_local std::array<Buffer, 2> buffers;
  Buffer& buffer = buffers[static_cast<std::size_t>(which)];
  if (buffer.size < size) {
    buffer.data = hwy::AllocateAligned<double>(static_cast<std::size_t>(size));
    if (!buffer.data) throw std::bad_alloc();
    buffer.size = size;
  }
  return buffer.data.get();
}

}  // namespace attnreg::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace attnreg::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// A block of the result, kRows x kWidth, stays in registers: 8 x 24 with AVX-512, 4 x 12 with AVX2, 4 x 4 with SSE.
#if HWY_HAVE_SCALABLE
constexpr Index kLanes = 2;
#else
constexpr Index kLanes = std::min<Index>(HWY_MAX_BYTES / sizeof(double), 8);
#endif
constexpr Index kVectors = kLanes == 2 ? 2 : 3;
constexpr Index kWidth = kVectors * kLanes;
constexpr Index kRows = kLanes == 2 ? 4 : kWidth / 3;
using D = hn::FixedTag<double, static_cast<std::size_t>(kLanes)>;
using Vector = hn::Vec<D>;

// A matrix is packed in panels of kWidth columns, kDepth x kWidth each; two of them fit into an L1 of 32 KB (with
// AVX-512 of 48 KB), those that are used together into a third of 512 KB of L2.
constexpr Index kDepth = (kLanes == 8 ? 24 : 12) * 1024 / (8 * kWidth);
constexpr Index kPanelsInL2 = 12;

constexpr Index panels_of(Index columns) { return (columns + kWidth - 1) / kWidth; }

/// Columns of `from`, depth x columns, to panels; zeros fill the last one.
void pack(const double* from, Index depth, Index columns, double* to) {
  for (Index first = 0; first < columns; first += kWidth) {
    const Index width = std::min(kWidth, columns - first);
    for (Index k = 0; k < depth; ++k, to += kWidth) {
      const double* row = from + k * columns + first;
      if (width == kWidth) {
        const D d;
        for (Index v = 0; v < kWidth; v += kLanes) hn::Store(hn::LoadU(d, row + v), d, to + v);
      } else {
        std::fill_n(std::copy_n(row, width, to), kWidth - width, 0.0);
      }
    }
  }
}

/// A row of a weighted Gram matrix: scale (a - centre).
struct ScaledRow {
  const double* a;
  double scale;
};

/// The same for scaled rows.
void pack_scaled(const ScaledRow* rows, Index depth, Index columns, const double* centre, double* to) {
  const D d;
  for (Index first = 0; first < columns; first += kWidth) {
    const Index width = std::min(kWidth, columns - first);
    for (Index k = 0; k < depth; ++k, to += kWidth) {
      const double* a = rows[k].a + first;
      if (width == kWidth) {
        const Vector scale = hn::Set(d, rows[k].scale);
        for (Index v = 0; v < kWidth; v += kLanes)
          hn::Store(hn::Mul(scale, hn::Sub(hn::LoadU(d, a + v), hn::LoadU(d, centre + first + v))), d, to + v);
      } else {
        for (Index j = 0; j < width; ++j) to[j] = rows[k].scale * (a[j] - centre[first + j]);
        std::fill_n(to + width, kWidth - width, 0.0);
      }
    }
  }
}

/// The same as `pack` for the transpose of `from`, columns x depth with rows `stride` apart.
void pack_transpose(const double* from, Index stride, Index depth, Index columns, double* to) {
  for (Index first = 0; first < columns; first += kWidth, to += depth * kWidth) {
    const Index width = std::min(kWidth, columns - first);
    if (width < kWidth) std::fill_n(to, depth * kWidth, 0.0);
    for (Index i = 0; i < width; ++i)
      for (Index k = 0; k < depth; ++k) to[k * kWidth + i] = from[(first + i) * stride + k];
  }
}

/// One row of a block in registers.
struct BlockRow {
  Vector c0, c1, c2;

  HWY_INLINE BlockRow() : c0(hn::Zero(D())), c1(c0), c2(c0) {}

  template <int kUsed>
  HWY_INLINE void add(const double* a, Vector b0, Vector b1, Vector b2) {
    const Vector factor = hn::Set(D(), *a);
    c0 = hn::MulAdd(factor, b0, c0);
    if constexpr (kUsed > 1) c1 = hn::MulAdd(factor, b1, c1);
    if constexpr (kUsed > 2) c2 = hn::MulAdd(factor, b2, c2);
  }

  template <int kUsed>
  HWY_INLINE void add_to(double* out) const {
    const D d;
    hn::StoreU(hn::Add(hn::LoadU(d, out), c0), d, out);
    if constexpr (kUsed > 1) hn::StoreU(hn::Add(hn::LoadU(d, out + kLanes), c1), d, out + kLanes);
    if constexpr (kUsed > 2) hn::StoreU(hn::Add(hn::LoadU(d, out + 2 * kLanes), c2), d, out + 2 * kLanes);
  }
};

/// C += A^T B for kRows columns of a panel A and the first kUsed vectors of a panel B; C with rows `stride` apart.
template <int kUsed>
HWY_INLINE void add_block(const double* A, const double* B, Index depth, double* C, Index stride) {
  const D d;
  BlockRow r0, r1, r2, r3, r4, r5, r6, r7;
  for (Index i = 0; i < kRows; ++i) hwy::Prefetch(C + i * stride), hwy::Prefetch(C + i * stride + kWidth - 1);
  for (Index k = 0; k < depth; ++k, A += kWidth, B += kWidth) {
    const Vector b0 = hn::Load(d, B);
    const Vector b1 = kUsed > 1 ? hn::Load(d, B + kLanes) : b0;
    const Vector b2 = kUsed > 2 ? hn::Load(d, B + 2 * kLanes) : b0;
    r0.add<kUsed>(A, b0, b1, b2);
    if constexpr (kRows > 1) r1.add<kUsed>(A + 1, b0, b1, b2);
    if constexpr (kRows > 2) r2.add<kUsed>(A + 2, b0, b1, b2), r3.add<kUsed>(A + 3, b0, b1, b2);
    if constexpr (kRows > 4) {
      r4.add<kUsed>(A + 4, b0, b1, b2), r5.add<kUsed>(A + 5, b0, b1, b2);
      r6.add<kUsed>(A + 6, b0, b1, b2), r7.add<kUsed>(A + 7, b0, b1, b2);
    }
  }
  r0.add_to<kUsed>(C);
  if constexpr (kRows > 1) r1.add_to<kUsed>(C + stride);
  if constexpr (kRows > 2) r2.add_to<kUsed>(C + 2 * stride), r3.add_to<kUsed>(C + 3 * stride);
  if constexpr (kRows > 4) {
    r4.add_to<kUsed>(C + 4 * stride), r5.add_to<kUsed>(C + 5 * stride);
    r6.add_to<kUsed>(C + 6 * stride), r7.add_to<kUsed>(C + 7 * stride);
  }
}

/// The same for the first `columns` columns of B.
HWY_INLINE void add_columns(const double* A, const double* B, Index depth, Index columns, double* C, Index stride) {
  if (columns > 2 * kLanes) return add_block<kVectors>(A, B, depth, C, stride);
  if (columns > kLanes) return add_block<2>(A, B, depth, C, stride);
  add_block<1>(A, B, depth, C, stride);
}

/// C += A^T B for packed A, depth x m, and B, depth x n; C: m x n. `lower`: only what reaches the lower triangle.
void add_panels(const double* A, Index m, const double* B, Index n, Index depth, bool lower, double* C) {
  const Index panel = depth * kWidth;
  for (Index from = 0; from < panels_of(m); from += kPanelsInL2) {
    const Index to = std::min(from + kPanelsInL2, panels_of(m));
    for (Index J = 0; J < (lower ? std::min(to, panels_of(n)) : panels_of(n)); ++J)
      for (Index row = (lower ? std::max(from, J) : from) * kWidth; row < std::min(to * kWidth, m); row += kRows) {
        const double* a = A + row / kWidth * panel + row % kWidth;
        const double* b = B + J * panel;
        const Index column = J * kWidth, rows = std::min(kRows, m - row);
        const Index columns = lower ? std::min(kWidth, row + kRows - column) : kWidth;
        const Index stored = (columns + kLanes - 1) / kLanes * kLanes;
        if (rows == kRows && column + stored <= n) {
          add_columns(a, b, depth, columns, C + row * n + column, n);
          continue;
        }
        HWY_ALIGN double block[kRows * kWidth] = {};
        add_columns(a, b, depth, columns, block, kWidth);
        for (Index i = 0; i < rows; ++i)
          for (Index j = 0; j < std::min(columns, n - column); ++j)
            C[(row + i) * n + column + j] += block[i * kWidth + j];
      }
  }
}

Index depth_of() { return kDepth; }

void add_gram_of(const double* P, Index rows, Index d, double* C) {
  double* packed = workspace(0, kDepth * panels_of(d) * kWidth);
  for (Index first = 0; first < rows; first += kDepth) {
    const Index depth = std::min(kDepth, rows - first);
    pack(P + first * d, depth, d, packed);
    add_panels(packed, d, packed, d, depth, true, C);
  }
}

void add_weighted(const double* A, Index rows, Index d, const double* weights, double sign, const double* centre,
                  double* C) {
  double* packed = workspace(0, kDepth * panels_of(d) * kWidth);
  std::array<ScaledRow, static_cast<std::size_t>(kDepth)> chosen;
  std::size_t depth = 0;
  for (Index i = 0; i < rows; ++i) {
    if (sign * weights[i] > 0) chosen[depth++] = {A + i * d, std::sqrt(sign * weights[i])};
    if (depth == 0 || (depth < chosen.size() && i + 1 < rows)) continue;
    pack_scaled(chosen.data(), static_cast<Index>(depth), d, centre, packed);
    add_panels(packed, d, packed, d, static_cast<Index>(depth), true, C);
    depth = 0;
  }
}

void add_signed_of(const double* A, Index rows, Index d, const double* weights, const double* centre, double* positive,
                   double* negative) {
  add_weighted(A, rows, d, weights, 1, centre, positive);
  add_weighted(A, rows, d, weights, -1, centre, negative);
}

void add_product_of(const double* S, Index m, Index k, const double* P, Index d, bool lower, double* out) {
  double* packed_S = workspace(0, kDepth * panels_of(m) * kWidth);
  double* packed_P = workspace(1, kDepth * panels_of(d) * kWidth);
  for (Index first = 0; first < k; first += kDepth) {
    const Index depth = std::min(kDepth, k - first);
    pack_transpose(S + first, k, depth, m, packed_S);
    pack(P + first * d, depth, d, packed_P);
    add_panels(packed_S, m, packed_P, d, depth, lower, out);
  }
}

}  // namespace attnreg::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attnreg::kernels {

HWY_EXPORT(add_gram_of);
HWY_EXPORT(add_signed_of);
HWY_EXPORT(add_product_of);
HWY_EXPORT(depth_of);

Index gram_depth() { return HWY_DYNAMIC_DISPATCH(depth_of)(); }

void add_gram(const double* P, Index rows, Index d, double* C) { HWY_DYNAMIC_DISPATCH(add_gram_of)(P, rows, d, C); }

void add_signed_gram(const double* A, Index rows, Index d, const double* weights, const double* centre,
                     double* positive, double* negative) {
  HWY_DYNAMIC_DISPATCH(add_signed_of)(A, rows, d, weights, centre, positive, negative);
}

void add_matrix_product(const double* S, Index m, Index k, const double* P, Index d, bool lower, double* out) {
  HWY_DYNAMIC_DISPATCH(add_product_of)(S, m, k, P, d, lower, out);
}

}  // namespace attnreg::kernels
#endif
