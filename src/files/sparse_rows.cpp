#include "files/sparse_rows.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <type_traits>
#include <utility>

#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "files/byte_order.hpp"
#include "files/input_file.hpp"
#include "files/npy_header.hpp"
#include "ranks/memory.hpp"

namespace attnreg {
namespace {

/// Local. The entries row by row, each row's in the order of the file.
template <class Scalar>
void sort_by_row(const SparseEntries& entries, const std::vector<Scalar>& numbers, std::vector<Scalar> CsrRows::*values,
                 CsrRows& rows) {
  for (const Index row : entries.rows) ++rows.offsets[static_cast<std::size_t>(row) + 1];
  std::partial_sum(rows.offsets.begin(), rows.offsets.end(), rows.offsets.begin());
  std::vector<std::int64_t> next(rows.offsets.begin(), rows.offsets.end() - 1);
  rows.indices.resize(entries.columns.size());
  (rows.*values).resize(entries.columns.size());
  for (std::size_t k = 0; k < entries.columns.size(); ++k) {
    const auto place = static_cast<std::size_t>(next[static_cast<std::size_t>(entries.rows[k])]++);
    rows.indices[place] = entries.columns[k];
    (rows.*values)[place] = numbers[k];
  }
}

/// Collective. `numbers`: the values in the type in which they are held.
template <class Scalar>
CsrRows rows_of(const Communicator& communicator, const SparseHeader& header, const RowPartition& partition,
                bool transposed, const SparseEntries& entries, const std::vector<Scalar>& numbers,
                std::vector<Scalar> CsrRows::*values) {
  const std::int64_t begin = partition.begin(communicator.rank()), end = partition.end(communicator.rank());
  require_finite<Scalar>(communicator, std::span(numbers), [&](std::int64_t entry, std::int64_t count) {
    const auto k = static_cast<std::size_t>(entry);
    std::int64_t row = begin + entries.rows[k], column = entries.columns[k];
    if (transposed) std::swap(row, column);
    refuse_value_at(header.path, row, column, entries.values[k], count);
  });
  CsrRows rows;
  communicator.agree([&] {
    rows.columns = static_cast<Index>(transposed ? header.rows : header.columns);
    rows.is_single = std::is_same_v<Scalar, float>;
    rows.offsets.assign(static_cast<std::size_t>(end - begin) + 1, 0);
    sort_by_row(entries, numbers, values, rows);
  });
  sum_duplicates(communicator, header.path, begin, rows, transposed);
  return rows;
}

}  // namespace

std::int64_t row_of(const CsrRows& rows, std::int64_t entry) {
  return std::ranges::upper_bound(rows.offsets, entry) - rows.offsets.begin() - 1;
}

void refuse_value_at(const std::string& path, std::int64_t row, std::int64_t column, double value, std::int64_t count) {
  refuse_value(path, value, "row " + std::to_string(row) + ", column " + std::to_string(column), count,
               "numpy.isfinite(A.data)");
}

std::string sparse_summary(const SparseHeader& header) {
  return "shape (" + std::to_string(header.rows) + ", " + std::to_string(header.columns) + ") with " +
         std::to_string(header.nonzeros) + " entries of " + header.element.text().substr(1) +
         (header.format == "csr" ? "" : " (" + header.format + ")");
}

void sum_duplicates(const Communicator& communicator, const std::string& path, std::int64_t first_row, CsrRows& rows,
                    bool transposed) {
  communicator.agree([&] { sort_rows(rows); });
  const auto check = [&](const auto& values) {
    require_finite(communicator, std::span(values), [&](std::int64_t entry, std::int64_t count) {
      const auto k = static_cast<std::size_t>(entry);
      std::int64_t row = first_row + row_of(rows, entry), column = rows.indices[k];
      if (transposed) std::swap(row, column);
      refuse_file(path, "row " + std::to_string(row) + ", column " + std::to_string(column) +
                            " has several entries, whose sum is " + text_of(static_cast<double>(values[k])) + "; " +
                            std::to_string(count) + (count == 1 ? " sum is" : " sums are") +
                            " not finite (rows and columns counted from 0); sum them with A.sum_duplicates() and "
                            "look at A.data");
    });
  };
  rows.is_single ? check(rows.singles) : check(rows.values);
}

bool is_held_as_float(const SparseHeader& header, StorageChoice storage) {
  const Storage held = held_as(storage, header.type);
  if (held == Storage::float16 || held == Storage::bfloat16)
    refuse(printable(header.path) + ": sparse rows are held in float or double, not in " +
           std::string(option_name(held)) + "; use --storage float");
  return held == Storage::float32;
}

// Twice: in the order of the file and by rows. Even shares of the entries are a guess.
void require_room_for_entries(const Communicator& communicator, const SparseHeader& header,
                              const RowPartition& partition, double copies, double more_bytes) {
  const double entries = copies * static_cast<double>(header.nonzeros) / communicator.size();
  const auto rows = static_cast<double>(partition.rows_local(communicator.rank()));
  require_memory(communicator, 40 * entries + 16 * rows + more_bytes,
                 printable(header.path) + ": " + sparse_summary(header));
}

CsrRows rows_of_entries(const Communicator& communicator, const SparseHeader& header, const RowPartition& partition,
                        Orientation orientation, const SparseEntries& entries, bool single) {
  const bool transposed = orientation == Orientation::transposed;
  if (!single) return rows_of(communicator, header, partition, transposed, entries, entries.values, &CsrRows::values);
  std::vector<float> singles;
  communicator.agree([&] {
    singles.resize(entries.values.size());
    std::ranges::transform(entries.values, singles.begin(), converted<float, double>);
  });
  return rows_of(communicator, header, partition, transposed, entries, singles, &CsrRows::singles);
}

void require_indices(const SparseHeader& header, Orientation orientation) {
  const bool transposed = orientation == Orientation::transposed;
  const std::int64_t columns = transposed ? header.rows : header.columns;
  if (columns > std::numeric_limits<std::int32_t>::max())
    refuse(printable(header.path) + ": " + std::to_string(columns) + (transposed ? " rows" : " columns") +
           ", expected fewer than 2^31" + (transposed ? "; save it with A.tocsc()" : ""));
}

}  // namespace attnreg
