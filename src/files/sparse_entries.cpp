#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <type_traits>
#include <utility>

#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "files/byte_order.hpp"
#include "files/input_file.hpp"
#include "files/sparse_file.hpp"

namespace attnreg {
namespace {

/// Takes those entries of a file that lie in rows [begin, end).
class Collector {
 public:
  Collector(SparseFile& file, Orientation orientation, std::int64_t begin, std::int64_t end)
      : file_(file), transposed_(orientation == Orientation::transposed), begin_(begin), end_(end) {}

  SparseEntries read() {
    const std::string& format = file_.header().format;
    if (format == "coo") {
      read_places();
    } else if (format == "bsr") {
      read_blocks();
    } else if (format == "dia") {
      read_diagonals();
    } else {
      read_compressed_rows();
    }
    return std::move(entries_);
  }

 private:
  /// An entry of the matrix; `value()` is called if it is wanted.
  template <class Value>
  void take(std::int64_t row, std::int64_t column, Value&& value) {
    const SparseHeader& header = file_.header();
    if (row < 0 || row >= header.rows || column < 0 || column >= header.columns) file_.refuse_place(row, column);
    if (transposed_) std::swap(row, column);
    if (row < begin_ || row >= end_) return;
    entries_.rows.push_back(static_cast<Index>(row - begin_));
    entries_.columns.push_back(static_cast<std::int32_t>(column));
    entries_.values.push_back(value());
  }

  /// The value of an entry in a block of entries [first, first + count), which is read when the first one is wanted.
  double value_in(std::int64_t first, std::size_t count, std::size_t k) {
    if (block_first_ != first) {
      block_.resize(count);
      file_.data().read(first, std::span(block_));
      block_first_ = first;
    }
    return block_[k];
  }

  void read_compressed_rows() {
    const std::vector<std::int64_t> indptr = read_indptr(file_.compressed_rows(), file_.header().nonzeros);
    std::int64_t row = 0;
    read_in_parts(file_.indices(), 0, file_.header().nonzeros, [&](std::int64_t first, const auto& indices) {
      for (std::size_t k = 0; k < indices.size(); ++k) {
        while (indptr[static_cast<std::size_t>(row) + 1] <= first + static_cast<std::int64_t>(k)) ++row;
        const auto value = [&] { return value_in(first, indices.size(), k); };
        if (file_.by_columns())
          take(indices[k], row, value);
        else
          take(row, indices[k], value);
      }
    });
  }

  void read_places() {
    std::vector<std::int64_t> columns;
    read_in_parts(file_.row(), 0, file_.header().nonzeros, [&](std::int64_t first, const auto& rows) {
      columns.resize(rows.size());
      file_.column().read(first, std::span(columns));
      for (std::size_t k = 0; k < rows.size(); ++k)
        take(rows[k], columns[k], [&] { return value_in(first, rows.size(), k); });
    });
  }

  void read_blocks() {
    const std::int64_t height = file_.block_rows(), width = file_.block_columns(), size = height * width;
    const std::int64_t blocks = file_.indices().header().shape[0];
    const std::vector<std::int64_t> indptr = read_indptr(file_.header().rows / height, blocks);
    std::int64_t row = 0;  // of blocks
    read_in_parts(file_.indices(), 0, blocks, [&](std::int64_t first, const auto& columns) {
      for (std::size_t k = 0; k < columns.size(); ++k) {
        const std::int64_t block = first + static_cast<std::int64_t>(k);
        while (indptr[static_cast<std::size_t>(row) + 1] <= block) ++row;
        const std::int64_t most = file_.header().columns / width - 1;
        if (columns[k] < 0 || columns[k] > most)
          refuse_file(file_.indices().header().path,
                      "row " + std::to_string(row) + " of blocks has a block in column " + std::to_string(columns[k]) +
                          ", expected 0 to " + std::to_string(most) + " (counted from 0)" + how_to_save);
        for (std::int64_t e = 0; e < size; ++e)
          take(row * height + e / width, columns[k] * width + e % width,
               [&] { return value_in(block * size, static_cast<std::size_t>(size), static_cast<std::size_t>(e)); });
      }
    });
  }

  /// Zeros are places where a diagonal has nothing.
  void read_diagonals() {
    constexpr std::int64_t at_once = std::int64_t{1} << 17;
    const SparseHeader& header = file_.header();
    const std::int64_t length = file_.data().header().shape[1];
    std::vector<std::int64_t> offsets(static_cast<std::size_t>(file_.data().header().shape[0]));
    file_.offsets().read(0, std::span(offsets));
    for (std::size_t k = 0; k < offsets.size(); ++k) {
      const std::int64_t offset = offsets[k];
      if (offset <= -header.rows || offset >= header.columns) continue;
      // The value of column j is the one at j; of row i that of column i + offset.
      const std::int64_t first_wanted = transposed_ ? begin_ : begin_ + offset;
      const std::int64_t end_wanted = transposed_ ? end_ : end_ + offset;
      std::int64_t j = std::max({std::int64_t{0}, offset, first_wanted});
      const std::int64_t end = std::min({header.columns, header.rows + offset, length, end_wanted});
      for (; j < end; j += at_once) {
        block_.resize(static_cast<std::size_t>(std::min(at_once, end - j)));
        file_.data().read(static_cast<std::int64_t>(k) * length + j, std::span(block_));
        for (std::size_t m = 0; m < block_.size(); ++m) {
          const std::int64_t column = j + static_cast<std::int64_t>(m);
          if (block_[m] != 0) take(column - offset, column, [&] { return block_[m]; });
        }
      }
    }
  }

  /// All of indptr, checked.
  std::vector<std::int64_t> read_indptr(std::int64_t rows, std::int64_t entries) {
    std::vector<std::int64_t> indptr(static_cast<std::size_t>(rows) + 1);
    file_.indptr().read(0, std::span(indptr));
    file_.check_indptr(indptr, entries);
    return indptr;
  }

  SparseFile& file_;
  bool transposed_;
  std::int64_t begin_, end_;
  SparseEntries entries_;
  std::vector<double> block_;
  std::int64_t block_first_ = -1;
};

}  // namespace

SparseRows read_scattered(const Communicator& communicator, SparseFile& file, StorageChoice storage,
                          Orientation orientation) {
  const SparseHeader& header = file.header();
  const bool single = is_held_as_float(header, storage), transposed = orientation == Orientation::transposed;
  require_indices(header, orientation);
  RowPartition partition =
      RowPartition::tiled(transposed ? header.columns : header.rows,
                          static_cast<Index>(transposed ? header.rows : header.columns), communicator.size());
  const double indptr = file.is_compressed() ? 8 * static_cast<double>(file.compressed_rows()) : 0;
  require_room_for_entries(communicator, header, partition, 1, indptr);
  SparseEntries found;
  communicator.agree([&] {
    found =
        Collector(file, orientation, partition.begin(communicator.rank()), partition.end(communicator.rank())).read();
    file.check_unchanged();
  });
  CsrRows rows = rows_of_entries(communicator, header, partition, orientation, found, single);
  return {std::move(partition), std::move(rows)};
}

}  // namespace attnreg
