#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>

#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "files/npy_header.hpp"
#include "files/output_file.hpp"
#include "files/shared_file.hpp"

namespace attnreg {
namespace {

constexpr std::size_t elements_per_write = std::size_t{1} << 17;

[[noreturn]] void refuse_writing(const std::string& path, const std::string& problem) {
  throw OutputError("cannot write " + printable(path) + ": " + problem);
}

struct Extents {
  std::int64_t rows, columns;
};

Extents extents_of(const std::string& path, Storage type, const std::vector<std::int64_t>& shape) {
  if (shape.empty() || shape.size() > 2) {
    refuse_writing(path, "the shape has " + std::to_string(shape.size()) + " extents, expected 1 or 2");
  }
  const Extents extents{shape[0], shape.size() == 2 ? shape[1] : 1};
  std::int64_t bytes = 0;
  if (extents.rows < 0 || extents.columns < 0 || __builtin_mul_overflow(extents.rows, extents.columns, &bytes) ||
      __builtin_mul_overflow(bytes, npy_item_bytes(type), &bytes)) {
    refuse_writing(path, "no file can have the shape (" + std::to_string(extents.rows) + ", " +
                             std::to_string(extents.columns) + ")");
  }
  return extents;
}

template <class Stored>
void append_little_endian(std::string& bytes, double value) {
  char item[sizeof(Stored)];
  const auto stored = static_cast<Stored>(value);
  std::memcpy(item, &stored, sizeof item);
  if constexpr (std::endian::native == std::endian::big) std::reverse(item, item + sizeof item);
  bytes.append(item, sizeof item);
}

template <class File>
void write_values(File& file, std::int64_t offset, Storage type, std::span<const double> values) {
  if (type == Storage::float64 && std::endian::native == std::endian::little) {
    file.write(offset, {reinterpret_cast<const char*>(values.data()), values.size_bytes()});
    return;
  }
  std::string bytes;
  while (!values.empty()) {
    const auto part = values.first(std::min(values.size(), elements_per_write));
    bytes.clear();
    for (const double value : part) {
      if (type == Storage::float32) append_little_endian<float>(bytes, value);
      if (type == Storage::float64) append_little_endian<double>(bytes, value);
    }
    file.write(offset, bytes);
    offset += static_cast<std::int64_t>(bytes.size());
    values = values.subspan(part.size());
  }
}

}  // namespace

void write_npy(const std::string& path, std::span<const double> values, const std::vector<std::int64_t>& shape) {
  const Extents extents = extents_of(path, Storage::float64, shape);
  if (extents.rows * extents.columns != static_cast<std::int64_t>(values.size())) {
    refuse_writing(path, std::to_string(values.size()) + " values given for a shape of " +
                             std::to_string(extents.rows * extents.columns));
  }
  const std::string header = npy_header_bytes(Storage::float64, shape);
  OutputFile file(path);
  file.write(0, header);
  write_values(file, static_cast<std::int64_t>(header.size()), Storage::float64, values);
  file.publish();
}

NpyWriter::NpyWriter(const Communicator& communicator, std::string path, Storage type, std::vector<std::int64_t> shape)
    : type_(type), rows_(0), columns_(0) {
  communicator.agree([&] {
    const Extents extents = extents_of(path, type, shape);
    rows_ = extents.rows;
    columns_ = extents.columns;
  });
  const std::string header = npy_header_bytes(type, shape);
  data_offset_ = static_cast<std::int64_t>(header.size());
  file_ = std::make_unique<SharedFile>(communicator, std::move(path),
                                       data_offset_ + rows_ * columns_ * npy_item_bytes(type));
  if (communicator.is_root()) file_->write(0, header);
}

NpyWriter::~NpyWriter() = default;

void NpyWriter::write_rows(std::int64_t first, std::span<const double> rows) noexcept {
  try {
    write_checked(first, rows);
  } catch (const std::exception& error) {
    file_->keep_error(error.what());
  }
}

void NpyWriter::write_checked(std::int64_t first, std::span<const double> rows) {
  if (rows.empty()) return;
  const auto values = static_cast<std::int64_t>(rows.size());
  if (columns_ == 0 || values % columns_ != 0 || first < 0 || first > rows_ || values / columns_ > rows_ - first) {
    refuse_writing(file_->path(), std::to_string(values) + " values given from row " + std::to_string(first) +
                                      " of shape (" + std::to_string(rows_) + ", " + std::to_string(columns_) + ")");
  }
  write_values(*file_, data_offset_ + first * columns_ * npy_item_bytes(type_), type_, rows);
}

void NpyWriter::commit() { file_->commit(); }

}  // namespace attnreg
