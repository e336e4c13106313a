#include "kernels/sketch_kernels.hpp"

#include <algorithm>
#include <cstddef>

#include "hwy/cache_control.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/sketch_kernels.cpp"
#include "hwy/foreach_target.h"  // compiles this file once for each kind of vectors
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace attnreg::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Eight columns are one vector with AVX-512, two with AVX2, four with SSE.
#if HWY_HAVE_SCALABLE
constexpr Index kLanes = 2;
#else
constexpr Index kLanes = std::min<Index>(HWY_MAX_BYTES / sizeof(double), 8);
#endif
using D = hn::FixedTag<double, static_cast<std::size_t>(kLanes)>;
using Vector = hn::Vec<D>;

HWY_INLINE Vector load(const double* from) { return hn::LoadU(D(), from); }

/// to_j += value a_j, and brings `next` into the cache, which is where the next call writes.
HWY_INLINE void add_row(double value, const double* a, Index d, double* to, const double* next) {
  constexpr Index kLine = 8;
  const D tag;
  const Vector factor = hn::Set(tag, value);
  Index j = 0;
  for (; j + kLine <= d; j += kLine) {
    hwy::Prefetch(next + j);
    for (Index v = j; v < j + kLine; v += kLanes)
      hn::StoreU(hn::MulAdd(factor, load(a + v), hn::LoadU(tag, to + v)), tag, to + v);
  }
  for (; j < d; ++j) to[j] += value * a[j];
}

void scatter_of(const double* A, Index d, std::span<const Scatter> entries, double* out) {
  for (std::size_t k = 0; k < entries.size(); ++k) {
    const Scatter& entry = entries[k];
    const Index next = entries[std::min(k + 1, entries.size() - 1)].target;
    add_row(entry.value, A + entry.source * d, d, out + entry.target * d, out + next * d);
  }
}

/// A row of Y in registers, or a part of it.
struct Sums {
  Vector c0, c1;

  HWY_INLINE Sums() : c0(hn::Zero(D())), c1(c0) {}

  HWY_INLINE void add(double a, Vector n0, Vector n1) {
    const Vector factor = hn::Set(D(), a);
    c0 = hn::MulAdd(factor, n0, c0);
    if constexpr (kLanes < kBlockColumns) c1 = hn::MulAdd(factor, n1, c1);
  }

  HWY_INLINE void store(double* y) const {
    hn::StoreU(c0, D(), y);
    if constexpr (kLanes < kBlockColumns) hn::StoreU(c1, D(), y + kLanes);
  }
};

void multiply_block_of(const double* A, Index rows, Index d, const double* N, double* Y) {
  constexpr Index kColumns = std::min(2 * kLanes, kBlockColumns);
  for (Index i = 0; i < rows; i += 6) {  // the last row is done again where there are fewer than 6
    const auto row = [&](Index k) { return std::min(i + k, rows - 1); };
    const double *a0 = A + row(0) * d, *a1 = A + row(1) * d, *a2 = A + row(2) * d;
    const double *a3 = A + row(3) * d, *a4 = A + row(4) * d, *a5 = A + row(5) * d;
    constexpr Index kAhead = 12;  // rows; theirs may be those of the next tile
    constexpr Index kLine = 8;
    for (Index j = 0; j < 6 * d; j += kLine) hwy::Prefetch(a0 + kAhead * d + j);
    for (Index c = 0; c < kBlockColumns; c += kColumns) {
      Sums s0, s1, s2, s3, s4, s5;
      const double* n = N + c;
      for (Index j = 0; j < d; ++j, n += kBlockColumns) {
        const Vector n0 = load(n), n1 = kLanes < kBlockColumns ? load(n + kLanes) : n0;
        s0.add(a0[j], n0, n1), s1.add(a1[j], n0, n1), s2.add(a2[j], n0, n1);
        s3.add(a3[j], n0, n1), s4.add(a4[j], n0, n1), s5.add(a5[j], n0, n1);
      }
      const auto y = [&](Index k) { return Y + row(k) * kBlockColumns + c; };
      s0.store(y(0)), s1.store(y(1)), s2.store(y(2)), s3.store(y(3)), s4.store(y(4)), s5.store(y(5));
    }
  }
}

}  // namespace attnreg::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attnreg::kernels {

HWY_EXPORT(scatter_of);
HWY_EXPORT(multiply_block_of);

void scatter_rows(const double* A, Index d, std::span<const Scatter> entries, double* out) {
  HWY_DYNAMIC_DISPATCH(scatter_of)(A, d, entries, out);
}
void multiply_block(const double* A, Index rows, Index d, const double* N, double* Y) {
  HWY_DYNAMIC_DISPATCH(multiply_block_of)(A, rows, d, N, Y);
}

}  // namespace attnreg::kernels
#endif
