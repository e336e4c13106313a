#include "numbers/vector_math.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "numbers/vector_math.cpp"
#include "hwy/foreach_target.h"  // compiles this file once for each kind of vectors
#include "hwy/highway.h"

#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace attnreg::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::ScalableTag<double>;
using Vector = hn::Vec<D>;
using Bits = hn::Vec<hn::RebindToUnsigned<D>>;

/// x = k ln 2 + r with |r| <= ln(2) / 2, and exp(r) - 1 = r + q.
struct Reduced {
  Bits k;  ///< in the lowest 12 bits, two's complement
  Vector r, q;
};

HWY_INLINE Reduced reduce(Vector x) {
  const D d;
  // Adding 1.5 * 2^52 rounds to an integer, which is then in the lowest bits.
  const Vector round = hn::Set(d, 0x1.8p52);
  const Vector shifted = hn::MulAdd(x, hn::Set(d, 0x1.71547652b82fep0), round);  // 1 / ln 2
  const Vector k = hn::Sub(shifted, round);
  // ln 2 in two parts; the first has 42 bits, so that k times it is exact.
  Vector r = hn::NegMulAdd(k, hn::Set(d, 0x1.62e42fefa38p-1), x);
  r = hn::NegMulAdd(k, hn::Set(d, 0x1.ef35793c7673p-45), r);

  // Taylor's series to r^13 / 13!; the next term is below 2^-57.7 of r. Even and odd terms side by side.
  const auto c = [d](double value) { return hn::Set(d, value); };
  const Vector s = hn::Mul(r, r);
  Vector even = hn::MulAdd(s, c(1 / 479001600.0), c(1 / 3628800.0));   // 12!, 10!
  Vector odd = hn::MulAdd(s, c(1 / 6227020800.0), c(1 / 39916800.0));  // 13!, 11!
  even = hn::MulAdd(s, even, c(1 / 40320.0));
  odd = hn::MulAdd(s, odd, c(1 / 362880.0));
  even = hn::MulAdd(s, even, c(1 / 720.0));
  odd = hn::MulAdd(s, odd, c(1 / 5040.0));
  even = hn::MulAdd(s, even, c(1 / 24.0));
  odd = hn::MulAdd(s, odd, c(1 / 120.0));
  even = hn::MulAdd(s, even, c(1 / 2.0));
  odd = hn::MulAdd(s, odd, c(1 / 6.0));
  const hn::RebindToUnsigned<D> du;
  return {hn::BitCast(du, shifted), r, hn::Mul(s, hn::MulAdd(r, odd, even))};
}

HWY_INLINE Vector keep_nan(Vector x, Vector y) { return hn::IfThenElse(hn::IsNaN(x), x, y); }

HWY_INLINE Vector exp_of(Vector x) {
  const D d;
  const hn::RebindToUnsigned<D> du;
  const auto [k, r, q] = reduce(hn::Min(hn::Max(x, hn::Set(d, -746.0)), hn::Set(d, 710.0)));
  // 2^k as 2^(k / 2) 2^(k - k / 2): no factor overflows or is subnormal, and only the last product rounds.
  const auto biased = hn::And(hn::Add(k, hn::Set(du, 2 * 1023)), hn::Set(du, 0xfff));
  const auto half = hn::ShiftRight<1>(biased);
  const Vector scale = hn::BitCast(d, hn::ShiftLeft<52>(half));
  const Vector rest = hn::BitCast(d, hn::ShiftLeft<52>(hn::Sub(biased, half)));
  const Vector one = hn::Set(d, 1.0), high = hn::Add(one, r), low = hn::Sub(r, hn::Sub(high, one));
  const Vector y = hn::Add(high, hn::Add(low, q));
  return keep_nan(x, hn::Mul(hn::Mul(y, scale), rest));
}

// 2^k (1 + r + q) - 1 = ((2^k - 1) + 2^k r) + 2^k q. The first sum is exact where it cancels, q is small: k = 1, r < 0.
HWY_INLINE Vector expm1_of(Vector x) {
  const D d;
  const hn::RebindToUnsigned<D> du;
  const Vector largest = hn::Set(d, 709.0);
  const auto [k, r, q] = reduce(hn::Min(hn::Max(x, hn::Set(d, -50.0)), largest));
  const Vector scale = hn::BitCast(d, hn::ShiftLeft<52>(hn::Add(k, hn::Set(du, 1023))));
  const Vector y = hn::MulAdd(scale, q, hn::MulAdd(scale, r, hn::Sub(scale, hn::Set(d, 1.0))));
  const Vector infinity = hn::Set(d, std::numeric_limits<double>::infinity());
  return keep_nan(x, hn::IfThenElse(hn::Gt(x, largest), infinity, y));
}

template <class Function>
HWY_INLINE void for_each(std::span<const double> x, std::span<double> y, Function function) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= x.size(); i += lanes) hn::StoreU(function(hn::LoadU(d, x.data() + i)), d, y.data() + i);
  if (i == x.size()) return;
  HWY_ALIGN double rest[HWY_MAX_BYTES / sizeof(double)] = {};
  std::copy(x.begin() + static_cast<std::ptrdiff_t>(i), x.end(), rest);
  hn::Store(function(hn::Load(d, rest)), d, rest);
  std::copy_n(rest, x.size() - i, y.begin() + static_cast<std::ptrdiff_t>(i));
}

void exp_all(std::span<const double> x, std::span<double> y) {
  for_each(x, y, [](Vector v) HWY_ATTR { return exp_of(v); });
}

void expm1_all(std::span<const double> x, std::span<double> y) {
  for_each(x, y, [](Vector v) HWY_ATTR { return expm1_of(v); });
}

/// The product of the low half of each lane and a factor.
HWY_INLINE Bits low_times(Bits c, std::uint32_t factor) {
  const hn::RebindToUnsigned<D> du;
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(du, std::uint64_t{factor} * (hn::GetLane(c) & 0xffffffff));
#else
  const hn::Repartition<std::uint32_t, decltype(du)> halves;
  return hn::MulEven(hn::BitCast(halves, c), hn::Set(halves, factor));
#endif
}

/// Word 0 and word 1 of Philox4x32-10, as one number of 64 bits. Words are the low halves of the lanes; what is above
/// them does no harm until the end.
HWY_INLINE Bits philox(Bits index, const PhiloxStream& stream) {
  const hn::RebindToUnsigned<D> du;
  Bits c0 = index, c1 = hn::ShiftRight<32>(index), c2 = hn::Zero(du), c3 = hn::Set(du, stream.iteration);
  auto [key0, key1] = stream.key;
  for (int round = 0; round < 10; ++round) {
    const Bits left = low_times(c0, 0xD2511F53), right = low_times(c2, 0xCD9E8D57);
    c0 = hn::Xor(hn::Xor(hn::ShiftRight<32>(right), c1), hn::Set(du, key0));
    c2 = hn::Xor(hn::Xor(hn::ShiftRight<32>(left), c3), hn::Set(du, key1));
    c1 = right;
    c3 = left;
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return hn::Or(hn::ShiftLeft<32>(c0), hn::And(c1, hn::Set(du, 0xffffffff)));
}

void open_uniforms_all(const PhiloxStream& stream, std::span<double> y) {
  const D d;
  const hn::RebindToUnsigned<D> du;
  const std::size_t lanes = hn::Lanes(d);
  // Bits as the fraction of a number in [2^52, 2^53).
  const auto uniform = [=](std::size_t i) HWY_ATTR {
    const Bits bits = philox(hn::Add(hn::Iota(du, 0), hn::Set(du, stream.first + i)), stream);
    const Bits number = hn::Or(hn::ShiftRight<12>(bits), hn::Set(du, 0x4330000000000000));
    const Vector k = hn::Sub(hn::BitCast(d, number), hn::Set(d, 0x1p52));
    return hn::Mul(hn::Add(k, hn::Set(d, 0.5)), hn::Set(d, 0x1p-52));
  };
  std::size_t i = 0;
  for (; i + 2 * lanes <= y.size(); i += 2 * lanes) {  // side by side: each waits for its products
    const Vector left = uniform(i), right = uniform(i + lanes);
    hn::StoreU(left, d, y.data() + i);
    hn::StoreU(right, d, y.data() + i + lanes);
  }
  HWY_ALIGN double rest[HWY_MAX_BYTES / sizeof(double)];
  for (; i < y.size(); i += lanes) {
    hn::Store(uniform(i), d, rest);
    std::copy_n(rest, std::min(lanes, y.size() - i), y.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

void log_all(std::span<const double> x, std::span<double> y) {
  for_each(x, y, [](Vector v) HWY_ATTR { return hn::Log(D(), v); });
}

}  // namespace attnreg::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attnreg::kernels {

HWY_EXPORT(exp_all);
HWY_EXPORT(expm1_all);
HWY_EXPORT(log_all);
HWY_EXPORT(open_uniforms_all);

void exp(std::span<const double> x, std::span<double> y) { HWY_DYNAMIC_DISPATCH(exp_all)(x, y); }
void expm1(std::span<const double> x, std::span<double> y) { HWY_DYNAMIC_DISPATCH(expm1_all)(x, y); }
void log(std::span<const double> x, std::span<double> y) { HWY_DYNAMIC_DISPATCH(log_all)(x, y); }
void open_uniforms(const PhiloxStream& stream, std::span<double> y) {
  HWY_DYNAMIC_DISPATCH(open_uniforms_all)(stream, y);
}

}  // namespace attnreg::kernels
#endif
