#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace attnreg::test {

/// A .npy file made by hand: magic, version, little-endian length, the text of the header as it is, data.
inline std::string npy_bytes(std::string_view header, std::string_view data, int version = 1) {
  std::string bytes = "\x93NUMPY";
  bytes += {static_cast<char>(version), '\0'};
  for (int k = 0; k < (version == 1 ? 2 : 4); ++k) bytes += static_cast<char>((header.size() >> (8 * k)) & 0xff);
  return bytes.append(header).append(data);
}

/// The dictionary, in NumPy's own spelling.
inline std::string npy_dictionary(std::string_view descr, bool fortran_order, std::string_view shape) {
  std::string text = "{'descr': '";
  text.append(descr).append("', 'fortran_order': ").append(fortran_order ? "True" : "False");
  return text.append(", 'shape': ").append(shape).append(", }\n");
}

/// The bits of the values, least (or most) significant byte first on any machine.
template <class Scalar>
std::string scalar_bytes(const std::vector<Scalar>& values, bool big_endian = false) {
  using Bits = std::conditional_t<sizeof(Scalar) == 4, std::uint32_t, std::uint64_t>;
  std::string bytes;
  for (const Scalar value : values) {
    Bits bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    std::string item;
    for (std::size_t k = 0; k < sizeof bits; ++k) item += static_cast<char>((bits >> (8 * k)) & 0xff);
    if (big_endian) std::reverse(item.begin(), item.end());
    bytes += item;
  }
  return bytes;
}

/// A row-major n x d list in Fortran order.
template <class Scalar>
std::vector<Scalar> column_major(const std::vector<Scalar>& rows, std::size_t columns) {
  std::vector<Scalar> result;
  for (std::size_t j = 0; j < columns; ++j) {
    for (std::size_t k = j; k < rows.size(); k += columns) result.push_back(rows[k]);
  }
  return result;
}

}  // namespace attnreg::test
