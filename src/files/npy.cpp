#include <algorithm>
#include <bit>

#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "files/byte_order.hpp"
#include "files/input_file.hpp"
#include "files/npy_header.hpp"
#include "files/output_file.hpp"

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
          target[k] = converted<Scalar>(buffer[static_cast<std::size_t>(k * height + i)]);
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

/// The header of the part of the array that has these places along the first axes.
void take_part(NpyArray& header, const std::vector<std::int64_t>& places) {
  if (places.empty()) return;
  const std::string shape = "the array has shape " + header.shape_text();
  if (places.size() >= header.shape.size())
    refuse_file(header.path, shape + ", and a part of it at least one axis; give fewer places in brackets");
  if (header.fortran_order)
    refuse_file(header.path, shape + " in Fortran order; of parts of it numpy.save(..., numpy.ascontiguousarray(a))");
  for (const std::int64_t place : places) {
    const std::int64_t extent = header.shape.front();
    if (place >= extent)
      refuse_file(header.path, shape + ", and no part " + std::to_string(place) + " of " + std::to_string(extent) +
                                   "; they are counted from 0");
    header.shape.erase(header.shape.begin());
    header.data_offset += place * header.elements() * header.item_bytes;
  }
}

[[noreturn]] void refuse_writing(const std::string& path, const std::string& problem) {
  throw OutputError("cannot write " + printable(path) + ": " + problem);
}

struct Extents {
  std::int64_t rows, columns;  ///< the first extent, and the product of the others
};

Extents extents_of(const std::string& path, Storage type, const std::vector<std::int64_t>& shape) {
  if (shape.empty() || shape.size() > 3)
    refuse_writing(path, "the shape has " + std::to_string(shape.size()) + " extents, expected 1 to 3");
  std::int64_t bytes = item_bytes(type), columns = 1;
  bool fits = true;
  for (const std::int64_t extent : shape) fits = fits && extent >= 0 && !__builtin_mul_overflow(bytes, extent, &bytes);
  for (std::size_t k = 1; fits && k < shape.size(); ++k) fits = !__builtin_mul_overflow(columns, shape[k], &columns);
  if (!fits) {
    std::string text;
    for (const std::int64_t extent : shape) text += (text.empty() ? "" : ", ") + std::to_string(extent);
    refuse_writing(path, "no file can have the shape (" + text + ")");
  }
  return {shape[0], columns};
}

template <class File>
void write_values(File& file, std::int64_t offset, Storage type, std::span<const double> values) {
  if (type == Storage::float64 && std::endian::native == std::endian::little)
    return file.write(offset, {reinterpret_cast<const char*>(values.data()), values.size_bytes()});
  constexpr std::size_t elements_per_write = std::size_t{1} << 17;
  while (!values.empty()) {
    const auto part = values.first(std::min(values.size(), elements_per_write));
    const std::string bytes = type == Storage::float32 ? little_endian(std::vector<float>(part.begin(), part.end()))
                                                       : little_endian(std::vector<double>(part.begin(), part.end()));
    file.write(offset, bytes);
    offset += static_cast<std::int64_t>(bytes.size());
    values = values.subspan(part.size());
  }
}

}  // namespace

NpyArray read_npy_array(const std::string& path, bool only_floats) {
  const NpyName name = npy_name(path);
  const InputFile file(name.file);
  const std::int64_t file_bytes = file.bytes(), modified_ns = file.modified_ns();
  std::string bytes(static_cast<std::size_t>(std::min(file_bytes, npy_prefix_limit + npy_header_limit)), '\0');
  file.read(0, bytes.data(), static_cast<std::int64_t>(bytes.size()));
  NpyArray header = parse_npy_array(bytes, file_bytes, path, only_floats);
  header.file = name.file;
  header.modified_ns = modified_ns;
  file.check_unchanged(header.file_bytes, header.modified_ns);
  take_part(header, name.places);
  return header;
}

NpyHeader read_npy_header(const std::string& path) { return read_npy_array(path, true); }

template <class Scalar>
void read_npy_rows(const NpyHeader& header, std::int64_t first, std::int64_t rows, std::span<Scalar> out) {
  if (header.shape.empty() || header.shape.size() > 2)
    refuse_file(header.path, "found shape " + header.shape_text() + ", expected (n,) or (n, d)");
  if (first < 0 || rows < 0 || rows > header.shape[0] - first ||
      static_cast<std::int64_t>(out.size()) != rows * header.columns())
    refuse_file(header.path, "rows [" + std::to_string(first) + ", " + std::to_string(first) + " + " +
                                 std::to_string(rows) + ") into " + std::to_string(out.size()) +
                                 " values asked of shape " + header.shape_text());
  if (out.empty()) return;
  const InputFile file(header.file);
  file.check_unchanged(header.file_bytes, header.modified_ns);
  if (header.type == Storage::float16)
    read_rows_as<Eigen::half>(file, header, first, rows, out);
  else if (header.type == Storage::float32)
    read_rows_as<float>(file, header, first, rows, out);
  else
    read_rows_as<double>(file, header, first, rows, out);
  file.check_unchanged(header.file_bytes, header.modified_ns);
}
template void read_npy_rows(const NpyHeader&, std::int64_t, std::int64_t, std::span<double>);
template void read_npy_rows(const NpyHeader&, std::int64_t, std::int64_t, std::span<float>);
template void read_npy_rows(const NpyHeader&, std::int64_t, std::int64_t, std::span<Eigen::half>);
template void read_npy_rows(const NpyHeader&, std::int64_t, std::int64_t, std::span<Eigen::bfloat16>);

void write_npy(const std::string& path, std::span<const double> values, const std::vector<std::int64_t>& shape) {
  OutputFile file(path);
  write_npy(file, path, values, shape);
}

void write_npy(OutputFile& file, const std::string& path, std::span<const double> values,
               const std::vector<std::int64_t>& shape) {
  const Extents extents = extents_of(path, Storage::float64, shape);
  if (extents.rows * extents.columns != static_cast<std::int64_t>(values.size()))
    refuse_writing(path, std::to_string(values.size()) + " values given for a shape of " +
                             std::to_string(extents.rows * extents.columns));
  const std::string header = npy_header_bytes(npy_dtype(Storage::float64), shape);
  file.write(0, header);
  write_values(file, static_cast<std::int64_t>(header.size()), Storage::float64, values);
  file.cut(static_cast<std::int64_t>(header.size() + values.size_bytes()));
  file.publish();
}

void write_npy(const Communicator& communicator, const std::string& path, const std::vector<std::int64_t>& shape,
               std::int64_t first, std::span<const double> values) {
  NpyWriter writer(communicator, path, Storage::float64, shape);
  writer.write_rows(first, values);
  writer.commit();
}

NpyWriter::NpyWriter(const Communicator& communicator, std::string path, Storage type, std::vector<std::int64_t> shape)
    : type_(type) {
  communicator.agree([&] {
    const Extents extents = extents_of(path, type, shape);
    rows_ = extents.rows;
    columns_ = extents.columns;
  });
  const ArrayFormat format{{}, npy_dtype(type), item_bytes(type), std::move(shape)};
  file_ = std::make_unique<SharedArray>(communicator, std::move(path), format);
}

NpyWriter::~NpyWriter() = default;

void NpyWriter::write_rows(std::int64_t first, std::span<const double> rows) noexcept {
  if (rows.empty()) return;
  try {
    const auto values = static_cast<std::int64_t>(rows.size());
    if (columns_ == 0 || values % columns_ != 0 || first < 0 || first > rows_ || values / columns_ > rows_ - first)
      refuse_writing(file_->path(), std::to_string(values) + " values given from row " + std::to_string(first) +
                                        " of shape (" + std::to_string(rows_) + ", " + std::to_string(columns_) + ")");
    write_values(*file_, first * columns_ * item_bytes(type_), type_, rows);
  } catch (const std::exception& error) {
    file_->keep_error(error.what());
  }
}

void NpyWriter::commit() { file_->commit(); }

}  // namespace attnreg
