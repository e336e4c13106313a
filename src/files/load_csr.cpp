#include <algorithm>
#include <memory>
#include <type_traits>
#include <utility>

#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "files/csr_file.hpp"
#include "files/finite_check.hpp"
#include "files/input_file.hpp"
#include "ranks/memory.hpp"

namespace attnreg {
namespace {

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
  communicator.agree([&] { sort_rows(rows); });
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

bool is_npz(const std::string& path) {
  if (path.ends_with(".npz")) return true;
  const InputFile file(path);
  if (file.bytes() < 4) return false;
  char start[4];
  file.read(0, start, 4);
  return std::string_view(start, 4) == "PK\x03\x04";
}

NpzHeader read_npz_header(const std::string& path) { return CsrFile(path, CsrFile::Formats::csr).header(); }

SparseRows read_compressed(const Communicator& communicator, CsrFile& file, StorageChoice storage) {
  const bool single = held_as(storage, file.header().type) == Storage::float32;
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
