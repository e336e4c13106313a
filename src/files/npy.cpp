#include <algorithm>

#include "attnreg/files.hpp"
#include "files/byte_order.hpp"
#include "files/input_file.hpp"
#include "files/npy_header.hpp"

namespace attnreg {
namespace {

/// Elements [first, first + out.size()) in the order of the file.
template <class Stored, class Scalar>
void read_consecutive(const InputFile& file, const NpyHeader& header, std::int64_t first, std::span<Scalar> out) {
  std::int64_t position = header.data_offset + first * static_cast<std::int64_t>(sizeof(Stored));
  read_converted<Stored>(out, header.big_endian, [&](std::span<Stored> part) {
    const auto bytes = static_cast<std::int64_t>(part.size_bytes());
    file.read(position, part.data(), bytes);
    position += bytes;
  });
}

/// Fortran order: segments of some columns at a time, turned round in a buffer.
template <class Stored, class Scalar>
void read_columns(const InputFile& file, const NpyHeader& header, std::int64_t first, std::int64_t rows,
                  std::span<Scalar> out) {
  constexpr std::int64_t buffer_elements = std::int64_t{1} << 19;
  const std::int64_t columns = header.shape[1];
  const std::int64_t block_columns = std::min<std::int64_t>(columns, 16);
  const std::int64_t block_rows = std::min(rows, buffer_elements / block_columns);
  std::vector<Stored> buffer(static_cast<std::size_t>(block_rows * block_columns));
  for (std::int64_t row = 0; row < rows; row += block_rows) {
    const std::int64_t height = std::min(block_rows, rows - row);
    for (std::int64_t column = 0; column < columns; column += block_columns) {
      const std::int64_t width = std::min(block_columns, columns - column);
      for (std::int64_t k = 0; k < width; ++k) {
        const std::span<Stored> segment(buffer.data() + k * height, static_cast<std::size_t>(height));
        read_consecutive<Stored>(file, header, (column + k) * header.shape[0] + first + row, segment);
      }
      for (std::int64_t i = 0; i < height; ++i) {
        Scalar* const target = out.data() + (row + i) * columns + column;
        for (std::int64_t k = 0; k < width; ++k)
          target[k] = static_cast<Scalar>(buffer[static_cast<std::size_t>(k * height + i)]);
      }
    }
  }
}

template <class Stored, class Scalar>
void read_rows_as(const InputFile& file, const NpyHeader& header, std::int64_t first, std::int64_t rows,
                  std::span<Scalar> out) {
  if (header.fortran_order && header.columns() > 1)
    read_columns<Stored>(file, header, first, rows, out);
  else
    read_consecutive<Stored>(file, header, first * header.columns(), out);
}

template <class Scalar>
void read_rows(const NpyHeader& header, std::int64_t first, std::int64_t rows, std::span<Scalar> out) {
  if (header.shape.empty() || header.shape.size() > 2)
    refuse_file(header.path, "found shape " + header.shape_text() + ", expected (n,) or (n, d)");
  if (first < 0 || rows < 0 || rows > header.shape[0] - first ||
      static_cast<std::int64_t>(out.size()) != rows * header.columns())
    refuse_file(header.path, "rows [" + std::to_string(first) + ", " + std::to_string(first) + " + " +
                                 std::to_string(rows) + ") into " + std::to_string(out.size()) +
                                 " values asked of shape " + header.shape_text());
  if (out.empty()) return;
  const InputFile file(header.path);
  file.check_unchanged(header.file_bytes, header.modified_ns);
  if (header.type == Storage::float32)
    read_rows_as<float>(file, header, first, rows, out);
  else
    read_rows_as<double>(file, header, first, rows, out);
  file.check_unchanged(header.file_bytes, header.modified_ns);
}

}  // namespace

NpyHeader read_npy_header(const std::string& path) {
  const InputFile file(path);
  const std::int64_t file_bytes = file.bytes(), modified_ns = file.modified_ns();
  std::string bytes(static_cast<std::size_t>(std::min(file_bytes, npy_prefix_limit + npy_header_limit)), '\0');
  file.read(0, bytes.data(), static_cast<std::int64_t>(bytes.size()));
  NpyHeader header = parse_npy_header(bytes, file_bytes, path);
  header.modified_ns = modified_ns;
  file.check_unchanged(header.file_bytes, header.modified_ns);
  return header;
}

void read_npy_rows(const NpyHeader& header, std::int64_t first, std::int64_t rows, std::span<double> out) {
  read_rows(header, first, rows, out);
}

void read_npy_rows(const NpyHeader& header, std::int64_t first, std::int64_t rows, std::span<float> out) {
  read_rows(header, first, rows, out);
}

}  // namespace attnreg
