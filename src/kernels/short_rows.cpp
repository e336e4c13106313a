// Compiled once for every kind of CPU; the best one for the CPU at hand is chosen when the program runs (Highway).
#include "kernels/row_kernels.hpp"

#include <algorithm>
#include <array>
#include <variant>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/short_rows.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace attnreg::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_HAVE_SCALABLE
constexpr Index kLanes = 2;
#else
constexpr Index kLanes = std::min<Index>(HWY_MAX_BYTES / sizeof(double), 8);
#endif
using D = hn::FixedTag<double, static_cast<std::size_t>(kLanes)>;
using Vector = hn::Vec<D>;

constexpr int kRows = static_cast<int>(kLanes);  // of a group: one lane for each

HWY_INLINE Vector load(const double* p) { return hn::LoadU(D(), p); }
HWY_INLINE Vector load(const float* p) { return hn::PromoteTo(D(), hn::LoadU(hn::Rebind<float, D>(), p)); }

/// A row in as many vectors as it takes; what is in the last one behind its numbers is what is there in memory.
template <int kVectors>
struct Row {
  Vector v[kVectors];

  HWY_INLINE Row() {
    for (auto& part : v) part = hn::Zero(D());
  }
  template <class T>
  HWY_INLINE explicit Row(const T* from) {
    HWY_UNROLL(8)
    for (int k = 0; k < kVectors; ++k) v[k] = load(from + k * kLanes);
  }

  HWY_INLINE void add(Vector factor, const Row& other) {
    HWY_UNROLL(8)
    for (int k = 0; k < kVectors; ++k) v[k] = hn::MulAdd(factor, other.v[k], v[k]);
  }
  HWY_INLINE void add_to(double* out, Index d) const {
    HWY_ALIGN double numbers[kVectors * kLanes];
    for (int k = 0; k < kVectors; ++k) hn::Store(v[k], D(), numbers + k * kLanes);
    for (Index j = 0; j < d; ++j) out[j] += numbers[j];
  }
};

/// What is multiplied with rows, and which numbers of their last vector are theirs.
template <int kVectors>
struct Factors {
  Row<kVectors> x;
  hn::Mask<D> last;

  HWY_INLINE Factors(const double* from, Index d)
      : last(hn::FirstN(D(), static_cast<std::size_t>(d - (kVectors - 1) * kLanes))) {
    HWY_ALIGN double numbers[kVectors * kLanes] = {};
    std::copy_n(from, d, numbers);
    x = Row<kVectors>(static_cast<const double*>(numbers));
  }
  HWY_INLINE Vector dot(const Row<kVectors>& row) const {
    Vector sum = hn::Mul(hn::IfThenElseZero(last, row.v[kVectors - 1]), x.v[kVectors - 1]);
    HWY_UNROLL(8)
    for (int k = 0; k + 1 < kVectors; ++k) sum = hn::MulAdd(row.v[k], x.v[k], sum);
    return sum;
  }
};

/// Lane r: the sum of the lanes of v_r.
HWY_INLINE Vector sums_of(const Vector* v) {
#if HWY_MAX_BYTES == 32
  const D d;
  const auto pairs = [d](Vector a, Vector b)
                         HWY_ATTR { return hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)); };
  const Vector a = pairs(v[0], v[1]), b = pairs(v[2], v[3]);
  return hn::Add(hn::ConcatLowerLower(d, b, a), hn::ConcatUpperUpper(d, b, a));
#else
  HWY_ALIGN double sums[kLanes];
  for (int r = 0; r < kRows; ++r) sums[r] = hn::GetLane(hn::SumOfLanes(D(), v[r]));
  return hn::Load(D(), sums);
#endif
}

/// Calls body(a, local, place, rows) for groups of rows, kLanes or what is left of a piece: where they are, the first
/// one's local row and its place in the block. The vectors of a row reach into the rows behind it. The last groups of a
/// piece, behind which there may be no memory, are copies with zeros behind them. Four pieces in turn are four streams
/// of memory; rows of fewer bytes than `few` come one after another, since with the vectors over rows there would be
/// too many streams.
template <int kVectors, class T, class Body>
HWY_INLINE void for_groups(const T* A, const RowBlock& block, Index d, Index few, Body&& body) {
  const Index behind = (kVectors * kLanes - 1) / d;  // rows that the vectors of one reach into
  const Index whole = std::max<Index>(0, block.rows - behind) / kLanes * kLanes;
  const auto call = [&](Index p, Index i) HWY_ATTR {
    const Index local = block.piece(p) + i;
    body(A + local * d, local, p * block.rows + i, kLanes);
  };
  if (d * static_cast<Index>(sizeof(T)) < few) {
    for (Index p = 0; p < block.pieces; ++p)
      for (Index i = 0; i < whole; i += kLanes) call(p, i);
  } else {
    for (Index i = 0; i < whole; i += kLanes)
      for (Index p = 0; p < block.pieces; ++p) call(p, i);
  }
  for (Index p = 0; p < block.pieces; ++p)
    for (Index i = whole; i < block.rows; i += kLanes) {
      const Index local = block.piece(p) + i, left = std::min(kLanes, block.rows - i);
      std::array<T, static_cast<std::size_t>((kLanes + 1) * kShortColumns)> rows{};
      std::copy_n(A + local * d, left * d, rows.begin());
      body(static_cast<const T*>(rows.data()), local, p * block.rows + i, left);
    }
}

template <int kVectors, class T>
HWY_INLINE Vector dots(const T* a, Index d, const Factors<kVectors>& x) {
  Vector sums[kRows];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) sums[r] = x.dot(Row<kVectors>(a + r * d));
  return sums_of(sums);
}

HWY_INLINE void store(Vector v, double* to, Index count) {
  if (count == kLanes) return hn::StoreU(v, D(), to);
  HWY_ALIGN double numbers[kLanes];
  hn::Store(v, D(), numbers);
  std::copy_n(numbers, count, to);
}
HWY_INLINE Vector load_some(const double* from, Index count) {
  if (count == kLanes) return load(from);
  HWY_ALIGN double numbers[kLanes] = {};
  std::copy_n(from, count, numbers);
  return hn::Load(D(), numbers);
}

constexpr Index kFewBytes = 32, kFewBesideVectors = 40;  // measured: for one vector over rows, and for three

/// Sums over rows, those of a group apart, so that they do not wait for one another.
template <int kVectors>
struct Sums {
  static constexpr int kSets = std::min(kRows, kVectors == 1 ? 4 : 2);
  Row<kVectors> set[kSets];

  HWY_INLINE Sums() {}  // the implied one would not be for the target

  template <class T>
  HWY_INLINE void add(const T* a, Index d, const double* factors, Index stride) {
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) set[r % kSets].add(hn::Set(D(), factors[r * stride]), Row<kVectors>(a + r * d));
  }
  HWY_INLINE void add_to(double* out, Index d) const {
    for (const auto& part : set) part.add_to(out, d);
  }
};

template <int kVectors, class T>
void multiply_rows(const T* A, const RowBlock& block, Index d, const double* x, double* z) {
  const Factors<kVectors> in(x, d);
  for_groups<kVectors>(A, block, d, kFewBytes, [&](const T* a, Index, Index place, Index rows) HWY_ATTR {
    store(dots<kVectors>(a, d, in), z + place, rows);
  });
}

/// One column of U, or two, whose rows are k apart.
template <int kVectors, int kColumns, class T>
void add_transposed_columns(const T* A, const RowBlock& block, Index d, const double* U, Index k, double* out) {
  Sums<kVectors> first, second;
  for_groups<kVectors>(A, block, d, kFewBytes, [&](const T* a, Index, Index place, Index rows) HWY_ATTR {
    const double* u = U + place * k;
    HWY_ALIGN double some[2 * kLanes] = {};
    const bool is_whole = rows == kLanes;
    for (Index r = 0; r < rows && !is_whole; ++r) some[2 * r] = u[r * k], some[2 * r + 1] = u[r * k + kColumns - 1];
    first.add(a, d, is_whole ? u : some, is_whole ? k : 2);
    if (kColumns == 2) second.add(a, d, (is_whole ? u : some) + 1, is_whole ? k : 2);
  });
  first.add_to(out, d);
  if (kColumns == 2) second.add_to(out + d, d);
}

template <int kVectors, class T>
void add_transposed_rows(const T* A, const RowBlock& block, Index d, const double* U, Index k, double* out) {
  Index c = 0;
  for (; c + 2 <= k; c += 2) add_transposed_columns<kVectors, 2>(A, block, d, U + c, k, out + c * d);
  if (c < k) add_transposed_columns<kVectors, 1>(A, block, d, U + c, k, out + c * d);
}

template <int kVectors, class T>
void add_normal_rows(const T* A, const RowBlock& block, Index d, const double* x, const RowCurvature& weights,
                     double* y, double* out) {
  const Factors<kVectors> in(x, d);
  const Vector centre = hn::Set(D(), weights.centre),
               ridge_of_all = hn::Set(D(), weights.ridge_stride == 0 ? *weights.ridge : 0);
  Vector moment = hn::Zero(D());
  Sums<kVectors> sums;
  for_groups<kVectors>(A, block, d, kFewBesideVectors, [&](const T* a, Index local, Index, Index rows) HWY_ATTR {
    const Vector products = dots<kVectors>(a, d, in);
    store(products, y + local, rows);
    const Vector centred = hn::Mul(load_some(weights.curvature + local, rows), hn::Sub(products, centre));
    moment = hn::Add(moment, centred);
    HWY_ALIGN double u[kLanes];
    const Vector ridge = weights.ridge_stride == 0 ? ridge_of_all : load_some(weights.ridge + local, rows);
    hn::Store(hn::MulAdd(ridge, products, centred), D(), u);
    sums.add(a, d, u, 1);
  });
  sums.add_to(out, d);
  out[d] += hn::GetLane(hn::SumOfLanes(D(), moment));
}

/// Calls body.operator()<kVectors>() with the number of vectors of a row.
template <int kVectors = 1, class Body>
void with_vectors(Index d, Body&& body) {
  if constexpr (kVectors * kLanes < kShortColumns)
    if (d > kVectors * kLanes) return with_vectors<kVectors + 1>(d, body);
  body.template operator()<kVectors>();
}

/// Calls body.operator()<kVectors>(rows) with the rows in their type.
template <class Body>
void with_rows(const DenseBlock& A, Body&& body) {
  with_vectors(A.columns, [&]<int kVectors>() {
    if (const auto* doubles = std::get_if<const double*>(&A.rows)) return body.template operator()<kVectors>(*doubles);
    body.template operator()<kVectors>(std::get<const float*>(A.rows));
  });
}

void multiply_short_of(const DenseBlock& A, const double* x, double* z) {
  with_rows(A, [&]<int kVectors>(const auto* a) { multiply_rows<kVectors>(a, A.block, A.columns, x, z); });
}
void add_transposed_short_of(const DenseBlock& A, const double* U, Index k, double* out) {
  with_rows(A, [&]<int kVectors>(const auto* a) { add_transposed_rows<kVectors>(a, A.block, A.columns, U, k, out); });
}
void add_normal_short_of(const DenseBlock& A, const double* x, const RowCurvature& weights, double* y, double* out) {
  with_rows(A,
            [&]<int kVectors>(const auto* a) { add_normal_rows<kVectors>(a, A.block, A.columns, x, weights, y, out); });
}

}  // namespace attnreg::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace attnreg::kernels {

HWY_EXPORT(multiply_short_of);
HWY_EXPORT(add_transposed_short_of);
HWY_EXPORT(add_normal_short_of);

void multiply_short(const DenseBlock& A, const double* x, double* z) {
  HWY_DYNAMIC_DISPATCH(multiply_short_of)(A, x, z);
}
void add_transpose_multiply_short(const DenseBlock& A, const double* U, Index k, double* out) {
  HWY_DYNAMIC_DISPATCH(add_transposed_short_of)(A, U, k, out);
}
void add_normal_product_short(const DenseBlock& A, const double* x, const RowCurvature& weights, double* y,
                              double* out) {
  HWY_DYNAMIC_DISPATCH(add_normal_short_of)(A, x, weights, y, out);
}

}  // namespace attnreg::kernels

#endif
