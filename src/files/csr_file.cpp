#include "files/csr_file.hpp"

#include <limits>
#include <type_traits>

#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "files/input_file.hpp"
#include "ranks/memory.hpp"

namespace attnreg {

namespace {

bool is_of(const NpyArray& array, char kind) {
  return array.kind == kind && (array.item_bytes == 4 || array.item_bytes == 8);
}

void require_vector(const NpyArray& array, char kind, const char* types, std::int64_t size,
                    const std::string& meaning) {
  if (!is_of(array, kind))
    refuse_file(array.path, "found dtype " + printable(array.dtype, 40) + ", expected " + types +
                                (kind == 'f' ? "; convert with A.astype('<f8')" : "; the file is damaged"));
  if (array.shape.size() == 1 && (size < 0 || array.shape[0] == size)) return;
  refuse_file(array.path, "found shape " + array.shape_text() + ", expected (" +
                              (size < 0 ? "k" : std::to_string(size)) + ",): " + meaning + how_to_save);
}

/// Collective. Each rank reads an even share of indptr, checks it, and counts how many of its values lie before each
/// rank's share of the entries: the counts of all ranks together are the first rows.
RowPartition partition_by_entries(const Communicator& communicator, CsrFile& file) {
  const NpzHeader& header = file.header();
  const int ranks = communicator.size(), rank = communicator.rank();
  const auto positions = RowPartition::in_blocks(header.rows + 1, 1, ranks);
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
    if (end == header.rows + 1 && begin < end && previous != header.nonzeros)
      refuse_file(path, "ends with " + std::to_string(previous) + ", expected " + std::to_string(header.nonzeros) +
                            ", the number of entries" + how_to_save);
  });
  communicator.sum(before);
  std::vector<std::int64_t> first_rows;
  for (const double count : before) first_rows.push_back(static_cast<std::int64_t>(count));
  first_rows.back() = header.rows;
  return RowPartition(std::move(first_rows));
}

/// Local. The row of this rank that has an entry, both counted from this rank's first.
std::int64_t row_of(const CsrRows& rows, std::int64_t entry) {
  return std::ranges::upper_bound(rows.offsets, entry) - rows.offsets.begin() - 1;
}

/// Local. This rank's columns, checked.
void read_columns(CsrFile& file, std::int64_t first_row, std::int64_t first_entry, CsrRows& rows) {
  auto next = rows.indices.begin();
  const auto read = [&](std::int64_t first, const std::vector<std::int64_t>& part) {
    const auto wrong = std::ranges::find_if(part, [&](std::int64_t j) { return j < 0 || j >= rows.columns; });
    if (wrong != part.end())
      file.refuse_column(first_row + row_of(rows, first - first_entry + (wrong - part.begin())), *wrong);
    next = std::ranges::transform(part, next, [](std::int64_t j) { return static_cast<std::int32_t>(j); }).out;
  };
  read_in_parts(file.indices(), first_entry, first_entry + rows.entries(), read);
}

/// Collective.
template <class Scalar>
CsrRows read_rows(const Communicator& communicator, CsrFile& file, const RowPartition& partition,
                  std::vector<Scalar> CsrRows::*values) {
  const std::int64_t first_row = partition.begin(communicator.rank());
  std::int64_t first_entry = 0;
  CsrRows rows;
  rows.is_single = std::is_same_v<Scalar, float>;
  communicator.agree([&] {
    rows.columns = static_cast<Index>(file.header().columns);
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
    file.refuse_value_at(first_row + row_of(rows, entry), rows.indices[static_cast<std::size_t>(entry)], value, count);
  });
  sum_duplicates(communicator, file, first_row, rows, false);
  return rows;
}

/// Local. The entries of this rank's rows.
std::int64_t entries_of(CsrFile& file, std::int64_t begin, std::int64_t end) {
  std::int64_t first = 0, last = 0;
  file.indptr().read(begin, std::span(&first, 1));
  file.indptr().read(end, std::span(&last, 1));
  return last - first;
}

}  // namespace

CsrFile::CsrFile(const std::string& path, Formats formats) : archive_(path) {
  header_.path = path;
  read_format(formats);
  read_shape();
  for (auto [name, member] : {std::pair{"indptr", &indptr_}, {"indices", &indices_}, {"data", &data_}}) {
    member->emplace(archive_, name);
    header_.deflated = header_.deflated || !(*member)->is_stored();
  }
  std::int64_t grown = 0;
  for (NpzMember* const member : {&data(), &indices(), &indptr()}) grown += member->header().file_bytes;
  if (header_.deflated) require_honest_growth(path, archive_.bytes(), grown);
  require_vector(data().header(), 'f', "<f4 or <f8", -1, "one value per entry");
  header_.nonzeros = data().header().shape[0];
  header_.type = data().header().item_bytes == 4 ? Storage::float32 : Storage::float64;
  require_vector(indices().header(), 'i', "<i4 or <i8", header_.nonzeros, "one column per value of data.npy");
  require_vector(indptr().header(), 'i', "<i4 or <i8", header_.rows + 1, "one position per row, and the end");
}

void CsrFile::read_format(Formats formats) {
  if (archive_.has("format")) {
    const std::string format = NpzMember(archive_, "format").read_text();
    by_columns_ = formats == Formats::csr_or_csc && format == "csc";
    if (format != "csr" && !by_columns_)
      refuse_file(archive_.path(), "a sparse matrix of format '" + printable(format, 20) + "', expected csr" +
                                       (formats == Formats::csr_or_csc ? " or csc" : "") + how_to_save);
  }
  for (const char* const name : {"format", "shape", "indptr", "indices", "data"}) {
    if (archive_.has(name)) continue;
    std::string found;
    for (const auto& other : archive_.names()) found += (found.empty() ? "" : ", ") + printable(other, 40);
    refuse_file(archive_.path(), "no array '" + std::string(name) + "' in the archive, found " +
                                     (found.empty() ? "none" : found) +
                                     "; expected a sparse CSR matrix as scipy.sparse.save_npz writes it; a dense array "
                                     "belongs into a .npy file (numpy.save)");
  }
}

void CsrFile::read_shape() {
  NpzMember member(archive_, "shape");
  require_vector(member.header(), 'i', "<i4 or <i8", 2, "rows and columns");
  std::int64_t extents[2];
  member.read(0, extents);
  header_.rows = extents[by_columns_ ? 1 : 0];
  header_.columns = extents[by_columns_ ? 0 : 1];
  const std::string found = "shape (" + std::to_string(extents[0]) + ", " + std::to_string(extents[1]) + "), expected ";
  if (extents[0] < 1 || extents[1] < 1) refuse_file(archive_.path(), found + "at least one row and one column");
  if (header_.rows >= std::int64_t{1} << 60 || header_.columns > std::numeric_limits<std::int32_t>::max())
    refuse_file(archive_.path(), found + (by_columns_ ? "fewer than 2^31 rows and 2^60 columns"
                                                      : "fewer than 2^60 rows and 2^31 columns"));
}

void CsrFile::refuse_column(std::int64_t row, std::int64_t column) const {
  const std::string row_name = by_columns_ ? "column " : "row ", column_name = by_columns_ ? "row " : "column ";
  refuse_file(indices_->header().path, row_name + std::to_string(row) + " has an entry in " + column_name +
                                           std::to_string(column) + ", expected 0 to " +
                                           std::to_string(header_.columns - 1) + " (counted from 0)" + how_to_save);
}

void CsrFile::refuse_value_at(std::int64_t row, std::int64_t column, double value, std::int64_t count) const {
  if (by_columns_) std::swap(row, column);
  refuse_value(header_.path, value, "row " + std::to_string(row) + ", column " + std::to_string(column), count,
               "numpy.isfinite(A.data)");
}

void CsrFile::refuse_sum_at(std::int64_t row, std::int64_t column, double sum, std::int64_t count) const {
  if (by_columns_) std::swap(row, column);
  refuse_file(header_.path,
              "row " + std::to_string(row) + ", column " + std::to_string(column) +
                  " has several entries, whose sum is " + text_of(sum) + "; " + std::to_string(count) +
                  (count == 1 ? " sum is" : " sums are") +
                  " not finite (rows and columns counted from 0); sum them with A.sum_duplicates() and look at A.data");
}

std::string CsrFile::summary() const {
  return "shape (" + std::to_string(header_.rows) + ", " + std::to_string(header_.columns) + ") with " +
         std::to_string(header_.nonzeros) + " entries of " + (header_.type == Storage::float32 ? "f4" : "f8") +
         (by_columns_ ? " (transposed)" : "");
}

void sum_duplicates(const Communicator& communicator, const CsrFile& file, std::int64_t first_row, CsrRows& rows,
                    bool transposed) {
  communicator.agree([&] { sort_rows(rows); });
  const auto check = [&](const auto& values) {
    require_finite(communicator, std::span(values), [&](std::int64_t entry, std::int64_t count) {
      const auto k = static_cast<std::size_t>(entry);
      std::int64_t row = first_row + row_of(rows, entry), column = rows.indices[k];
      if (transposed) std::swap(row, column);
      file.refuse_sum_at(row, column, static_cast<double>(values[k]), count);
    });
  };
  rows.is_single ? check(rows.singles) : check(rows.values);
}

std::unique_ptr<CsrFile> open_csr_file(const Communicator& communicator, const std::string& path,
                                       CsrFile::Formats formats) {
  std::unique_ptr<CsrFile> file;
  communicator.agree([&] { file = std::make_unique<CsrFile>(path, formats); });
  require_same_file(communicator, path, "", file->summary());
  return file;
}

bool is_npz(const std::string& path) {
  if (path.ends_with(".npz")) return true;
  const InputFile file(npy_name(path).file);
  if (file.bytes() < 4) return false;
  char start[4];
  file.read(0, start, 4);
  return std::string_view(start, 4) == "PK\x03\x04";
}

NpzHeader read_npz_header(const std::string& path) { return CsrFile(path, CsrFile::Formats::csr).header(); }

bool is_held_as_float(const NpzHeader& header, StorageChoice storage) {
  const Storage held = held_as(storage, header.type);
  if (held == Storage::float16 || held == Storage::bfloat16)
    refuse(printable(header.path) + ": sparse rows are held in float or double, not in " +
           std::string(option_name(held)) + "; use --storage float");
  return held == Storage::float32;
}

SparseRows read_compressed(const Communicator& communicator, CsrFile& file, StorageChoice storage) {
  const bool single = is_held_as_float(file.header(), storage);
  RowPartition partition = partition_by_entries(communicator, file);
  const std::int64_t begin = partition.begin(communicator.rank()), end = partition.end(communicator.rank());
  std::int64_t entries = 0;
  communicator.agree([&] { entries = entries_of(file, begin, end); });
  const double bytes = static_cast<double>(entries) * (single ? 8 : 12) + 8 * static_cast<double>(end - begin);
  require_memory(communicator, bytes,
                 printable(file.header().path) + ": " + file.summary() + " as " + (single ? "float" : "double"));
  CsrRows rows = single ? read_rows(communicator, file, partition, &CsrRows::singles)
                        : read_rows(communicator, file, partition, &CsrRows::values);
  return {std::move(partition), std::move(rows)};
}

SparseRows load_csr(const Communicator& communicator, const std::string& path, StorageChoice storage) {
  const std::unique_ptr<CsrFile> file = open_csr_file(communicator, path, CsrFile::Formats::csr);
  return read_compressed(communicator, *file, storage);
}

}  // namespace attnreg
