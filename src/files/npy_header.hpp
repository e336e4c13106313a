#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "files/npy_file.hpp"

namespace attnreg {

/// The longest header that is read; NumPy's own are 128 bytes.
inline constexpr std::int64_t npy_header_limit = 65536;

/// Bytes of magic string, version and length before the text of the header: 10 in version 1, 12 later.
inline constexpr std::int64_t npy_prefix_limit = 12;

/// Bytes of one element.
std::int64_t npy_item_bytes(Storage type);

/// The header of an array of any type that is not structured.
struct NpyArray {
  std::string path;             ///< of the file, with the member of an archive
  std::string dtype;            ///< as in the header, "<f8"
  char kind = 'f';              ///< 'f', 'i', 'u', 'S', 'U', ..., as in dtype
  std::int64_t item_bytes = 8;  ///< of one element
  bool big_endian = false;
  bool fortran_order = false;
  int version_major = 1;
  std::vector<std::int64_t> shape;
  std::int64_t data_offset = 0;  ///< bytes before the first element
  std::int64_t bytes = 0;        ///< of the whole

  std::int64_t elements() const;
  std::string shape_text() const;  ///< as NumPy prints it, "(65901, 100)" or "(7,)"
};

/// Like `parse_npy_header`, for every type whose elements have a size; `allowed`, if not empty, lists those that are
/// not an error ("f4 f8"), without byte order.
NpyArray parse_npy_array(std::string_view bytes, std::int64_t file_bytes, const std::string& path,
                         std::string_view allowed = {});

/// Parses the first bytes of a file of `file_bytes` bytes: all of them, or prefix and header limit if there are more.
/// The text of the header is a Python dictionary with exactly the keys descr, fortran_order and shape in any order;
/// nothing is evaluated and nothing is allocated beyond the size of the text. Throws `InvalidArgument` (this rank).
NpyHeader parse_npy_header(std::string_view bytes, std::int64_t file_bytes, const std::string& path);

/// The bytes before the first element, as NumPy writes them: version 1, little endian, multiple of 64.
std::string npy_header_bytes(Storage type, const std::vector<std::int64_t>& shape);
std::string npy_header_bytes(std::string_view dtype, const std::vector<std::int64_t>& shape,
                             bool fortran_order = false);

}  // namespace attnreg
