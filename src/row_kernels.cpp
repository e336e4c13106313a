// Compiled once for every kind of CPU; the best one for the CPU at hand is chosen when the program runs (Highway).
#include "row_kernels.hpp"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "row_kernels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace attnreg::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Doubles = hn::ScalableTag<double>;
using Vector = hn::Vec<Doubles>;

constexpr Doubles kDoubles;
constexpr hn::Rebind<float, Doubles> kFloats;

HWY_INLINE Vector load(const double* p) { return hn::LoadU(kDoubles, p); }
HWY_INLINE Vector load(const float* p) { return hn::PromoteTo(kDoubles, hn::LoadU(kFloats, p)); }
/// The first `count` numbers, and zeros.
HWY_INLINE Vector load(const double* p, std::size_t count) {
  return hn::MaskedLoad(hn::FirstN(kDoubles, count), kDoubles, p);
}
HWY_INLINE Vector load(const float* p, std::size_t count) {
  return hn::PromoteTo(kDoubles, hn::MaskedLoad(hn::FirstN(kFloats, count), kFloats, p));
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

HWY_INLINE double sum_of(Vector v) { return hn::GetLane(hn::SumOfLanes(kDoubles, v)); }

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

template <bool kAbsolute>
HWY_INLINE Vector maybe_abs(Vector v) {
  return kAbsolute ? hn::Abs(v) : v;
}

HWY_INLINE void add_to(double* out, Vector v, Index count) {
  if (count >= static_cast<Index>(hn::Lanes(kDoubles)))
    hn::StoreU(v, kDoubles, out);
  else
    hn::BlendedStore(v, hn::FirstN(kDoubles, static_cast<std::size_t>(count)), kDoubles, out);
}

/// out_c += sum of four rows, row r times u[r * next + c].
template <int kColumns, bool kAbsolute, class T>
HWY_INLINE void add_rows4(const T* a0, const T* a1, const T* a2, const T* a3, Index d, const double* u, Index next,
                          double* out) {
  const auto coefficient = [&](int row, int c)
                               HWY_ATTR { return hn::Set(kDoubles, c < kColumns ? u[row * next + c] : 0); };
  const Vector u00 = coefficient(0, 0), u10 = coefficient(1, 0), u20 = coefficient(2, 0), u30 = coefficient(3, 0);
  const Vector u01 = coefficient(0, 1), u11 = coefficient(1, 1), u21 = coefficient(2, 1), u31 = coefficient(3, 1);
  double* out1 = out + (kColumns - 1) * d;
  for_columns(d, [&](Index j, auto at) HWY_ATTR {
    const Vector v0 = maybe_abs<kAbsolute>(at(a0 + j)), v1 = maybe_abs<kAbsolute>(at(a1 + j)),
                 v2 = maybe_abs<kAbsolute>(at(a2 + j)), v3 = maybe_abs<kAbsolute>(at(a3 + j));
    Vector sum = at(static_cast<const double*>(out + j));
    sum = hn::MulAdd(u30, v3, hn::MulAdd(u20, v2, hn::MulAdd(u10, v1, hn::MulAdd(u00, v0, sum))));
    add_to(out + j, sum, d - j);
    if (kColumns == 2) {
      sum = at(static_cast<const double*>(out1 + j));
      sum = hn::MulAdd(u31, v3, hn::MulAdd(u21, v2, hn::MulAdd(u11, v1, hn::MulAdd(u01, v0, sum))));
      add_to(out1 + j, sum, d - j);
    }
  });
}

template <int kColumns, bool kAbsolute, class T>
HWY_INLINE void add_row(const T* a, Index d, const double* u, double* out) {
  for (int c = 0; c < kColumns; ++c) {
    const Vector uc = hn::Set(kDoubles, u[c]);
    double* to = out + c * d;
    for_columns(d, [&](Index j, auto at) HWY_ATTR {
      const Vector v = maybe_abs<kAbsolute>(at(a + j));
      add_to(to + j, hn::MulAdd(uc, v, at(static_cast<const double*>(to + j))), d - j);
    });
  }
}

/// kColumns columns of U, whose rows are k apart.
template <int kColumns, bool kAbsolute, class T>
void add_columns(const T* A, const RowBlock& block, Index d, const double* U, Index k, double* out) {
  const Index rows = block.rows;
  if (block.pieces == 4) {
    const T *a0 = A + block.piece(0) * d, *a1 = A + block.piece(1) * d, *a2 = A + block.piece(2) * d,
            *a3 = A + block.piece(3) * d;
    for (Index i = 0; i < rows; ++i)
      add_rows4<kColumns, kAbsolute>(a0 + i * d, a1 + i * d, a2 + i * d, a3 + i * d, d, U + i * k, rows * k, out);
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

// Eight rows at a time make up for the overhead of short ones; of longer ones, four overlap better with the loads of
// the next.
constexpr Index kShortRow = 448;  // bytes

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
  Vector u[kRows];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    const double yr = sum_of(sums[r]);
    y[rows[r]] = yr;
    const double centred = weights.curvature[rows[r]] * (yr - weights.centre);
    out[d] += centred;
    u[r] = hn::Set(kDoubles, centred + weights.ridge[rows[r]] * yr);
  }
  for_columns(d, [&](Index j, auto at) HWY_ATTR {
    Vector even = at(static_cast<const double*>(out + j)), odd = hn::Zero(kDoubles);
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; r += 2) {
      even = hn::MulAdd(u[r], at(a[r] + j), even);
      odd = hn::MulAdd(u[r + 1], at(a[r + 1] + j), odd);
    }
    add_to(out + j, hn::Add(even, odd), d - j);
  });
}

template <class T>
void normal_block(const T* A, const RowBlock& block, Index d, const double* x, const RowCurvature& weights, double* y,
                  double* out) {
  const Index rows = block.rows;
  Index i = 0;
  const auto next = [&]<int kRows>() HWY_ATTR {
    const T* a[kRows];
    Index row[kRows];
    for (int r = 0; r < kRows; ++r) {
      row[r] = block.piece(r % 4) + i + r / 4;
      a[r] = A + row[r] * d;
    }
    normal_rows<kRows>(a, d, x, weights, row, y, out);
    i += kRows / 4;
  };
  if (block.pieces == 4) {
    if (d * static_cast<Index>(sizeof(T)) <= kShortRow)
      while (i + 2 <= rows) next.template operator()<8>();
    while (i < rows) next.template operator()<4>();
    return;
  }
  for (Index k = 0; k < block.pieces; ++k)
    for (Index row = block.piece(k); row < block.piece(k) + rows; ++row) {
      y[row] = dot(A + row * d, d, x);
      const double centred = weights.curvature[row] * (y[row] - weights.centre);
      const double u = centred + weights.ridge[row] * y[row];
      out[d] += centred;
      add_row<1, false>(A + row * d, d, &u, out);
    }
}

template <class T>
void square_rows(const T* A, const RowBlock& block, Index d, double* squares) {
  for (Index k = 0; k < block.pieces; ++k)
    for (Index i = 0; i < block.rows; ++i) {
      const T* a = A + (block.piece(k) + i) * d;
      Vector sum = hn::Zero(kDoubles);
      for_columns(d, [&](Index j, auto at) HWY_ATTR {
        const Vector v = at(a + j);
        sum = hn::MulAdd(v, v, sum);
      });
      squares[k * block.rows + i] = sum_of(sum);
    }
}

// Dispatch is by name, without overloads.
void multiply_f64(const double* A, const RowBlock& block, Index d, const double* x, double* z) {
  multiply_block(A, block, d, x, z);
}
void multiply_f32(const float* A, const RowBlock& block, Index d, const double* x, double* z) {
  multiply_block(A, block, d, x, z);
}
void transpose_f64(const double* A, const RowBlock& block, Index d, const double* U, Index k, double* out) {
  add_transposed(A, block, d, U, k, out);
}
void transpose_f32(const float* A, const RowBlock& block, Index d, const double* U, Index k, double* out) {
  add_transposed(A, block, d, U, k, out);
}
void normal_f64(const double* A, const RowBlock& block, Index d, const double* x, const RowCurvature& weights,
                double* y, double* out) {
  normal_block(A, block, d, x, weights, y, out);
}
void normal_f32(const float* A, const RowBlock& block, Index d, const double* x, const RowCurvature& weights, double* y,
                double* out) {
  normal_block(A, block, d, x, weights, y, out);
}
void absolute_f64(const double* A, const RowBlock& block, Index d, const double* u, double* out) {
  add_columns<1, true>(A, block, d, u, 1, out);
}
void absolute_f32(const float* A, const RowBlock& block, Index d, const double* u, double* out) {
  add_columns<1, true>(A, block, d, u, 1, out);
}
void squares_f64(const double* A, const RowBlock& block, Index d, double* squares) {
  square_rows(A, block, d, squares);
}
void squares_f32(const float* A, const RowBlock& block, Index d, double* squares) { square_rows(A, block, d, squares); }

}  // namespace attnreg::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace attnreg::kernels {

HWY_EXPORT(multiply_f64);
HWY_EXPORT(multiply_f32);
HWY_EXPORT(transpose_f64);
HWY_EXPORT(transpose_f32);
HWY_EXPORT(normal_f64);
HWY_EXPORT(normal_f32);
HWY_EXPORT(absolute_f64);
HWY_EXPORT(absolute_f32);
HWY_EXPORT(squares_f64);
HWY_EXPORT(squares_f32);

void multiply(const double* A, const RowBlock& block, Index d, const double* x, double* z) {
  HWY_DYNAMIC_DISPATCH(multiply_f64)(A, block, d, x, z);
}
void multiply(const float* A, const RowBlock& block, Index d, const double* x, double* z) {
  HWY_DYNAMIC_DISPATCH(multiply_f32)(A, block, d, x, z);
}
void add_transpose_multiply(const double* A, const RowBlock& block, Index d, const double* U, Index k, double* out) {
  HWY_DYNAMIC_DISPATCH(transpose_f64)(A, block, d, U, k, out);
}
void add_transpose_multiply(const float* A, const RowBlock& block, Index d, const double* U, Index k, double* out) {
  HWY_DYNAMIC_DISPATCH(transpose_f32)(A, block, d, U, k, out);
}
void add_normal_product(const double* A, const RowBlock& block, Index d, const double* x, const RowCurvature& weights,
                        double* y, double* out) {
  HWY_DYNAMIC_DISPATCH(normal_f64)(A, block, d, x, weights, y, out);
}
void add_normal_product(const float* A, const RowBlock& block, Index d, const double* x, const RowCurvature& weights,
                        double* y, double* out) {
  HWY_DYNAMIC_DISPATCH(normal_f32)(A, block, d, x, weights, y, out);
}
void add_absolute_transpose_multiply(const double* A, const RowBlock& block, Index d, const double* u, double* out) {
  HWY_DYNAMIC_DISPATCH(absolute_f64)(A, block, d, u, out);
}
void add_absolute_transpose_multiply(const float* A, const RowBlock& block, Index d, const double* u, double* out) {
  HWY_DYNAMIC_DISPATCH(absolute_f32)(A, block, d, u, out);
}
void squared_norms(const double* A, const RowBlock& block, Index d, double* squares) {
  HWY_DYNAMIC_DISPATCH(squares_f64)(A, block, d, squares);
}
void squared_norms(const float* A, const RowBlock& block, Index d, double* squares) {
  HWY_DYNAMIC_DISPATCH(squares_f32)(A, block, d, squares);
}

}  // namespace attnreg::kernels

#endif
