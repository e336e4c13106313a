#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attnreg/npy.hpp"

namespace attnreg {

/// The longest header that is read; NumPy's own are 128 bytes.
inline constexpr std::int64_t npy_header_limit = 65536;

/// Bytes of magic string, version and length before the text of the header: 10 in version 1, 12 later.
inline constexpr std::int64_t npy_prefix_limit = 12;

/// Bytes of one element.
std::int64_t npy_item_bytes(Storage type);

/// Parses the first bytes of a file of `file_bytes` bytes: all of them, or prefix and header limit if there are more.
/// The text of the header is a Python dictionary with exactly the keys descr, fortran_order and shape in any order;
/// nothing is evaluated and nothing is allocated beyond the size of the text. Throws `InvalidArgument` (this rank).
NpyHeader parse_npy_header(std::string_view bytes, std::int64_t file_bytes, const std::string& path);

/// The bytes before the first element, as NumPy writes them: version 1, C order, little endian, multiple of 64.
std::string npy_header_bytes(Storage type, const std::vector<std::int64_t>& shape);

}  // namespace attnreg
