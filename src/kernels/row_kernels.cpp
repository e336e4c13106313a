// Compiled once for every kind of CPU; the best one for the CPU at hand is chosen when the program runs (Highway).
#include "kernels/row_kernels.hpp"

#include <cstdint>
#include <type_traits>
#include <variant>

#include "kernels/prefetch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/row_kernels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace attnreg::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Doubles = hn::ScalableTag<double>;
using Vector = hn::Vec<Doubles>;

constexpr Doubles kDoubles;
constexpr hn::Rebind<float, Doubles> kFloats;
constexpr hn::Rebind<std::uint16_t, Doubles> kBits;  // of half and bfloat16

HWY_INLINE Vector load(const double* p) { return hn::LoadU(kDoubles, p); }
HWY_INLINE Vector load(const float* p) { return hn::PromoteTo(kDoubles, hn::LoadU(kFloats, p)); }

/// The first `count` numbers, and zeros. Highway's masked load is used only where it is an instruction: its substitutes
/// read beyond, and with SSE, in 1.0.3, aligned numbers only.
template <class D, class T>
HWY_INLINE hn::Vec<D> load_part(D tag, const T* p, std::size_t count) {
  if constexpr (HWY_MAX_BYTES > 16 && sizeof(T) > sizeof(std::uint16_t)) {
    return hn::MaskedLoad(hn::FirstN(tag, count), tag, p);
  } else {
    T part[HWY_MAX_BYTES / sizeof(double)] = {};
    for (std::size_t k = 0; k < count; ++k) part[k] = p[k];
    return hn::LoadU(tag, part);
  }
}
HWY_INLINE Vector load(const double* p, std::size_t count) { return load_part(kDoubles, p, count); }
HWY_INLINE Vector load(const float* p, std::size_t count) {
  return hn::PromoteTo(kDoubles, load_part(kFloats, p, count));
}

/// T: half, by an instruction where the CPU has F16C; or bfloat16, the upper half of a float.
template <class T>
HWY_INLINE Vector from_bits(hn::Vec<decltype(kBits)> bits) {
  if constexpr (std::is_same_v<T, Eigen::half>) {
    const hn::Rebind<hwy::float16_t, Doubles> halves;
    return hn::PromoteTo(kDoubles, hn::PromoteTo(kFloats, hn::BitCast(halves, bits)));
  } else {
    const hn::Rebind<std::uint32_t, Doubles> words;
    return hn::PromoteTo(kDoubles, hn::BitCast(kFloats, hn::ShiftLeft<16>(hn::PromoteTo(words, bits))));
  }
}

template <class T>
using IfHalf = std::enable_if_t<sizeof(T) == sizeof(std::uint16_t)>;

template <class T, class = IfHalf<T>>
HWY_INLINE Vector load(const T* p) {
  return from_bits<T>(hn::LoadU(kBits, reinterpret_cast<const std::uint16_t*>(p)));
}
template <class T, class = IfHalf<T>>
HWY_INLINE Vector load(const T* p, std::size_t count) {
  return from_bits<T>(load_part(kBits, reinterpret_cast<const std::uint16_t*>(p), count));
}

/// Calls body(j, load) for every vector of columns from j on; `load` reads one there, the last one in part.
template <class Body>
HWY_INLINE void for_columns(Index d, Body&& body) {
  const auto lanes = static_cast<Index>(hn::Lanes(kDoubles));
  Index j = 0;
  for (; j + lanes <= d; j += lanes) body(j, [](const auto* p) HWY_ATTR { return load(p); });
  const auto count = static_cast<std::size_t>(d - j);
  if (count > 0) body(j, [count](const auto* p) HWY_ATTR { return load(p, count); });
}

/// Asks for what is needed some rows later: a kernel that waits for its own sums, or works on data in cache, leaves
/// the memory idle otherwise. Measured for vectors of a whole line only (docs/performance.md).
template <class T>
HWY_INLINE void prefetch(const T* p) {
  if (HWY_MAX_BYTES == 64)
    prefetch_line(reinterpret_cast<std::uintptr_t>(p) + (prefetches_into_first_level ? 3072 : 2048));
}

HWY_INLINE double sum_of(Vector v) { return hn::GetLane(hn::SumOfLanes(kDoubles, v)); }

/// sums_r = the sum of the lanes of v_r; together, which takes a third of the instructions, where there are four lanes.
template <int kRows>
HWY_INLINE void sums_of(const Vector* v, double* sums) {
#if HWY_MAX_BYTES == 32 || HWY_MAX_BYTES == 64
  for (int r = 0; r < kRows; r += 4) {
    const auto pairs = [](Vector a, Vector b) HWY_ATTR {
      return hn::Add(hn::InterleaveLower(kDoubles, a, b), hn::InterleaveUpper(kDoubles, a, b));
    };
    const Vector a = pairs(v[r], v[r + 1]), b = pairs(v[r + 2], v[r + 3]);
    const Vector halves = hn::Add(hn::ConcatLowerLower(kDoubles, b, a), hn::ConcatUpperUpper(kDoubles, b, a));
#if HWY_MAX_BYTES == 64
    const hn::Half<Doubles> half;  // s0 s1 s0 s1 s2 s3 s2 s3, still to be added
    const Vector twice = hn::Add(halves, hn::SwapAdjacentBlocks(halves));
    hn::StoreU(hn::ConcatLowerLower(half, hn::UpperHalf(half, twice), hn::LowerHalf(half, twice)), half, sums + r);
#else
    hn::StoreU(halves, kDoubles, sums + r);
#endif
  }
#else
  for (int r = 0; r < kRows; ++r) sums[r] = sum_of(v[r]);
#endif
}

// One chain of sums for each row, so that the sum of a row is the same wherever it is.
template <class T>
HWY_INLINE double dot(const T* a, Index d, const double* x) {
  Vector sum = hn::Zero(kDoubles);
  for_columns(d, [&](Index j, auto at) HWY_ATTR { sum = hn::MulAdd(at(a + j), at(x + j), sum); });
  return sum_of(sum);
}

template <class T>
HWY_INLINE void dot4(const T* a0, const T* a1, const T* a2, const T* a3, Index d, const double* x, double* z,
                     Index next) {
  Vector s0 = hn::Zero(kDoubles), s1 = s0, s2 = s0, s3 = s0;
  for_columns(d, [&](Index j, auto at) HWY_ATTR {
    const Vector xj = at(x + j);
    prefetch(a0 + j), prefetch(a1 + j), prefetch(a2 + j), prefetch(a3 + j);
    s0 = hn::MulAdd(at(a0 + j), xj, s0);
    s1 = hn::MulAdd(at(a1 + j), xj, s1);
    s2 = hn::MulAdd(at(a2 + j), xj, s2);
    s3 = hn::MulAdd(at(a3 + j), xj, s3);
  });
  z[0] = sum_of(s0), z[next] = sum_of(s1), z[2 * next] = sum_of(s2), z[3 * next] = sum_of(s3);
}

template <class T>
void multiply_block(const T* A, const RowBlock& block, Index d, const double* x, double* z) {
  const Index rows = block.rows;
  if (block.pieces == 4) {
    const T *a0 = A + block.piece(0) * d, *a1 = A + block.piece(1) * d, *a2 = A + block.piece(2) * d,
            *a3 = A + block.piece(3) * d;
    for (Index i = 0; i < rows; ++i) dot4(a0 + i * d, a1 + i * d, a2 + i * d, a3 + i * d, d, x, z + i, rows);
    return;
  }
  for (Index k = 0; k < block.pieces; ++k)
    for (Index i = 0; i < rows; ++i) z[k * rows + i] = dot(A + (block.piece(k) + i) * d, d, x);
}

/// a + b exactly (Knuth's TwoSum): the sum as rounded, and what the rounding lost is added to `low`.
template <class V, class Add, class Sub>
HWY_INLINE V two_sum(V a, V b, V& low, Add add, Sub subtract) {
  const V sum = add(a, b), b_rounded = subtract(sum, a);
  low = add(low, add(subtract(a, subtract(sum, b_rounded)), subtract(b, b_rounded)));
  return sum;
}

/// -shift + the sum of all lanes, rounded once.
HWY_INLINE double rounded(Vector high, Vector low, double shift) {
  HWY_ALIGN double lanes[HWY_MAX_BYTES / sizeof(double)];
  hn::Store(high, kDoubles, lanes);
  double sum = -shift, rest = sum_of(low);
  for (std::size_t k = 0; k < hn::Lanes(kDoubles); ++k)
    sum = two_sum(
        sum, lanes[k], rest, [](double a, double b) { return a + b; }, [](double a, double b) { return a - b; });
  return sum + rest;
}

template <int kRows, class T>
HWY_INLINE void compensated_dots(const T* const* a, Index d, const double* x, double shift, double* const* z) {
  Vector high[kRows], low[kRows];
  for (int r = 0; r < kRows; ++r) high[r] = low[r] = hn::Zero(kDoubles);
  for_columns(d, [&](Index j, auto at) HWY_ATTR {
    const Vector xj = at(x + j);
    HWY_UNROLL(4)
    for (int r = 0; r < kRows; ++r) {
      const Vector aj = at(a[r] + j), product = hn::Mul(aj, xj);
      prefetch(a[r] + j);
      low[r] = hn::Add(low[r], hn::MulSub(aj, xj, product));
      high[r] = two_sum(
          high[r], product, low[r], [](Vector u, Vector v) HWY_ATTR { return hn::Add(u, v); },
          [](Vector u, Vector v) HWY_ATTR { return hn::Sub(u, v); });
    }
  });
  for (int r = 0; r < kRows; ++r) *z[r] = rounded(high[r], low[r], shift);
}

template <class T>
void multiply_block_compensated(const T* A, const RowBlock& block, Index d, const double* x, double shift, double* z) {
  const Index rows = block.rows;
  const auto next = [&]<int kRows>(Index piece, Index i) HWY_ATTR {
    const T* a[kRows];
    double* to[kRows];
    for (int r = 0; r < kRows; ++r) {
      a[r] = A + (block.piece(piece + r) + i) * d;
      to[r] = z + (piece + r) * rows + i;
    }
    compensated_dots<kRows>(a, d, x, shift, to);
  };
  if (block.pieces == 4) {
    for (Index i = 0; i < rows; ++i) next.template operator()<4>(0, i);
    return;
  }
  for (Index k = 0; k < block.pieces; ++k)
    for (Index i = 0; i < rows; ++i) next.template operator()<1>(k, i);
}

template <bool kAbsolute>
HWY_INLINE Vector maybe_abs(Vector v) {
  return kAbsolute ? hn::Abs(v) : v;
}

/// The first `count` numbers of v, at most all.
HWY_INLINE void store(Vector v, double* out, Index count) {
  if (count >= static_cast<Index>(hn::Lanes(kDoubles)))
    hn::StoreU(v, kDoubles, out);
  else
    hn::BlendedStore(v, hn::FirstN(kDoubles, static_cast<std::size_t>(count)), kDoubles, out);
}

/// out_c += sum of kRows rows, row r times u[r][c].
template <int kRows, int kColumns, bool kAbsolute, class T>
HWY_INLINE void add_rows(const T* const* a, Index d, const double* const* u, double* out) {
  Vector u0[kRows], u1[kRows];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    u0[r] = hn::Set(kDoubles, u[r][0]);
    u1[r] = hn::Set(kDoubles, u[r][kColumns - 1]);
  }
  double* out1 = out + (kColumns - 1) * d;
  for_columns(d, [&](Index j, auto at) HWY_ATTR {
    Vector even0 = at(static_cast<const double*>(out + j)), odd0 = hn::Zero(kDoubles);
    Vector even1 = at(static_cast<const double*>(out1 + j)), odd1 = odd0;
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; r += 2) {
      prefetch(a[r] + j), prefetch(a[r + 1] + j);
      const Vector even = maybe_abs<kAbsolute>(at(a[r] + j)), odd = maybe_abs<kAbsolute>(at(a[r + 1] + j));
      even0 = hn::MulAdd(u0[r], even, even0), odd0 = hn::MulAdd(u0[r + 1], odd, odd0);
      if (kColumns == 2) even1 = hn::MulAdd(u1[r], even, even1), odd1 = hn::MulAdd(u1[r + 1], odd, odd1);
    }
    store(hn::Add(even0, odd0), out + j, d - j);
    if (kColumns == 2) store(hn::Add(even1, odd1), out1 + j, d - j);
  });
}

template <int kColumns, bool kAbsolute, class T>
HWY_INLINE void add_row(const T* a, Index d, const double* u, double* out) {
  for (int c = 0; c < kColumns; ++c) {
    const Vector uc = hn::Set(kDoubles, u[c]);
    double* to = out + c * d;
    for_columns(d, [&](Index j, auto at) HWY_ATTR {
      const Vector v = maybe_abs<kAbsolute>(at(a + j));
      store(hn::MulAdd(uc, v, at(static_cast<const double*>(to + j))), to + j, d - j);
    });
  }
}

// Eight rows at a time make up for the overhead of short ones; of longer ones, four overlap better with the loads of
// the next.
constexpr Index kShortRow = HWY_MAX_BYTES == 64 ? 1024 : 448;  // bytes

/// Calls body(i) for the rows of a piece, with 8 rows of all four pieces together, i and i + 1, or 4.
template <class T, class Body>
HWY_INLINE void for_groups(Index rows, Index d, Body&& body) {
  Index i = 0;
  if (d * static_cast<Index>(sizeof(T)) <= kShortRow)
    for (; i + 2 <= rows; i += 2) body.template operator()<8>(i);
  for (; i < rows; ++i) body.template operator()<4>(i);
}

/// kColumns columns of U, whose rows are k apart.
template <int kColumns, bool kAbsolute, class T>
void add_columns(const T* A, const RowBlock& block, Index d, const double* U, Index k, double* out) {
  const Index rows = block.rows;
  if (block.pieces == 4) {
    for_groups<T>(rows, d, [&]<int kRows>(Index i) HWY_ATTR {
      const T* a[kRows];
      const double* u[kRows];
      for (int r = 0; r < kRows; ++r) {
        a[r] = A + (block.piece(r % 4) + i + r / 4) * d;
        u[r] = U + (r % 4 * rows + i + r / 4) * k;
      }
      add_rows<kRows, kColumns, kAbsolute>(a, d, u, out);
    });
    return;
  }
  for (Index p = 0; p < block.pieces; ++p)
    for (Index i = 0; i < rows; ++i)
      add_row<kColumns, kAbsolute>(A + (block.piece(p) + i) * d, d, U + (p * rows + i) * k, out);
}

template <class T>
void add_transposed(const T* A, const RowBlock& block, Index d, const double* U, Index k, double* out) {
  Index c = 0;
  for (; c + 2 <= k; c += 2) add_columns<2, false>(A, block, d, U + c, k, out + c * d);
  if (c < k) add_columns<1, false>(A, block, d, U + c, k, out + c * d);
}

/// Rows i (and i + 1 if kRows == 8) of the four pieces: their dot products, then u_i a_i while they are in cache.
template <int kRows, class T>
HWY_INLINE void normal_rows(const T* const* a, Index d, const double* x, const RowCurvature& weights, const Index* rows,
                            double* y, double* out) {
  Vector sums[kRows];
  for (auto& sum : sums) sum = hn::Zero(kDoubles);
  for_columns(d, [&](Index j, auto at) HWY_ATTR {
    const Vector xj = at(x + j);
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) sums[r] = hn::MulAdd(at(a[r] + j), xj, sums[r]);
  });
  double dots[kRows];
  sums_of<kRows>(sums, dots);
  Vector u[kRows];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    y[rows[r]] = dots[r];
    u[r] = hn::Set(kDoubles, weights.weight(rows[r], dots[r], out[d]));
  }
  for_columns(d, [&](Index j, auto at) HWY_ATTR {
    Vector even = at(static_cast<const double*>(out + j)), odd = hn::Zero(kDoubles);
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; r += 2) {
      prefetch(a[r] + j), prefetch(a[r + 1] + j);
      even = hn::MulAdd(u[r], at(a[r] + j), even);
      odd = hn::MulAdd(u[r + 1], at(a[r + 1] + j), odd);
    }
    store(hn::Add(even, odd), out + j, d - j);
  });
}

template <class T>
void normal_block(const T* A, const RowBlock& block, Index d, const double* x, const RowCurvature& weights, double* y,
                  double* out) {
  const Index rows = block.rows;
  if (block.pieces == 4) {
    for_groups<T>(rows, d, [&]<int kRows>(Index i) HWY_ATTR {
      const T* a[kRows];
      Index row[kRows];
      for (int r = 0; r < kRows; ++r) {
        row[r] = block.piece(r % 4) + i + r / 4;
        a[r] = A + row[r] * d;
      }
      normal_rows<kRows>(a, d, x, weights, row, y, out);
    });
    return;
  }
  for (Index k = 0; k < block.pieces; ++k)
    for (Index row = block.piece(k); row < block.piece(k) + rows; ++row) {
      y[row] = dot(A + row * d, d, x);
      const double u = weights.weight(row, y[row], out[d]);
      add_row<1, false>(A + row * d, d, &u, out);
    }
}

void square_rows(const double* A, const RowBlock& block, Index d, const double* factor, double* squares) {
  for (Index k = 0; k < block.pieces; ++k)
    for (Index i = 0; i < block.rows; ++i) {
      const double* a = A + (block.piece(k) + i) * d;
      Vector sum = hn::Zero(kDoubles);
      for_columns(d, [&](Index j, auto at) HWY_ATTR {
        const Vector v = hn::Mul(at(a + j), at(factor + j));
        sum = hn::MulAdd(v, v, sum);
      });
      squares[k * block.rows + i] = sum_of(sum);
    }
}

// Dispatch is by name.
void multiply_of(const DenseBlock& A, const double* x, double* z) {
  std::visit([&](const auto* a) { multiply_block(a, A.block, A.columns, x, z); }, A.rows);
}
void multiply_compensated_of(const DenseBlock& A, const double* x, double shift, double* z) {
  std::visit([&](const auto* a) { multiply_block_compensated(a, A.block, A.columns, x, shift, z); }, A.rows);
}
void add_transposed_of(const DenseBlock& A, const double* U, Index k, double* out) {
  std::visit([&](const auto* a) { add_transposed(a, A.block, A.columns, U, k, out); }, A.rows);
}
void add_normal_of(const DenseBlock& A, const double* x, const RowCurvature& weights, double* y, double* out) {
  std::visit([&](const auto* a) { normal_block(a, A.block, A.columns, x, weights, y, out); }, A.rows);
}
void add_absolute_of(const DenseBlock& A, const double* u, double* out) {
  add_columns<1, true>(std::get<const double*>(A.rows), A.block, A.columns, u, 1, out);
}
void squares_of(const DenseBlock& A, const double* factor, double* squares) {
  square_rows(std::get<const double*>(A.rows), A.block, A.columns, factor, squares);
}
void widen_of(const DenseRows& A, Index first, Index count, double* out) {
  std::visit(
      [&](const auto* a) {
        for_columns(count, [&](Index j, auto at) HWY_ATTR { store(at(a + first + j), out + j, count - j); });
      },
      A);
}

}  // namespace attnreg::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace attnreg::kernels {

HWY_EXPORT(multiply_of);
HWY_EXPORT(multiply_compensated_of);
HWY_EXPORT(add_transposed_of);
HWY_EXPORT(add_normal_of);
HWY_EXPORT(add_absolute_of);
HWY_EXPORT(squares_of);
HWY_EXPORT(widen_of);

void multiply(const DenseBlock& A, const double* x, double* z) {
  if (are_short(A)) return multiply_short(A, x, z);
  HWY_DYNAMIC_DISPATCH(multiply_of)(A, x, z);
}
void multiply_compensated(const DenseBlock& A, const double* x, double shift, double* z) {
  HWY_DYNAMIC_DISPATCH(multiply_compensated_of)(A, x, shift, z);
}
void add_transpose_multiply(const DenseBlock& A, const double* U, Index k, double* out) {
  if (are_short(A)) return add_transpose_multiply_short(A, U, k, out);
  HWY_DYNAMIC_DISPATCH(add_transposed_of)(A, U, k, out);
}
void add_normal_product(const DenseBlock& A, const double* x, const RowCurvature& weights, double* y, double* out) {
  if (are_short(A)) return add_normal_product_short(A, x, weights, y, out);
  HWY_DYNAMIC_DISPATCH(add_normal_of)(A, x, weights, y, out);
}
void add_absolute_transpose_multiply(const DenseBlock& A, const double* u, double* out) {
  HWY_DYNAMIC_DISPATCH(add_absolute_of)(A, u, out);
}
void squared_norms(const DenseBlock& A, const double* factor, double* squares) {
  HWY_DYNAMIC_DISPATCH(squares_of)(A, factor, squares);
}
void widen(const DenseRows& A, Index first, Index count, double* out) {
  HWY_DYNAMIC_DISPATCH(widen_of)(A, first, count, out);
}

}  // namespace attnreg::kernels

#endif
