#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "attnreg/row_storage.hpp"

namespace attnreg {

/// The header of a NumPy .npy file (format versions 1 to 3), checked against the size of the file.
struct NpyHeader {
  std::string path;
  Storage type = Storage::float64;  ///< f4 or f8; every other dtype is refused
  bool big_endian = false;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;  ///< 1 or 2 extents for all that attnreg reads
  std::int64_t data_offset = 0;     ///< bytes before the first element
  std::int64_t file_bytes = 0;      ///< size and time of modification when the header was read;
  std::int64_t modified_ns = 0;     ///< a later change is an error
  int version_major = 1;

  std::int64_t elements() const;
  std::string shape_text() const;  ///< as NumPy prints it, "(65901, 100)" or "(7,)"
  std::string dtype_text() const;  ///< "<f8"
};

/// Local. Reads and checks the header; throws `InvalidArgument` (this rank) with file, place, found, expected: not a
/// .npy file, truncated header, header over 64 KiB, unknown dtype, shape that overflows, file size that does not fit.
NpyHeader read_npy_header(const std::string& path);

/// Local. Reads rows [first, first + rows) of a 1-d or 2-d file into `out` (row-major, rows x columns), converting
/// type and byte order; only those bytes are read (pread). Throws `InvalidArgument` (this rank) on a short read and if
/// the file has changed since its header was read.
void read_npy_rows(const NpyHeader& header, std::int64_t first, std::int64_t rows, std::span<double> out);
void read_npy_rows(const NpyHeader& header, std::int64_t first, std::int64_t rows, std::span<float> out);

}  // namespace attnreg
