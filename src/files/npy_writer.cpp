#include <algorithm>
#include <bit>

#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "files/byte_order.hpp"
#include "files/npy_header.hpp"
#include "files/output_file.hpp"

namespace attnreg {

namespace {

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

void write_integers(const Communicator& communicator, const std::string& path, std::vector<std::int64_t> values,
                    std::int64_t first, std::int64_t size) {
  SharedArray file(communicator, path, {{}, "<i8", sizeof(std::int64_t), {size}});
  if (!values.empty())
    file.write(first * static_cast<std::int64_t>(sizeof(std::int64_t)), little_endian(std::move(values)));
  file.commit();
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
  } catch (const std::exception&) {
    file_->keep(std::current_exception());
  }
}

void NpyWriter::commit() { file_->commit(); }

}  // namespace attnreg
