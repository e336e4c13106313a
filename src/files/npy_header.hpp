#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "attnreg/files.hpp"

namespace attnreg {

/// The longest header that is read; NumPy's own are 128 bytes.
inline constexpr std::int64_t npy_header_limit = 65536;

/// Bytes of magic string, version and length before the text of the header: 10 in version 1, 12 later.
inline constexpr std::int64_t npy_prefix_limit = 12;

/// "<f8"; NumPy has no bfloat16.
std::string npy_dtype(Storage type);

/// The type in which values of a file of `type` are held.
Storage held_as(StorageChoice choice, Storage type);
/// The same where they are held in double or in float, of half or bfloat16 in float.
Storage held_as_float(StorageChoice choice, Storage type);

/// The header of a NumPy .npy file (format versions 1 to 3), checked against the size of the file.
struct NpyHeader {
  std::string path;                 ///< as it was given, and so in messages: "F.npy[3]"
  std::string file;                 ///< what is opened, "F.npy"
  Storage type = Storage::float64;  ///< f8, f4 or f2; every other dtype is refused
  bool big_endian = false;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;  ///< 1 or 2 extents for all that attnreg reads
  std::int64_t data_offset = 0;     ///< bytes before the first element
  std::int64_t file_bytes = 0;      ///< size and time of modification when the header was read;
  std::int64_t modified_ns = 0;     ///< a later change is an error
  int version_major = 1;

  std::int64_t elements() const;
  std::int64_t columns() const { return shape.size() > 1 ? shape[1] : 1; }  ///< of a matrix; a vector is one column
  std::string shape_text() const;  ///< as NumPy prints it, "(65901, 100)" or "(7,)"
  std::string dtype_text() const;  ///< "<f8"
};

/// "F.npy[3,7]" in its parts: the name of a file, and places along the first axes of its array, which name a part of it
/// as in NumPy. A file that is really called so comes first; then there are no places.
struct NpyName {
  std::string file;
  std::vector<std::int64_t> places;
};
NpyName npy_name(const std::string& path);
/// The name of a part of what `path` names: "F.npy[3]", "F.npy[3,7]" of "F.npy[3]".
std::string npy_part(const std::string& path, std::int64_t place);

/// Local. Reads and checks the header; throws `InvalidArgument` (this rank) with file, place, found, expected: not a
/// .npy file, truncated header, header over 64 KiB, unknown dtype, shape that overflows, file size that does not fit.
/// path: of a file, or with places behind it, of a part of an array in C order: shape and offset are those of the part.
NpyHeader read_npy_header(const std::string& path);

/// Local. Reads rows [first, first + rows) of a 1-d or 2-d file into `out` (row-major, rows x columns), converting
/// type and byte order; only those bytes are read (pread). Throws `InvalidArgument` (this rank) on a short read and if
/// the file has changed since its header was read.
template <class Scalar>  // double, float, Eigen::half or Eigen::bfloat16
void read_npy_rows(const NpyHeader& header, std::int64_t first, std::int64_t rows, std::span<Scalar> out);

/// The header of an array of any type that is not structured; `path` has the file and the member of an archive, `type`
/// is that of f2, f4 and f8.
struct NpyArray : NpyHeader {
  std::string dtype;            ///< as in the header, "<f8"
  char kind = 'f';              ///< 'f', 'i', 'u', 'S', 'U', ..., as in dtype
  std::int64_t item_bytes = 8;  ///< of one element
};

/// Local. Like `read_npy_header`, for every type whose elements have a size, unless `only_floats`.
NpyArray read_npy_array(const std::string& path, bool only_floats = false);

/// Like `parse_npy_header`, for every type whose elements have a size, unless `only_floats`.
NpyArray parse_npy_array(std::string_view bytes, std::int64_t file_bytes, const std::string& path,
                         bool only_floats = false);

/// Parses the first bytes of a file of `file_bytes` bytes: all of them, or prefix and header limit if there are more.
/// The text of the header is a Python dictionary with exactly the keys descr, fortran_order and shape in any order;
/// nothing is evaluated and nothing is allocated beyond the size of the text. Throws `InvalidArgument` (this rank).
NpyHeader parse_npy_header(std::string_view bytes, std::int64_t file_bytes, const std::string& path);

/// The bytes before the first element, as NumPy writes them: version 1, little endian, multiple of 64.
std::string npy_header_bytes(std::string_view dtype, const std::vector<std::int64_t>& shape,
                             bool fortran_order = false);

}  // namespace attnreg
