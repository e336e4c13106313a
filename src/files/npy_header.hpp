#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attnreg/files.hpp"
#include "files/element_type.hpp"

namespace attnreg {

/// The longest header that is read; NumPy's own are 128 bytes.
inline constexpr std::int64_t npy_header_limit = 65536;

/// Bytes of magic string, version and length before the text of the header: 10 in version 1, 12 later.
inline constexpr std::int64_t npy_prefix_limit = 12;

inline constexpr std::string_view npy_magic = "\x93NUMPY";

/// "<f8"; NumPy has no bfloat16.
std::string npy_dtype(Storage type);

/// The type in which values of a file of `type` are held.
Storage held_as(StorageChoice choice, Storage type);
/// The same where they are held in double or in float, of half or bfloat16 in float.
Storage held_as_float(StorageChoice choice, Storage type);

/// What is known of an array without its elements.
struct ArrayHeader {
  std::string path;  ///< as it was given, with the member of an archive, and so in messages
  ElementType element;
  std::string dtype;  ///< as it is in the header, "<f8"
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
  std::int64_t data_offset = 0;  ///< bytes before the first element
  std::int64_t file_bytes = 0;   ///< of the file, or of the member of an archive
  int version_major = 1;         ///< of the format .npy

  std::int64_t elements() const;
  std::int64_t columns() const { return shape.size() > 1 ? shape[1] : 1; }  ///< of a matrix; a vector is one column
  std::string shape_text() const;  ///< as NumPy prints it, "(65901, 100)" or "(7,)"
  std::string dtype_text() const { return element.text(); }
};

/// Parses the first bytes of a NumPy .npy file (format versions 1 to 3) of `file_bytes` bytes: all of them, or prefix
/// and header limit if there are more; for every type whose elements have a size. The text of the header is a Python
/// dictionary with exactly the keys descr, fortran_order and shape in any order; nothing is evaluated and nothing is
/// allocated beyond the size of the text. Throws `InvalidArgument` (this rank) with file, place, found, expected: not a
/// .npy file, truncated header, header over 64 KiB, unknown dtype, shape that overflows, file size that does not fit.
ArrayHeader parse_npy_array(std::string_view bytes, std::int64_t file_bytes, const std::string& path);
/// The same for numbers only.
ArrayHeader parse_npy_header(std::string_view bytes, std::int64_t file_bytes, const std::string& path);

/// The same of a file whose end is not there yet: its size is the one that fits.
ArrayHeader parse_npy_start(std::string_view bytes, const std::string& path);
/// Bytes up to the first element; those of the prefix, npy_prefix_limit, must be there. 0: it is no .npy file.
std::int64_t npy_data_offset(std::string_view bytes);

/// Local. Throws `InvalidArgument` (this rank), with the conversion that helps, unless the elements are numbers.
void require_numbers(const ArrayHeader& header);

/// Bytes of such elements; throws `InvalidArgument` (this rank) if they are more than 2^63, with those of extents 0
/// counted as 1.
std::int64_t array_bytes(const ArrayHeader& header);

/// "(3, 4)", "(7,)"
std::string shape_text(const std::vector<std::int64_t>& shape);

/// The bytes before the first element, as NumPy writes them: version 1, little endian, multiple of 64.
std::string npy_header_bytes(std::string_view dtype, const std::vector<std::int64_t>& shape,
                             bool fortran_order = false);

}  // namespace attnreg
