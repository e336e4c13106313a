#include <algorithm>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>

#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "files/csr_file.hpp"
#include "files/input_file.hpp"
#include "ranks/memory.hpp"

namespace attnreg {
namespace {

/// Collective. Each rank reads an even share of indptr, checks it, and counts how many of its values lie before each
/// rank's share of the entries: the counts of all ranks together are the first rows.
RowPartition partition_by_entries(const Communicator& communicator, CsrFile& file) {
  const NpzHeader& header = file.header();
  const int ranks = communicator.size(), rank = communicator.rank();
  const auto share = [&](std::int64_t total, int k) {
    return total / ranks * k + std::min<std::int64_t>(total % ranks, k);
  };
  std::vector<double> before(static_cast<std::size_t>(ranks) + 1, 0.0);  // counts: exact below 2^53
  communicator.agree([&] {
    const std::int64_t begin = share(header.rows + 1, rank), end = share(header.rows + 1, rank + 1);
    const std::string& path = file.indptr().header().path;
    std::vector<std::int64_t> part;
    std::int64_t previous = 0;
    if (begin > 0 && begin < end) file.indptr().read(begin - 1, std::span(&previous, 1));
    for (std::int64_t first = begin; first < end; first += entries_per_read) {
      part.resize(static_cast<std::size_t>(std::min(entries_per_read, end - first)));
      file.indptr().read(first, std::span(part));
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
            static_cast<double>(std::ranges::lower_bound(part, share(header.nonzeros, k)) - part.begin());
    }
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

/// Local. This rank's columns, checked.
void read_columns(CsrFile& file, std::int64_t first_row, std::int64_t first_entry, CsrRows& rows) {
  const auto entries = static_cast<std::int64_t>(rows.indices.size());
  std::vector<std::int64_t> part;
  for (std::int64_t first = 0; first < entries; first += entries_per_read) {
    part.resize(static_cast<std::size_t>(std::min(entries_per_read, entries - first)));
    file.indices().read(first_entry + first, std::span(part));
    const auto wrong = std::ranges::find_if(part, [&](std::int64_t j) { return j < 0 || j >= rows.columns; });
    if (wrong != part.end()) {
      const std::int64_t entry = first + (wrong - part.begin());
      const auto row = std::ranges::upper_bound(rows.offsets, entry) - rows.offsets.begin() - 1;
      const std::string row_name = file.by_columns() ? "column " : "row ",
                        column_name = file.by_columns() ? "row " : "column ";
      refuse_file(file.indices().header().path, row_name + std::to_string(first_row + row) + " has an entry in " +
                                                    column_name + std::to_string(*wrong) + ", expected 0 to " +
                                                    std::to_string(rows.columns - 1) + " (counted from 0)" +
                                                    how_to_save);
    }
    std::ranges::transform(part, rows.indices.begin() + first,
                           [](std::int64_t j) { return static_cast<std::int32_t>(j); });
  }
}

/// Collective. As for dense files: the first place, and how many there are.
template <class Scalar>
void require_finite(const Communicator& communicator, CsrFile& file, std::int64_t first_row, std::int64_t first_entry,
                    const CsrRows& rows, const std::vector<Scalar>& values) {
  const auto bad = [](Scalar value) { return is_not_finite(static_cast<double>(value)); };
  const auto found = std::ranges::count_if(values, bad);
  const std::int64_t count = communicator.sum(static_cast<std::int64_t>(found));
  if (count == 0) return;
  constexpr std::int64_t none = std::numeric_limits<std::int64_t>::max();
  const std::int64_t entry = found == 0 ? none : std::ranges::find_if(values, bad) - values.begin();
  const std::int64_t position = found == 0 ? none : first_entry + entry, first = communicator.min(position);
  communicator.agree([&] {
    if (position != first) return;
    const auto row = std::ranges::upper_bound(rows.offsets, entry) - rows.offsets.begin() - 1;
    double value = 0;
    file.data().read(position, std::span(&value, 1));
    refuse_file(
        file.header().path,
        not_finite_message(value, file.place(first_row + row, rows.indices[static_cast<std::size_t>(entry)]), count));
  });
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
  require_finite(communicator, file, first_row, first_entry, rows, rows.*values);
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
  const bool single = is_single(file.header(), storage);
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
