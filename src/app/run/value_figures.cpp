#include "app/run/value_figures.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>

#include "files/source.hpp"
#include "files/sparse_file.hpp"

namespace attnreg::app {

namespace {

/// Bits that depend on all bits of a place and a value; their sum over a column does not depend on the order.
std::uint64_t mixed(std::int64_t row, double value) {
  std::uint64_t bits = std::bit_cast<std::uint64_t>(value) ^ (static_cast<std::uint64_t>(row) * 0x9e3779b97f4a7c15U);
  for (const std::uint64_t factor : {0xff51afd7ed558ccdU, 0xc4ceb9fe1a85ec53U}) {
    bits ^= bits >> 33U;
    bits *= factor;
  }
  return bits ^ (bits >> 33U);
}

/// Takes the values of this rank's rows, row by row, and then those of all ranks together.
class Scanner {
 public:
  Scanner(std::int64_t rows, std::int64_t columns)
      : least_(static_cast<std::size_t>(columns), std::numeric_limits<double>::infinity()),
        most_(least_.size(), -std::numeric_limits<double>::infinity()),
        entries_(least_.size(), 0.0),
        hashes_(least_.size(), 0) {
    figures_.rows = rows;
    figures_.columns = columns;
  }

  void begin_row(std::int64_t row) {
    row_ = row;
    row_sum_ = 0;
    row_is_zero_ = row_is_finite_ = true;
  }
  void add(std::int64_t column, double value) {
    const std::int64_t place = row_ * figures_.columns + column;
    const auto j = static_cast<std::size_t>(column);
    if (value != 0) {
      entries_[j] += 1;
      hashes_[j] += mixed(row_, value);
      row_is_zero_ = false;
    }
    if (!std::isfinite(value)) {
      (std::isnan(value) ? figures_.nan : value > 0 ? figures_.plus_infinite : figures_.minus_infinite).add(place);
      row_is_finite_ = false;
      return;
    }
    least_[j] = std::min(least_[j], value);
    most_[j] = std::max(most_[j], value);
    row_sum_ += value;
    if (value < 0) figures_.negative.add(place);
    const double square = value * value;
    if (!std::isfinite(square)) figures_.squares_overflow.add(place);
    if (square == 0 && value != 0) figures_.squares_vanish.add(place);
  }
  void end_row() {
    constexpr double slack = 1e-6;
    figures_.sum += row_sum_;
    if (row_is_zero_) figures_.zero_rows.add(row_);
    if (row_is_finite_ && !(std::abs(row_sum_ - 1) <= slack)) figures_.other_sums.add(row_);
  }

  /// Collective.
  ValueFigures of_all(const Communicator& communicator) {
    for (auto* found :
         {&figures_.nan, &figures_.plus_infinite, &figures_.minus_infinite, &figures_.negative,
          &figures_.squares_overflow, &figures_.squares_vanish, &figures_.zero_rows, &figures_.other_sums}) {
      found->count = communicator.sum(found->count);
      found->first = communicator.min(found->first);
    }
    figures_.sum = communicator.sum(figures_.sum);
    for (double& value : least_) value = -value;
    communicator.max(std::span(least_));
    for (double& value : least_) value = -value;
    communicator.max(std::span(most_));
    communicator.sum(std::span(entries_));
    sum_hashes(communicator);
    communicator.agree([&] { judge_columns(); });
    return std::move(figures_);
  }

 private:
  /// Modulo 2^64, in halves, whose sums double has.
  void sum_hashes(const Communicator& communicator) {
    std::vector<double> halves;
    for (const std::uint64_t hash : hashes_) {
      halves.push_back(static_cast<double>(hash & 0xffffffffU));
      halves.push_back(static_cast<double>(hash >> 32U));
    }
    communicator.sum(std::span(halves));
    for (std::size_t j = 0; j < hashes_.size(); ++j)
      hashes_[j] = static_cast<std::uint64_t>(halves[2 * j]) + (static_cast<std::uint64_t>(halves[2 * j + 1]) << 32U);
  }

  void judge_columns() {
    const auto rows = static_cast<double>(figures_.rows);
    std::map<std::uint64_t, std::int64_t> first_with;
    for (std::size_t j = 0; j < hashes_.size(); ++j) {
      const auto column = static_cast<std::int64_t>(j);
      if (entries_[j] < rows) {  // a zero
        least_[j] = std::min(least_[j], 0.0);
        most_[j] = std::max(most_[j], 0.0);
      }
      if (least_[j] <= most_[j]) {
        figures_.minimum = std::min(figures_.minimum, least_[j]);
        figures_.maximum = std::max(figures_.maximum, most_[j]);
      }
      figures_.largest.push_back(least_[j] <= most_[j] ? std::max(std::abs(least_[j]), std::abs(most_[j])) : 0);
      const bool is_finite = figures_.not_finite() == 0;
      if (entries_[j] == 0) {
        figures_.zero_columns.push_back(column);
        continue;
      }
      if (is_finite && least_[j] == most_[j]) figures_.constant_columns.push_back(column);
      const auto [known, is_new] = first_with.emplace(hashes_[j], column);
      if (!is_new) figures_.equal_columns.emplace_back(known->second, column);
    }
  }

  ValueFigures figures_;
  std::vector<double> least_, most_, entries_;  // of the columns; the last: values that are not 0
  std::vector<std::uint64_t> hashes_;
  std::int64_t row_ = 0;
  double row_sum_ = 0;
  bool row_is_zero_ = true, row_is_finite_ = true;
};

ValueFigures dense_figures(const Communicator& communicator, const Source& header) {
  const std::int64_t rows = header.shape[0], columns = header.columns();
  const RowPartition partition = reading_partition(header, rows, communicator.size());
  std::optional<Scanner> scanner;
  communicator.agree([&] {
    scanner.emplace(rows, columns);
    const std::int64_t end = partition.end(communicator.rank());
    const std::int64_t block_rows = std::max<std::int64_t>(1, (std::int64_t{1} << 18) / columns);
    std::vector<double> block;
    RowReader reader(header);
    for (std::int64_t row = partition.begin(communicator.rank()); row < end; row += block_rows) {
      const std::int64_t count = std::min(block_rows, end - row);
      block.resize(static_cast<std::size_t>(count * columns));
      reader.read(row, count, std::span(block));
      auto value = block.cbegin();
      for (std::int64_t i = 0; i < count; ++i) {
        scanner->begin_row(row + i);
        for (std::int64_t j = 0; j < columns; ++j) scanner->add(j, *value++);
        scanner->end_row();
      }
    }
  });
  return scanner->of_all(communicator);
}

ValueFigures sparse_figures(const Communicator& communicator, const std::string& path) {
  const SparseRows loaded = load_sparse(communicator, path, StorageChoice::as_file);
  const CsrRows& rows = loaded.rows;
  std::optional<Scanner> scanner;
  communicator.agree([&] {
    scanner.emplace(loaded.partition.rows_global(), rows.columns);
    for (std::size_t i = 0; i + 1 < rows.offsets.size(); ++i) {
      scanner->begin_row(loaded.partition.begin(communicator.rank()) + static_cast<std::int64_t>(i));
      for (auto e = static_cast<std::size_t>(rows.offsets[i]); e < static_cast<std::size_t>(rows.offsets[i + 1]); ++e)
        scanner->add(rows.indices[e], rows.is_single ? rows.singles[e] : rows.values[e]);
      scanner->end_row();
    }
  });
  return scanner->of_all(communicator);
}

}  // namespace

ValueFigures value_figures(const Communicator& communicator, const InputFile& file) {
  return file.nonzeros ? sparse_figures(communicator, file.header.path) : dense_figures(communicator, file.header);
}

}  // namespace attnreg::app
