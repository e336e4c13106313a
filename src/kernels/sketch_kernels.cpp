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

/// Asks for a line that is needed later than what the first-level cache could hold until then.
HWY_INLINE void fetch(const double* p) { __builtin_prefetch(p, 0, 2); }

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

void multiply_block_of(const double* A, Index rows, Index d, const double* N, double* Y, Index used) {
  constexpr Index kColumns = std::min(2 * kLanes, kBlockColumns), kRows = 6;
  constexpr Index kLine = 8;  // of 64 bytes
  const Index rounds = (used + kColumns - 1) / kColumns;
  // The next tile is fetched into the second-level cache meanwhile, a line at a time: in its four quarters at once,
  // which are four streams of memory.
  const Index quarter = rows / 4;
  const auto next_row = [&](Index k) { return A + (rows + k % 4 * quarter + k / 4) * d; };
  for (Index i = 0; i < rows; i += kRows) {  // the last row is done again where there are fewer than 6
    const auto row = [&](Index k) { return std::min(i + k, rows - 1); };
    const double *a0 = A + row(0) * d, *a1 = A + row(1) * d, *a2 = A + row(2) * d;
    const double *a3 = A + row(3) * d, *a4 = A + row(4) * d, *a5 = A + row(5) * d;
    for (Index round = 0; round < rounds; ++round) {
      const Index c = round * kColumns;
      Sums s0, s1, s2, s3, s4, s5;
      const double* n = N + c;
      const auto add = [&](Index j) HWY_ATTR {
        const Vector n0 = load(n), n1 = kLanes < kBlockColumns ? load(n + kLanes) : n0;
        s0.add(a0[j], n0, n1), s1.add(a1[j], n0, n1), s2.add(a2[j], n0, n1);
        s3.add(a3[j], n0, n1), s4.add(a4[j], n0, n1), s5.add(a5[j], n0, n1);
        n += kBlockColumns;
      };
      const Index fetched = i + kRows * round / rounds, last_fetched = i + kRows * (round + 1) / rounds;
      Index j = 0;
      for (; j + kLine <= d; j += kLine) {
        for (Index k = fetched; k < last_fetched; ++k) fetch(next_row(k) + j);
        for (Index v = j; v < j + kLine; ++v) add(v);
      }
      if (j < d)
        for (Index k = fetched; k < last_fetched; ++k) fetch(next_row(k) + j);
      for (; j < d; ++j) add(j);
      const auto y = [&](Index k) { return Y + row(k) * kBlockColumns + c; };
      s0.store(y(0)), s1.store(y(1)), s2.store(y(2)), s3.store(y(3)), s4.store(y(4)), s5.store(y(5));
    }
  }
}

/// kCount columns of A, from `a` on, by a group of columns of U, whose rows are `stride` apart.
template <int kCount>
HWY_INLINE void add_products(const double* a, Index rows, Index d, const double* u, Index stride, double* out) {
  constexpr int kVectors = static_cast<int>(kGroupColumns / kLanes);
  Vector sums[kCount][kVectors];
  for (auto& of_column : sums)
    for (auto& sum : of_column) sum = hn::Zero(D());
  for (Index i = 0; i < rows; ++i, a += d, u += stride) {
    Vector of_u[kVectors];
    HWY_UNROLL(4)
    for (int v = 0; v < kVectors; ++v) of_u[v] = load(u + v * kLanes);
    HWY_UNROLL(12)
    for (int j = 0; j < kCount; ++j) {
      const Vector factor = hn::Set(D(), a[j]);
      HWY_UNROLL(4)
      for (int v = 0; v < kVectors; ++v) sums[j][v] = hn::MulAdd(factor, of_u[v], sums[j][v]);
    }
  }
  HWY_UNROLL(12)
  for (int j = 0; j < kCount; ++j) HWY_UNROLL(4)
  for (int v = 0; v < kVectors; ++v) {
    double* to = out + j * kGroupColumns + v * kLanes;
    hn::StoreU(hn::Add(load(to), sums[j][v]), D(), to);
  }
}

void add_transposed_block_of(const double* A, Index rows, Index d, const double* U, Index groups, double* out) {
  constexpr int kCount = kLanes == 8 ? 12 : kLanes == 4 ? 6 : 3;  // with their factors, as many as there are registers
  const Index stride = groups * kGroupColumns;
  const auto add = [&]<int kColumns>(Index j) HWY_ATTR {
    for (Index g = 0; g < groups; ++g)
      add_products<kColumns>(A + j, rows, d, U + g * kGroupColumns, stride, out + (g * d + j) * kGroupColumns);
  };
  Index j = 0;
  for (; j + kCount <= d; j += kCount) add.template operator()<kCount>(j);
  for (; j + 2 <= d; j += 2) add.template operator()<2>(j);
  if (j < d) add.template operator()<1>(j);
}

}  // namespace attnreg::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attnreg::kernels {

HWY_EXPORT(scatter_of);
HWY_EXPORT(multiply_block_of);
HWY_EXPORT(add_transposed_block_of);

void scatter_rows(const double* A, Index d, std::span<const Scatter> entries, double* out) {
  HWY_DYNAMIC_DISPATCH(scatter_of)(A, d, entries, out);
}
void multiply_block(const double* A, Index rows, Index d, const double* N, double* Y, Index used) {
  HWY_DYNAMIC_DISPATCH(multiply_block_of)(A, rows, d, N, Y, used);
}
void add_transposed_block(const double* A, Index rows, Index d, const double* U, Index groups, double* out) {
  HWY_DYNAMIC_DISPATCH(add_transposed_block_of)(A, rows, d, U, groups, out);
}

}  // namespace attnreg::kernels
#endif
