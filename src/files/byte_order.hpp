#pragma once

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

/// A number of IEEE 754 binary16, NumPy's float16: 11 bits, 6e-8 to 65504.
struct Half {
  std::uint16_t bits = 0;

  /// Exact, as float has all of them.
  template <class Scalar>
  explicit operator Scalar() const {
    // The bits in their places of a float, whose exponents are 112 larger; a vector loop, without branches.
    const std::uint32_t size = std::uint32_t{bits & 0x7fffu} << 13, sign = std::uint32_t{bits & 0x8000u} << 16;
    const float scaled = std::bit_cast<float>(size) * 0x1p112f;
    const std::uint32_t special = size >= 0x0f800000u ? 0x7f800000u : 0u;  // infinite, or NaN
    return static_cast<Scalar>(std::bit_cast<float>(std::bit_cast<std::uint32_t>(scaled) | special | sign));
  }
};

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

/// Local. The number in another type. A double that float cannot hold, as it is too large or so small that it loses its
/// digits, becomes a number that is not finite: the check for those finds it.
template <class Scalar, class Stored>
Scalar converted(Stored value) {
  const auto result = static_cast<Scalar>(value);
  if constexpr (std::is_same_v<Stored, double> && std::is_same_v<Scalar, float>) {
    const bool lost = std::abs(result) < std::numeric_limits<float>::min() && static_cast<double>(result) != value;
    return lost ? std::numeric_limits<float>::quiet_NaN() : result;
  }
  return result;
}

/// Local. Fills `out` from numbers that are stored as `Stored`: `read(part)` gets the next of them as they are stored.
template <class Stored, class Scalar, class Read>
void read_converted(std::span<Scalar> out, bool big_endian, Read&& read) {
  constexpr std::size_t buffer_elements = std::size_t{1} << 17;  // at most 1 MiB: stays in the cache
  const auto read_native = [&](std::span<Stored> part) {
    read(part);
    if (big_endian != (std::endian::native == std::endian::big)) swap_bytes(part);
  };
  if constexpr (std::is_same_v<Stored, Scalar>) {
    read_native(out);
  } else {
    std::vector<Stored> buffer(std::min(out.size(), buffer_elements));
    while (!out.empty()) {
      const std::span<Stored> part(buffer.data(), std::min(out.size(), buffer.size()));
      read_native(part);
      std::ranges::transform(part, out.begin(), converted<Scalar, Stored>);
      out = out.subspan(part.size());
    }
  }
}

}  // namespace attnreg
