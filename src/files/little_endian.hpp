#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

namespace attnreg {

/// Local. The bytes of numbers, least significant byte first on any machine.
template <class Scalar>
std::string little_endian(const std::vector<Scalar>& values) {
  std::string bytes(values.size() * sizeof(Scalar), '\0');
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  if constexpr (std::endian::native == std::endian::big)
    for (std::size_t k = 0; k < bytes.size(); k += sizeof(Scalar))
      std::reverse(bytes.begin() + static_cast<std::ptrdiff_t>(k),
                   bytes.begin() + static_cast<std::ptrdiff_t>(k + sizeof(Scalar)));
  return bytes;
}

}  // namespace attnreg
