#include "files/sparse_file.hpp"

#include <array>
#include <functional>
#include <limits>
#include <type_traits>

#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "files/input_file.hpp"
#include "files/source_name.hpp"
#include "files/sparse_text.hpp"
#include "files/svmlight.hpp"
#include "ranks/activity.hpp"
#include "ranks/memory.hpp"

namespace attnreg {

namespace {

void require_vector(const ArrayHeader& array, std::int64_t size, const std::string& meaning) {
  if (array.element.kind != 'i' || (array.element.bytes != 4 && array.element.bytes != 8))
    refuse_file(array.path, "found dtype " + printable(array.dtype, 40) + ", expected <i4 or <i8; the file is damaged");
  if (array.shape.size() == 1 && (size < 0 || array.shape[0] == size)) return;
  refuse_file(array.path, "found shape " + array.shape_text() + ", expected (" +
                              (size < 0 ? "k" : std::to_string(size)) + ",): " + meaning + how_to_save);
}

void require_values(const ArrayHeader& array, std::size_t axes, const char* shape) {
  if (!array.element.is_number() || array.element.is_bfloat16())
    refuse_file(array.path, "found dtype " + printable(array.dtype, 40) +
                                ", expected floating-point numbers of 2, 4 or 8 bytes, integers or bool; convert with "
                                "A.astype('<f8')" +
                                (array.element.kind == 'c' ? ", which keeps the real part" : ""));
  if (array.shape.size() != axes || (array.fortran_order && axes > 1))
    refuse_file(array.path, "found shape " + array.shape_text() + (array.fortran_order ? " in Fortran order" : "") +
                                ", expected " + shape + how_to_save);
}

/// Collective. Each rank reads an even share of indptr, checks it, and counts how many of its values lie before each
/// rank's share of the entries: the counts of all ranks together are the first rows.
RowPartition partition_by_entries(const Communicator& communicator, SparseFile& file) {
  const SparseHeader& header = file.header();
  const std::int64_t rows = file.compressed_rows();
  const int ranks = communicator.size(), rank = communicator.rank();
  const auto positions = RowPartition::in_blocks(rows + 1, 1, ranks);
  const auto shares = RowPartition::in_blocks(header.nonzeros, 1, ranks);
  std::vector<double> before(static_cast<std::size_t>(ranks) + 1, 0.0);  // counts: exact below 2^53
  communicator.agree([&] {
    const std::int64_t begin = positions.begin(rank), end = positions.end(rank);
    const std::string& path = file.indptr().header().path;
    std::int64_t previous = 0;
    if (begin > 0 && begin < end) file.indptr().read(begin - 1, std::span(&previous, 1));
    read_in_parts(file.indptr(), begin, end, [&](std::int64_t first, const std::vector<std::int64_t>& part) {
      if (first == 0 && part[0] != 0)
        refuse_file(path, "starts with " + std::to_string(part[0]) + ", expected 0" + how_to_save);
      for (std::size_t k = 0; k < part.size(); ++k) {
        if (part[k] < previous)
          refuse_file(path, "decreases at row " + std::to_string(first + static_cast<std::int64_t>(k) - 1) + ": " +
                                std::to_string(previous) + ", then " + std::to_string(part[k]) +
                                " (counted from 0); the file is damaged");
        previous = part[k];
      }
      for (int k = 1; k < ranks; ++k)
        before[static_cast<std::size_t>(k)] +=
            static_cast<double>(std::ranges::lower_bound(part, shares.begin(k)) - part.begin());
    });
    if (end == rows + 1 && begin < end && previous != header.nonzeros)
      refuse_file(path, "ends with " + std::to_string(previous) + ", expected " + std::to_string(header.nonzeros) +
                            ", the number of entries" + how_to_save);
  });
  communicator.sum(before);
  std::vector<std::int64_t> first_rows;
  for (const double count : before) first_rows.push_back(static_cast<std::int64_t>(count));
  first_rows.back() = rows;
  return RowPartition(std::move(first_rows));
}

/// Throws: a place of the compressed matrix.
[[noreturn]] void refuse_place(const SparseFile& file, std::int64_t row, std::int64_t column) {
  file.by_columns() ? file.refuse_place(column, row) : file.refuse_place(row, column);
}

/// Local. This rank's columns, checked.
void read_columns(SparseFile& file, std::int64_t first_row, std::int64_t first_entry, CsrRows& rows) {
  auto next = rows.indices.begin();
  const auto read = [&](std::int64_t first, const std::vector<std::int64_t>& part) {
    const auto wrong = std::ranges::find_if(part, [&](std::int64_t j) { return j < 0 || j >= rows.columns; });
    if (wrong != part.end())
      refuse_place(file, first_row + row_of(rows, first - first_entry + (wrong - part.begin())), *wrong);
    next = std::ranges::transform(part, next, [](std::int64_t j) { return static_cast<std::int32_t>(j); }).out;
  };
  read_in_parts(file.indices(), first_entry, first_entry + rows.entries(), read);
}

/// Collective.
template <class Scalar>
CsrRows read_rows(const Communicator& communicator, SparseFile& file, const RowPartition& partition,
                  std::vector<Scalar> CsrRows::*values) {
  const std::int64_t first_row = partition.begin(communicator.rank());
  std::int64_t first_entry = 0;
  CsrRows rows;
  rows.is_single = std::is_same_v<Scalar, float>;
  communicator.agree([&] {
    rows.columns = static_cast<Index>(file.compressed_columns());
    rows.offsets.resize(static_cast<std::size_t>(partition.rows_local(communicator.rank())) + 1);
    file.indptr().read(first_row, std::span(rows.offsets));
    file.check_unchanged();
    first_entry = rows.offsets.front();
    for (std::int64_t& offset : rows.offsets) offset -= first_entry;
    rows.indices.resize(static_cast<std::size_t>(rows.entries()));
    (rows.*values).resize(static_cast<std::size_t>(rows.entries()));
    read_columns(file, first_row, first_entry, rows);
    file.data().read(first_entry, std::span(rows.*values));
    file.check_unchanged();
  });
  require_finite<Scalar>(communicator, rows.*values, [&](std::int64_t entry, std::int64_t count) {
    double value = 0;  // as it is in the file
    file.data().read(first_entry + entry, std::span(&value, 1));
    std::int64_t row = first_row + row_of(rows, entry), column = rows.indices[static_cast<std::size_t>(entry)];
    if (file.by_columns()) std::swap(row, column);
    refuse_value_at(file.header().path, row, column, value, count);
  });
  sum_duplicates(communicator, file.header().path, first_row, rows, file.by_columns());
  return rows;
}

/// Local. The entries of this rank's rows.
std::int64_t entries_of(SparseFile& file, std::int64_t begin, std::int64_t end) {
  std::int64_t first = 0, last = 0;
  file.indptr().read(begin, std::span(&first, 1));
  file.indptr().read(end, std::span(&last, 1));
  return last - first;
}

}  // namespace

SparseFile::SparseFile(const std::string& path) : archive_(path) {
  header_.path = path;
  header_.bytes = archive_.bytes();
  header_.modified_ns = archive_.modified_ns();
  read_format();
  read_shape();
  const std::string& format = header_.format;
  first_.emplace(archive_, format == "coo" ? "row" : format == "dia" ? "offsets" : "indptr");
  if (format != "dia") second_.emplace(archive_, format == "coo" ? "col" : "indices");
  data_.emplace(archive_, "data");
  std::int64_t grown = 0;
  for (const auto* const member : {&first_, &second_, &data_}) {
    if (!*member) continue;
    header_.deflated = header_.deflated || !(*member)->is_stored();
    grown += (*member)->header().file_bytes;
  }
  if (header_.deflated) require_honest_growth(path, archive_.bytes(), grown);
  if (format == "bsr") {
    check_blocks();
  } else if (format == "dia") {
    check_diagonals();
  } else {
    check_compressed();
  }
  header_.nonzeros = data().header().elements();
  header_.element = data().header().element;
  const Storage held = header_.element.held();
  header_.type = held == Storage::float64 ? held : Storage::float32;  // sparse rows are held in these only
}

/// Also of coo.
void SparseFile::check_compressed() {
  require_values(data().header(), 1, "(k,): one value per entry");
  const std::int64_t entries = data().header().shape[0];
  require_vector(second_->header(), entries,
                 header_.format == "coo" ? "one column per value of data.npy" : "one index per value of data.npy");
  require_vector(first_->header(), header_.format == "coo" ? entries : compressed_rows() + 1,
                 header_.format == "coo" ? "one row per value of data.npy"
                 : by_columns()          ? "one position per column, and the end"
                                         : "one position per row, and the end");
}

void SparseFile::check_blocks() {
  require_values(data().header(), 3, "(k, r, c): blocks of r rows and c columns");
  const std::int64_t blocks = data().header().shape[0], rows = block_rows(), columns = block_columns();
  if (rows < 1 || columns < 1 || header_.rows % rows != 0 || header_.columns % columns != 0)
    refuse_file(archive_.path(), "blocks of " + std::to_string(rows) + " x " + std::to_string(columns) +
                                     ", expected such that divide the shape (" + std::to_string(header_.rows) + ", " +
                                     std::to_string(header_.columns) + "); the file is damaged");
  require_vector(indices().header(), blocks, "one column per block of data.npy");
  require_vector(indptr().header(), header_.rows / rows + 1, "one position per row of blocks, and the end");
}

void SparseFile::check_diagonals() {
  require_values(data().header(), 2, "(k, d): one row per diagonal");
  require_vector(offsets().header(), data().header().shape[0], "one number per diagonal");
}

void SparseFile::read_format() {
  if (archive_.has("format")) header_.format = NpzMember(archive_, "format").read_text();
  std::vector<const char*> names{"format", "shape", "indptr", "indices", "data"};
  if (header_.format == "coo") names = {"format", "shape", "row", "col", "data"};
  if (header_.format == "dia") names = {"format", "shape", "offsets", "data"};
  constexpr std::array formats{"csr", "csc", "coo", "bsr", "dia"};
  if (std::ranges::find(formats, header_.format) == formats.end())
    refuse_file(archive_.path(), "a sparse matrix of format '" + printable(header_.format, 20) +
                                     "', expected csr, csc, coo, bsr or dia" + how_to_save);
  for (const char* const name : names)
    if (!archive_.has(name))
      refuse_file(archive_.path(), "no array '" + std::string(name) + "' in the archive, " +
                                       names_text(archive_.names(), archive_.count()) +
                                       "; expected a sparse matrix as scipy.sparse.save_npz writes it");
}

void SparseFile::read_shape() {
  NpzMember member(archive_, "shape");
  require_vector(member.header(), 2, "rows and columns");
  std::int64_t extents[2];
  member.read(0, std::span<std::int64_t>(extents));
  header_.rows = extents[0];
  header_.columns = extents[1];
  const std::string found = "shape (" + std::to_string(extents[0]) + ", " + std::to_string(extents[1]) + "), expected ";
  if (extents[0] < 1 || extents[1] < 1) refuse_file(archive_.path(), found + "at least one row and one column");
  constexpr std::int64_t most = std::int64_t{1} << 60, most_indices = std::numeric_limits<std::int32_t>::max();
  if (header_.rows >= most || header_.columns >= most || compressed_columns() > most_indices)
    refuse_file(archive_.path(), found + (by_columns() ? "fewer than 2^31 rows and 2^60 columns"
                                                       : "fewer than 2^60 rows and 2^31 columns"));
}

void SparseFile::check_indptr(const std::vector<std::int64_t>& indptr, std::int64_t entries) const {
  const auto decreases = std::ranges::adjacent_find(indptr, std::greater<>{});
  if (indptr.front() == 0 && indptr.back() == entries && decreases == indptr.end()) return;
  refuse_file(first_->header().path, "from " + std::to_string(indptr.front()) + " to " + std::to_string(indptr.back()) +
                                         (decreases != indptr.end() ? ", and decreasing" : "") +
                                         ", expected from 0 to " + std::to_string(entries) + ", not decreasing" +
                                         how_to_save);
}

void SparseFile::refuse_place(std::int64_t row, std::int64_t column) const {
  const bool in_rows = row >= 0 && row < header_.rows;  // the column is wrong, then
  const std::string place = in_rows
                                ? "row " + std::to_string(row) + " has an entry in column " + std::to_string(column)
                                : "column " + std::to_string(column) + " has an entry in row " + std::to_string(row);
  const std::string& path = (in_rows || header_.format != "coo" ? second_ : first_)->header().path;
  refuse_file(path, place + ", expected 0 to " + std::to_string((in_rows ? header_.columns : header_.rows) - 1) +
                        " (counted from 0)" + how_to_save);
}

bool is_sparse(const std::string& path) {
  const SourceName name(path);
  if (name.is_piped()) return false;
  if (is_svmlight(name.file)) return name.places.empty() && svmlight_part(path, name.member) != SvmlightPart::target;
  if (name.is_pattern || !name.member.empty() || !name.places.empty()) return false;
  const InputFile file(name.file, "a file with a matrix");
  return is_npz(file, name.file) ? NpzArchive(name.file).is_sparse() : is_sparse_text(file, name.file);
}

SparseHeader read_sparse_header(const std::string& path) {
  if (is_svmlight(SourceName(path).file)) return read_svmlight_header(path);
  return is_sparse_text(InputFile(path), path) ? read_sparse_text_header(path) : SparseFile(path).header();
}

SparseRows read_compressed(const Communicator& communicator, SparseFile& file, StorageChoice storage) {
  const bool single = is_held_as_float(file.header(), storage);
  RowPartition partition = partition_by_entries(communicator, file);
  const std::int64_t begin = partition.begin(communicator.rank()), end = partition.end(communicator.rank());
  std::int64_t entries = 0;
  communicator.agree([&] { entries = entries_of(file, begin, end); });
  const double bytes = static_cast<double>(entries) * (single ? 8 : 12) + 8 * static_cast<double>(end - begin);
  require_memory(
      communicator, bytes,
      printable(file.header().path) + ": " + sparse_summary(file.header()) + " as " + (single ? "float" : "double"));
  CsrRows rows = single ? read_rows(communicator, file, partition, &CsrRows::singles)
                        : read_rows(communicator, file, partition, &CsrRows::values);
  return {std::move(partition), std::move(rows)};
}

SparseRows load_sparse(const Communicator& communicator, const std::string& path, StorageChoice storage,
                       Orientation orientation) {
  if (is_svmlight(SourceName(path).file)) return load_svmlight(communicator, path, storage, orientation);
  std::optional<SparseFile> file;
  bool is_text = false;
  std::int64_t bytes = 0;
  communicator.agree([&] {
    const InputFile input(path, "a file with a matrix");
    bytes = input.bytes();
    is_text = is_sparse_text(input, path);
    if (!is_text) file.emplace(path);
  });
  const InWork reading("reading", "bytes", static_cast<double>(bytes) / communicator.size());
  if (is_text) return load_sparse_text(communicator, path, storage, orientation);
  require_same_file(communicator, path, "", sparse_summary(file->header()));
  const bool rows_in_order = file->by_columns() == (orientation == Orientation::transposed);
  if (file->is_compressed() && rows_in_order) return read_compressed(communicator, *file, storage);
  return read_scattered(communicator, *file, storage, orientation);
}

}  // namespace attnreg
