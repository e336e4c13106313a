#include "files/source.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "errors/printable.hpp"
#include "files/hdf5.hpp"
#include "files/input_file.hpp"
#include "files/matrix_market.hpp"
#include "files/npz_archive.hpp"
#include "files/piped_array.hpp"
#include "files/safetensors.hpp"
#include "files/source_name.hpp"
#include "files/svmlight.hpp"
#include "files/text_table.hpp"

namespace attnreg {
namespace {

/// Of a .npy or .safetensors file.
class FileBytes : public ArrayBytes {
 public:
  explicit FileBytes(const Source& source)
      : file_(source.file), offset_(source.data_offset), bytes_(source.disk_bytes), modified_ns_(source.modified_ns) {}
  void read(std::int64_t position, void* out, std::int64_t size) override { file_.read(offset_ + position, out, size); }
  void check_unchanged() const override { file_.check_unchanged(bytes_, modified_ns_); }

 private:
  InputFile file_;
  std::int64_t offset_, bytes_, modified_ns_;
};

/// Of an array in an archive.
class MemberBytes : public ArrayBytes {
 public:
  explicit MemberBytes(const Source& source)
      : archive_(source.file),
        member_(archive_, source.member),
        bytes_(source.disk_bytes),
        modified_ns_(source.modified_ns) {}
  void read(std::int64_t position, void* out, std::int64_t size) override { member_.read_data(position, out, size); }
  void check_unchanged() const override { archive_.check_unchanged(bytes_, modified_ns_); }
  bool seeks() const override { return member_.is_stored(); }

 private:
  NpzArchive archive_;
  NpzMember member_;
  std::int64_t bytes_, modified_ns_;
};

std::unique_ptr<ArrayBytes> open_bytes(const Source& source) {
  switch (source.format) {
    case Source::Format::npz: return std::make_unique<MemberBytes>(source);
    case Source::Format::table:
      return std::make_unique<TableRows>(source.file, source.table, source.disk_bytes, source.modified_ns);
    case Source::Format::symmetric: return std::make_unique<SymmetricArray>(source);
    case Source::Format::svmlight: return std::make_unique<SvmlightTargets>(source);
    case Source::Format::hdf5: return open_hdf5(source);
    case Source::Format::piped: return std::make_unique<PipedBytes>(source);
    default: return std::make_unique<FileBytes>(source);
  }
}

void take_header(Source& source, const ArrayHeader& header) {
  const std::string path = source.path;
  static_cast<ArrayHeader&>(source) = header;
  source.path = path;
}

void read_npy(Source& source, const InputFile& file) {
  std::string bytes(static_cast<std::size_t>(std::min(source.disk_bytes, npy_prefix_limit + npy_header_limit)), '\0');
  file.read(0, bytes.data(), static_cast<std::int64_t>(bytes.size()));
  if (!source.member.empty() && bytes.starts_with(npy_magic))
    refuse_file(source.path,
                "a .npy file has one array, without a name; leave out ':" + printable(source.member, 80) + "'");
  take_header(source, parse_npy_header(bytes, source.disk_bytes, source.path));
}

void read_npz(Source& source) {
  const NpzArchive archive(source.file);
  if (source.member.empty()) {
    if (archive.is_sparse())
      refuse_file(source.path, "a sparse matrix, expected a dense one; numpy.save(..., A.toarray())");
    const auto names = archive.names();
    if (archive.count() != 1)
      refuse_file(source.path, "an archive of " + std::to_string(archive.count()) +
                                   " arrays, expected the name of one, " + printable(source.path) + ":NAME; " +
                                   names_text(names, archive.count()));
    source.member = names.at(0);
  }
  const NpzMember member(archive, source.member);
  take_header(source, member.header());
  require_numbers(source);
  if (!member.is_stored()) require_honest_growth(source.path, archive.bytes(), source.file_bytes);
}

/// Numbers in a text are read as those of an array of f8.
void read_text(Source& source, char separator) {
  if (!source.member.empty())
    refuse_file(source.path,
                "a text has one matrix, without a name; leave out ':" + printable(source.member, 80) + "'");
  TextReader text(source.file);
  source.format = Source::Format::table;
  source.dtype = "text";
  source.file_bytes = source.disk_bytes;
  source.element.big_endian = std::endian::native == std::endian::big;
  if (separator != '\0') {
    source.table = std::make_shared<TextTable>(source.path, text, separator);
    source.shape = {source.table->rows(), source.table->columns()};
    return;
  }
  const MatrixMarketHeader header = read_matrix_market_header(source.path, text);
  if (header.is_sparse)
    refuse_file(source.path, "a sparse matrix, expected a dense one; scipy.io.mmwrite(..., A.toarray())");
  source.shape = {header.rows, header.columns};
  source.fortran_order = true;
  if (header.symmetry != MatrixMarketHeader::Symmetry::general) {
    source.format = Source::Format::symmetric;
    return;
  }
  source.table = std::make_shared<TextTable>(source.path, text, header.line);
  if (source.table->rows() != header.stored)
    refuse_file(source.path, "found " + std::to_string(source.table->rows()) + " numbers, expected " +
                                 std::to_string(header.stored) + " for shape " + source.shape_text());
}

/// The first number of each line.
void read_svmlight_target(Source& source) {
  if (svmlight_part(source.path, source.member) != SvmlightPart::target)
    refuse_file(source.path,
                "a sparse matrix, expected a dense one; :target has the targets, and `attnreg convert "
                "--dense` writes it dense");
  TextReader text(source.file);
  source.format = Source::Format::svmlight;
  source.dtype = "text";
  source.file_bytes = source.disk_bytes;
  source.element.big_endian = std::endian::native == std::endian::big;
  source.svmlight = std::make_shared<SvmlightText>(source.path, text, SvmlightPart::target);
  source.shape = {source.svmlight->rows()};
}

/// Several files, one below another.
void read_shards(Source& source) {
  source.format = Source::Format::shards;
  for (const auto& file : shards_of(source.file)) {
    const Source& shard = source.shards.emplace_back(open_source(file));
    const Source& before = source.shards.front();
    if (shard.shape.empty()) refuse_file(file, "found shape (), expected rows");
    if (!std::ranges::equal(shard.shape.begin() + 1, shard.shape.end(), before.shape.begin() + 1, before.shape.end()))
      refuse_file(file, "found shape " + shard.shape_text() + ", and " + printable(before.path) + " has " +
                            before.shape_text() + "; all but the first extent must be the same");
    if (shard.element.kind != before.element.kind || shard.element.bytes != before.element.bytes)
      refuse_file(file, "found type " + shard.dtype_text() + ", and " + printable(before.path) + " has " +
                            before.dtype_text() + "; convert one");
    source.disk_bytes += shard.disk_bytes;
    source.modified_ns = std::max(source.modified_ns, shard.modified_ns);
  }
  const std::int64_t bytes = source.disk_bytes, modified_ns = source.modified_ns;
  take_header(source, source.shards.front());
  source.disk_bytes = source.file_bytes = bytes;
  source.modified_ns = modified_ns;
  source.fortran_order = false;
  source.shape[0] = 0;
  for (const auto& shard : source.shards)
    if (__builtin_add_overflow(source.shape[0], shard.shape[0], &source.shape[0]))
      refuse_file(source.path, "the files together have more than 2^63 rows; one is damaged");
  array_bytes(source);
}

/// The part of the array that has these places along the first axes.
void take_part(Source& source, const std::vector<std::int64_t>& places) {
  const std::string shape = "the array has shape " + source.shape_text();
  const auto axes = source.shape.size();
  std::vector<std::int64_t> steps(axes, 1);  // in elements, from one place along an axis to the next
  for (std::size_t k = 1; k < axes; ++k) {
    if (source.fortran_order)
      steps[k] = steps[k - 1] * source.shape[k - 1];
    else
      steps[axes - 1 - k] = steps[axes - k] * source.shape[axes - k];
  }
  if (!places.empty() && places.size() >= axes)
    refuse_file(source.path, shape + ", and a part of it at least one axis; give fewer places in brackets");
  for (std::size_t k = 0; k < places.size(); ++k) {
    if (places[k] >= source.shape[k])
      refuse_file(source.path, shape + ", and no part " + std::to_string(places[k]) + " of " +
                                   std::to_string(source.shape[k]) + "; they are counted from 0");
    source.first += places[k] * steps[k];
  }
  const auto taken = static_cast<std::ptrdiff_t>(places.size());
  source.shape.erase(source.shape.begin(), source.shape.begin() + taken);
  steps.erase(steps.begin(), steps.begin() + taken);
  if (!steps.empty()) source.row_step = steps[0];
  if (steps.size() > 1) source.column_step = steps[1];
}

}  // namespace

Source open_source(const std::string& path) {
  const SourceName name(path);
  Source source;
  source.path = path;
  source.file = name.file;
  source.member = name.member;
  if (name.is_piped()) {
    take_header(source, piped_header(path));
    source.format = Source::Format::piped;
  } else if (name.is_pattern) {
    if (!name.places.empty())
      refuse_file(path, "places in brackets name a part of one file, and a pattern stands for several");
    read_shards(source);
  } else {
    const InputFile file(name.file, "a file with a matrix");
    source.disk_bytes = file.bytes();
    source.modified_ns = file.modified_ns();
    if (is_npz(file, name.file)) {
      source.format = Source::Format::npz;
      read_npz(source);
    } else if (is_safetensors(file, name.file)) {
      source.format = Source::Format::safetensors;
      const ArrayHeader tensor = read_safetensors(file, path, source.member);
      take_header(source, tensor);
    } else if (is_hdf5(file, name.file)) {
      source.format = Source::Format::hdf5;
      read_hdf5(source);
    } else if (is_svmlight(name.file)) {
      read_svmlight_target(source);
    } else if (const char separator = separator_of(name.file); separator != '\0' || is_matrix_market(file, name.file)) {
      read_text(source, separator);
    } else {
      read_npy(source, file);
    }
    file.check_unchanged(source.disk_bytes, source.modified_ns);
  }
  source.type = source.element.held();
  take_part(source, name.places);
  return source;
}

void require_matrix(const Source& header) {
  const std::string found = "found shape " + header.shape_text() + ", expected ";
  if (header.shape.empty() || header.shape.size() > 2)
    refuse_file(header.path, found + "a matrix (n, d) or a vector (n,); use numpy.reshape");
  if (header.shape[0] < 1 || header.columns() < 1) refuse_file(header.path, found + "at least one row and one column");
}

RowPartition reading_partition(const Source& source, std::int64_t rows, int ranks) {
  if (source.is_piped()) return RowPartition::in_blocks(rows, std::max<std::int64_t>(1, rows), ranks);
  return RowPartition::tiled(rows, source.columns(), ranks);
}

RowReader::RowReader(const Source& source) : source_(source) {
  if (source.format != Source::Format::shards) bytes_ = open_bytes(source);
}

template <class Scalar>
void RowReader::read(std::int64_t first, std::int64_t rows, std::span<Scalar> out) {
  const std::int64_t columns = source_.columns();
  if (source_.shape.empty() || source_.shape.size() > 2)
    refuse_file(source_.path, "found shape " + source_.shape_text() + ", expected (n,) or (n, d)");
  if (first < 0 || rows < 0 || rows > source_.shape[0] - first ||
      static_cast<std::int64_t>(out.size()) != rows * columns)
    refuse_file(source_.path, "rows [" + std::to_string(first) + ", " + std::to_string(first) + " + " +
                                  std::to_string(rows) + ") into " + std::to_string(out.size()) +
                                  " values asked of shape " + source_.shape_text());
  if (out.empty()) return;
  if (!source_.shards.empty())
    return source_.shards_are_columns ? read_beside(first, rows, out) : read_shards(first, rows, out);
  bytes_->check_unchanged();
  const std::int64_t at = source_.first + first * source_.row_step;
  if (columns == 1) {
    read_run(at, source_.row_step, out);
  } else if (source_.column_step == 1 && source_.row_step == columns) {
    read_run(at, 1, out);
  } else if (source_.column_step <= source_.row_step) {
    const auto width = static_cast<std::size_t>(columns);
    for (std::int64_t i = 0; i < rows; ++i)
      read_run(at + i * source_.row_step, source_.column_step, out.subspan(static_cast<std::size_t>(i) * width, width));
  } else {
    read_columns(first, rows, out);
  }
  bytes_->check_unchanged();
}
template void RowReader::read(std::int64_t, std::int64_t, std::span<double>);
template void RowReader::read(std::int64_t, std::int64_t, std::span<float>);
template void RowReader::read(std::int64_t, std::int64_t, std::span<Eigen::half>);
template void RowReader::read(std::int64_t, std::int64_t, std::span<Eigen::bfloat16>);

template <class Scalar>
void RowReader::read_shards(std::int64_t first, std::int64_t rows, std::span<Scalar> out) {
  std::int64_t begin = 0;  // of the shard
  for (std::size_t k = 0; k < source_.shards.size() && rows > 0; ++k) {
    const Source& shard = source_.shards[k];
    const std::int64_t end = begin + shard.shape[0];
    if (first < end) {
      const std::int64_t count = std::min(rows, end - first);
      const auto part = out.first(static_cast<std::size_t>(count * source_.columns()));
      open_shard(k).read(first - begin, count, part);
      out = out.subspan(part.size());
      first += count;
      rows -= count;
    }
    begin = end;
  }
}

RowReader& RowReader::open_shard(std::size_t k) {
  if (!shard_ || shard_number_ != k) shard_ = std::make_unique<RowReader>(source_.shards[k]);
  shard_number_ = k;
  return *shard_;
}

/// Of a transposed source: each shard has some columns of all rows.
template <class Scalar>
void RowReader::read_beside(std::int64_t first, std::int64_t rows, std::span<Scalar> out) {
  std::vector<Scalar> part;
  std::int64_t column = 0;
  for (std::size_t k = 0; k < source_.shards.size(); ++k) {
    const std::int64_t width = source_.shards[k].columns();
    part.resize(static_cast<std::size_t>(rows * width));
    open_shard(k).read(first, rows, std::span(part));
    for (std::int64_t i = 0; i < rows; ++i)
      std::copy_n(part.begin() + i * width, width, out.begin() + i * source_.columns() + column);
    column += width;
  }
}

/// Segments of some columns at a time, turned round in a buffer.
template <class Scalar>
void RowReader::read_columns(std::int64_t first, std::int64_t rows, std::span<Scalar> out) {
  constexpr std::int64_t buffer_elements = std::int64_t{1} << 19;
  const std::int64_t columns = source_.columns();
  // Where nothing can be skipped, a column is read to its end before the next one.
  const std::int64_t block_columns = bytes_->seeks() ? std::min<std::int64_t>(columns, 16) : 1;
  const std::int64_t block_rows = bytes_->seeks() ? std::min(rows, buffer_elements / block_columns) : rows;
  std::vector<Scalar> buffer(static_cast<std::size_t>(block_rows * block_columns));
  for (std::int64_t row = 0; row < rows; row += block_rows) {
    const std::int64_t height = std::min(block_rows, rows - row);
    for (std::int64_t column = 0; column < columns; column += block_columns) {
      const std::int64_t width = std::min(block_columns, columns - column);
      for (std::int64_t k = 0; k < width; ++k) {
        const std::span<Scalar> segment(buffer.data() + k * height, static_cast<std::size_t>(height));
        read_run(source_.first + (column + k) * source_.column_step + (first + row) * source_.row_step,
                 source_.row_step, segment);
      }
      for (std::int64_t i = 0; i < height; ++i) {
        Scalar* const target = out.data() + (row + i) * columns + column;
        for (std::int64_t k = 0; k < width; ++k) target[k] = buffer[static_cast<std::size_t>(k * height + i)];
      }
    }
  }
}

template <class Scalar>
void RowReader::read_run(std::int64_t at, std::int64_t step, std::span<Scalar> out) {
  const ElementType& type = source_.element;
  const std::int64_t item = type.bytes, count = std::ssize(out);
  if (step == 1 || count == 1) {
    std::int64_t position = at * item;
    return read_elements(type, out, [&](void* to, std::int64_t size) {
      bytes_->read(position, to, size);
      position += size;
    });
  }
  // What lies between the elements is read with them, a part at a time.
  constexpr std::int64_t buffer_bytes = std::int64_t{1} << 20;
  const std::int64_t at_once = std::clamp<std::int64_t>(buffer_bytes / (step * item), 1, count);
  std::vector<char> all(static_cast<std::size_t>(((at_once - 1) * step + 1) * item));
  std::vector<char> wanted(static_cast<std::size_t>(at_once * item));
  for (std::int64_t done = 0; done < count; done += at_once) {
    const std::int64_t part = std::min(at_once, count - done);
    bytes_->read((at + done * step) * item, all.data(), ((part - 1) * step + 1) * item);
    for (std::int64_t k = 0; k < part; ++k)
      std::memcpy(wanted.data() + k * item, all.data() + k * step * item, static_cast<std::size_t>(item));
    decode(type, wanted.data(), out.subspan(static_cast<std::size_t>(done), static_cast<std::size_t>(part)));
  }
}

bool reads_in_blocks(const Source& source) {
  if (!source.shards.empty()) return !source.shards_are_columns && std::ranges::all_of(source.shards, reads_in_blocks);
  const bool is_plain = source.format == Source::Format::npy || source.format == Source::Format::safetensors;
  const bool is_one_run = source.row_step == source.columns() && (source.columns() == 1 || source.column_step == 1);
  return is_plain && is_one_run;
}

double bytes_of_rows(const Source& source, std::int64_t rows) {
  const auto share = static_cast<double>(rows) / static_cast<double>(std::max<std::int64_t>(source.shape.at(0), 1));
  return share * (source.table ? static_cast<double>(source.disk_bytes)
                               : static_cast<double>(source.elements()) * static_cast<double>(source.element.bytes));
}

}  // namespace attnreg
