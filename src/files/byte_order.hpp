#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace attnreg {

/// Local. Turns round the bytes of each number, of 2, 4 or 8 bytes.
template <class Scalar>
void swap_bytes(std::span<Scalar> values) {
  using Bits = std::conditional_t<sizeof(Scalar) == 2, std::uint16_t,
                                  std::conditional_t<sizeof(Scalar) == 4, std::uint32_t, std::uint64_t>>;
  for (Scalar& value : values) {
    const Bits bits = std::bit_cast<Bits>(value);
    if constexpr (sizeof(Scalar) == 2) value = std::bit_cast<Scalar>(__builtin_bswap16(bits));
    if constexpr (sizeof(Scalar) == 4) value = std::bit_cast<Scalar>(__builtin_bswap32(bits));
    if constexpr (sizeof(Scalar) == 8) value = std::bit_cast<Scalar>(__builtin_bswap64(bits));
  }
}

/// Local. The bytes of numbers, least significant byte first on any machine.
template <class Scalar>
std::string little_endian(std::vector<Scalar> values) {
  if constexpr (std::endian::native == std::endian::big) swap_bytes(std::span(values));
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(Scalar)};
}

template <class Scalar>
constexpr bool is_half = std::is_same_v<Scalar, Eigen::half>;
template <class Scalar>
constexpr bool is_short = is_half<Scalar> || std::is_same_v<Scalar, Eigen::bfloat16>;  // of two bytes

/// Local. Exact, as float has all numbers of half.
inline float to_float(Eigen::half value) {
  // The bits in their places of a float, whose exponents are 112 larger; a vector loop, without branches.
  const auto bits = std::bit_cast<std::uint16_t>(value);
  const std::uint32_t size = std::uint32_t{bits & 0x7fffu} << 13, sign = std::uint32_t{bits & 0x8000u} << 16;
  const float scaled = std::bit_cast<float>(size) * 0x1p112f;
  const std::uint32_t special = size >= 0x0f800000u ? 0x7f800000u : 0u;  // infinite, or NaN
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(scaled) | special | sign);
}

/// Local. Rounded to odd, so that rounding once more, to 22 bits or fewer, gives what rounding once would: if float
/// does not have the number, the one of its neighbours there whose last bit is 1 (Boldo, Melquiond 2008).
inline float to_odd_float(double value) {
  const auto nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) == value || !std::isfinite(nearest)) return nearest;
  auto bits = std::bit_cast<std::uint32_t>(nearest);
  if (std::abs(static_cast<double>(nearest)) > std::abs(value)) --bits;  // towards 0
  return std::bit_cast<float>(bits | 1);
}

/// Local. The number in another type, rounded to the nearest. One that float or bfloat16 cannot hold, as it is too
/// large or so small that it loses its digits, becomes a number that is not finite: the check for those finds it; for
/// half, one that is too large does.
template <class Scalar, class Stored>
Scalar converted(Stored value) {
  if constexpr (std::is_same_v<Stored, Scalar>) {
    return value;
  } else if constexpr (is_half<Stored>) {
    return converted<Scalar>(to_float(value));
  } else if constexpr (is_half<Scalar>) {
    return Eigen::half(to_odd_float(value));
  } else {
    Scalar result;
    if constexpr (is_short<Scalar>)
      result = Scalar(to_odd_float(value));
    else
      result = static_cast<Scalar>(value);
    if constexpr (std::is_floating_point_v<Stored> && sizeof(Scalar) < sizeof(Stored)) {
      const auto back = static_cast<double>(static_cast<float>(result));
      const bool lost = std::abs(back) < std::numeric_limits<float>::min() && back != static_cast<double>(value);
      if (lost) result = std::numeric_limits<Scalar>::quiet_NaN();
    }
    return result;
  }
}

}  // namespace attnreg
