#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "attnreg/row_storage.hpp"

namespace attnreg {

/// The type of the elements of an array in a file, named as NumPy names it.
struct ElementType {
  char kind = 'f';         ///< 'f', 'i', 'u', 'b' (bool), 'V' (bfloat16, if of two bytes); others are no numbers
  std::int64_t bytes = 8;  ///< of one element
  bool big_endian = false;

  /// f2, f4, f8, bfloat16, i1 to i8, u1 to u8, bool.
  bool is_number() const;
  bool is_bfloat16() const { return kind == 'V' && bytes == 2; }
  /// The type in which such numbers are held unless the user wants another: one that has all of them, the smallest of
  /// float, half, bfloat16 and double; of i8 and u8 double, which has those up to 2^53.
  Storage held() const;
  std::string text() const;  ///< "<f8", "|u1", "bfloat16"

  bool operator==(const ElementType&) const = default;
};

/// Local. Numbers from their bytes, out.size() of them; `converted` says how they are rounded. Of bool all but 0 is 1.
template <class Scalar>  // double, float, Eigen::half or Eigen::bfloat16
void decode(const ElementType& type, const char* bytes, std::span<Scalar> out);

/// Local. Whether the bytes of an array of this type are those of `Scalar`s of this machine.
template <class Scalar>
bool is_native(const ElementType& type);

/// Local. Fills `out` from the elements that `read(to, bytes)` gets, so many bytes at a time, one part after another.
template <class Scalar, class Read>
void read_elements(const ElementType& type, std::span<Scalar> out, Read&& read) {
  constexpr std::size_t buffer_bytes = std::size_t{1} << 20;  // stays in the cache
  if (is_native<Scalar>(type)) return read(out.data(), static_cast<std::int64_t>(out.size_bytes()));
  const auto item = static_cast<std::size_t>(type.bytes);
  std::vector<char> buffer(std::min(out.size() * item, buffer_bytes));
  while (!out.empty()) {
    const auto part = out.first(std::min(out.size(), buffer_bytes / item));
    read(buffer.data(), static_cast<std::int64_t>(part.size() * item));
    decode(type, buffer.data(), part);
    out = out.subspan(part.size());
  }
}

}  // namespace attnreg
