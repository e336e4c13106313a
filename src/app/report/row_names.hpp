#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "attnreg/row_matrix.hpp"

namespace attnreg::app {

/// Local. Names, one a line; of a .csv or .tsv file what stands first in each line. rows: there must be so many, or one
/// more in a .csv or .tsv file, whose first line is then a heading; below 0: any number. Throws `InvalidArgument` (this
/// rank).
std::vector<std::string> read_labels(const std::string& path, std::int64_t rows = -1);

/// A row or column, and its value.
struct NamedValue {
  std::int64_t place = 0;
  double value = 0;
  std::string name;
};

/// The largest of some values, in size, which are those of `what`: "f".
struct NamedValues {
  std::string what;
  std::vector<NamedValue> largest;
};

/// Collective, 10 numbers from each rank. On rank 0 the 5 rows of A with the largest |values| of this rank's rows;
/// labels: on rank 0, one per row. Equal ones in the order of the rows.
NamedValues largest_rows(const RowMatrix& A, std::string_view what, const Eigen::VectorXd& values,
                         const std::vector<std::string>& labels);
/// Local. The 5 columns with the largest |x|.
NamedValues largest_columns(const Eigen::VectorXd& x, const std::vector<std::string>& names);

/// A section of a summary: "Largest rows\n  f  the 0.0391, you 0.0388, ...\n". Empty without any.
std::string named_text(std::string_view title, const std::vector<NamedValues>& all);
/// {"f": [{"place": 2, "name": "the", "value": 0.0391}, ...], ...}
nlohmann::ordered_json named_json(const std::vector<NamedValues>& all);

}  // namespace attnreg::app
