#include <algorithm>
#include <string_view>

#include "surrogate/surrogate.hpp"

namespace attnreg {

bool has_surrogate(std::string_view loss) { return loss == "softmax" || loss == "cross-entropy"; }

bool fits_on_root(const RowMatrix& A) {
  double numbers = static_cast<double>(A.rows_global()) * static_cast<double>(A.columns());
  if (A.is_sparse())
    numbers = 2 * A.communicator().sum(static_cast<double>(A.entries_local())) + static_cast<double>(A.rows_global());
  return fits_on_root(numbers);
}

bool fits_on_root(double numbers) { return numbers <= small_problem; }

bool sample_saves(std::int64_t rows, Eigen::Index columns) {
  constexpr double kMost = 0.25;  // of all rows
  return first_rows * static_cast<double>(columns) <= kMost * static_cast<double>(rows);
}

double rows_by_scores(std::int64_t rows, Eigen::Index columns) {
  return std::clamp(0.03 * static_cast<double>(rows) / static_cast<double>(columns), 30.0, 300.0);
}

}  // namespace attnreg
