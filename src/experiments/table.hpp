#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace attnreg::experiments {

/// What an experiment found: numbers by row and column, and how to read them.
struct Table {
  std::string name;  ///< "polynomial-attention"; names its file
  std::string title;
  std::vector<std::string> columns;
  std::vector<std::vector<double>> rows;  ///< as many numbers each as there are columns
  std::vector<std::string> reading;       ///< a sentence each

  /// The value in the given row of the column with this name; throws std::out_of_range.
  double at(std::size_t row, std::string_view column) const {
    const auto found = std::ranges::find(columns, column);
    if (found == columns.end()) throw std::out_of_range("no column " + std::string(column));
    return rows.at(row).at(static_cast<std::size_t>(found - columns.begin()));
  }
};

}  // namespace attnreg::experiments
