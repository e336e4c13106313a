#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <type_traits>
#include <utility>

#include "errors/printable.hpp"
#include "files/byte_order.hpp"
#include "files/csr_file.hpp"
#include "files/input_file.hpp"
#include "ranks/memory.hpp"

namespace attnreg {
namespace {

/// The entries of some columns in the order of the file.
template <class Scalar>
struct Entries {
  std::vector<Index> columns;  ///< from the first one on
  std::vector<std::int32_t> rows;
  std::vector<Scalar> values;
};

/// Local. All of indptr, checked.
std::vector<std::int64_t> read_indptr(CsrFile& file) {
  const NpzHeader& header = file.header();
  std::vector<std::int64_t> indptr(static_cast<std::size_t>(header.rows) + 1);
  file.indptr().read(0, std::span(indptr));
  const auto decreases = std::ranges::adjacent_find(indptr, std::greater<>{});
  if (indptr.front() != 0 || indptr.back() != header.nonzeros || decreases != indptr.end())
    refuse_file(file.indptr().header().path,
                "from " + std::to_string(indptr.front()) + " to " + std::to_string(indptr.back()) +
                    (decreases != indptr.end() ? ", and decreasing" : "") + ", expected from 0 to " +
                    std::to_string(header.nonzeros) + ", not decreasing" + how_to_save);
  return indptr;
}

/// Local. Columns [begin, end) of all rows. A block of values is read if one of them is wanted.
template <class Scalar>
Entries<Scalar> read_entries(CsrFile& file, const std::vector<std::int64_t>& indptr, std::int64_t begin,
                             std::int64_t end) {
  Entries<Scalar> entries;
  std::vector<Scalar> values;
  std::int32_t row = 0;
  const auto read = [&](std::int64_t first, const std::vector<std::int64_t>& columns) {
    values.clear();
    for (std::size_t k = 0; k < columns.size(); ++k) {
      while (indptr[static_cast<std::size_t>(row) + 1] <= first + static_cast<std::int64_t>(k)) ++row;
      if (columns[k] < 0 || columns[k] >= file.header().columns) file.refuse_column(row, columns[k]);
      if (columns[k] < begin || columns[k] >= end) continue;
      if (values.empty()) {
        values.resize(columns.size());
        file.data().read(first, std::span(values));
      }
      entries.columns.push_back(static_cast<Index>(columns[k] - begin));
      entries.rows.push_back(row);
      entries.values.push_back(values[k]);
    }
  };
  read_in_parts(file.indices(), 0, file.header().nonzeros, read);
  return entries;
}

/// Local. The first value at a place, as it is in the file, that is not finite as a `Scalar`.
template <class Scalar>
double unusable_value(CsrFile& file, std::int64_t row, std::int64_t column) {
  std::int64_t ends[2];
  file.indptr().read(row, ends);
  std::vector<std::int64_t> columns(static_cast<std::size_t>(ends[1] - ends[0]));
  std::vector<double> values(columns.size());
  file.indices().read(ends[0], columns);
  file.data().read(ends[0], std::span(values));
  for (std::size_t k = 0; k < values.size(); ++k)
    if (columns[k] == column && !std::isfinite(converted<Scalar>(values[k]))) return values[k];
  return std::numeric_limits<double>::quiet_NaN();
}

/// Local. The entries column by column, each column's in the order of the file.
template <class Scalar>
void sort_by_column(const Entries<Scalar>& entries, std::vector<Scalar> CsrRows::*values, CsrRows& rows) {
  for (const Index column : entries.columns) ++rows.offsets[static_cast<std::size_t>(column) + 1];
  std::partial_sum(rows.offsets.begin(), rows.offsets.end(), rows.offsets.begin());
  std::vector<std::int64_t> next(rows.offsets.begin(), rows.offsets.end() - 1);
  rows.indices.resize(entries.rows.size());
  (rows.*values).resize(entries.rows.size());
  for (std::size_t k = 0; k < entries.rows.size(); ++k) {
    const auto place = static_cast<std::size_t>(next[static_cast<std::size_t>(entries.columns[k])]++);
    rows.indices[place] = entries.rows[k];
    (rows.*values)[place] = entries.values[k];
  }
}

/// Collective.
template <class Scalar>
CsrRows read_columns(const Communicator& communicator, CsrFile& file, const RowPartition& partition,
                     std::vector<Scalar> CsrRows::*values) {
  const std::int64_t begin = partition.begin(communicator.rank()), end = partition.end(communicator.rank());
  Entries<Scalar> entries;
  communicator.agree([&] {
    entries = read_entries<Scalar>(file, read_indptr(file), begin, end);
    file.check_unchanged();
  });
  require_finite<Scalar>(communicator, entries.values, [&](std::int64_t entry, std::int64_t count) {
    const auto k = static_cast<std::size_t>(entry);
    const std::int64_t row = entries.rows[k], column = begin + entries.columns[k];
    file.refuse_value_at(row, column, unusable_value<Scalar>(file, row, column), count);
  });
  CsrRows rows;
  communicator.agree([&] {
    rows.columns = static_cast<Index>(file.header().rows);
    rows.is_single = std::is_same_v<Scalar, float>;
    rows.offsets.assign(static_cast<std::size_t>(end - begin) + 1, 0);
    sort_by_column(entries, values, rows);
  });
  sum_duplicates(communicator, file, begin, rows, true);
  return rows;
}

}  // namespace

SparseRows load_csr_transpose(const Communicator& communicator, const std::string& path, StorageChoice storage) {
  const std::unique_ptr<CsrFile> file = open_csr_file(communicator, path, CsrFile::Formats::csr_or_csc);
  if (file->by_columns()) return read_compressed(communicator, *file, storage);
  const NpzHeader& header = file->header();
  const bool single = is_held_as_float(header, storage);
  communicator.agree([&] {
    if (header.rows > std::numeric_limits<std::int32_t>::max())
      refuse_file(path, std::to_string(header.rows) + " rows, expected fewer than 2^31; save it with A.tocsc()");
  });
  RowPartition partition = RowPartition::tiled(header.columns, static_cast<Index>(header.rows), communicator.size());
  // Twice: in the order of the file and by columns. Even shares of the entries are a guess.
  const double entries = static_cast<double>(header.nonzeros) / communicator.size();
  require_memory(communicator, 40 * entries + 8 * static_cast<double>(header.rows),
                 printable(path) + ": " + file->summary());
  CsrRows rows = single ? read_columns(communicator, *file, partition, &CsrRows::singles)
                        : read_columns(communicator, *file, partition, &CsrRows::values);
  return {std::move(partition), std::move(rows)};
}

}  // namespace attnreg
