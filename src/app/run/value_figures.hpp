#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "app/run/problem.hpp"
#include "attnreg/communicator.hpp"

namespace attnreg::app {

/// How often something is there, and where first.
struct Occurrences {
  static constexpr std::int64_t nowhere = std::numeric_limits<std::int64_t>::max();

  std::int64_t count = 0;
  std::int64_t first = nowhere;  ///< position in row-major order, or the row

  void add(std::int64_t place) {
    ++count;
    if (place < first) first = place;
  }
};

/// What one reading of all values of a matrix tells. Of sparse matrices, places without an entry are zeros.
struct ValueFigures {
  std::int64_t rows = 0, columns = 0;
  Occurrences nan, plus_infinite, minus_infinite;
  Occurrences negative;                          ///< finite ones
  Occurrences squares_overflow, squares_vanish;  ///< of finite values; of those that are not 0
  Occurrences zero_rows, other_sums;             ///< rows; the second: whose sum differs from 1 by more than 1e-6
  double minimum = std::numeric_limits<double>::infinity();  ///< of the finite values, as the next
  double maximum = -std::numeric_limits<double>::infinity();
  double sum = 0;
  std::vector<double> largest;                                       ///< |value| of each column
  std::vector<std::int64_t> zero_columns;                            ///< all of their values are 0
  std::vector<std::int64_t> constant_columns;                        ///< all of their values are the same number, not 0
  std::vector<std::pair<std::int64_t, std::int64_t>> equal_columns;  ///< each with the first one that it is equal to

  std::int64_t not_finite() const { return nan.count + plus_infinite.count + minus_infinite.count; }
};

/// Collective. Reads all values, each once, every rank its share. Columns count as equal if 64 bits that are made of
/// all their values are equal. Throws `InvalidArgument` on all ranks where the file cannot be read to its end.
ValueFigures value_figures(const Communicator& communicator, const InputFile& file);

}  // namespace attnreg::app
