#pragma once

#include <string>
#include <vector>

#include "attnreg/error.hpp"
#include "attnreg/regression.hpp"

namespace attnreg::app {

/// The exit code of several solves: that of the first which did not converge.
ExitCode worst_code(const std::vector<RegressionResult>& results);

/// The text filled up with blanks: a column of a table.
std::string padded(std::string text, std::size_t width);

/// One line per weight, for people.
std::string path_table(const std::vector<double>& weights, const std::vector<RegressionResult>& results);

/// The same with 17 digits, as CSV.
std::string path_csv(const std::vector<double>& weights, const std::vector<RegressionResult>& results);

}  // namespace attnreg::app
