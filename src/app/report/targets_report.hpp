#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attnreg/regression.hpp"
#include "app/options/options.hpp"

namespace attnreg::app {

/// What is said of the solve of several targets.
struct TargetsReport {
  const Arguments& arguments;
  const std::vector<RegressionResult>& results;
  std::int64_t rows, columns;
  int ranks, threads;
};

/// The first result that did not converge, or the first.
const RegressionResult& worst_result(const std::vector<RegressionResult>& results);

/// The page on stdout: a line for each target, what all of them cost, notes and warnings. files: those written.
std::string targets_text(const TargetsReport& report, const std::vector<std::string>& files);

/// A line for each target with 17 digits, as CSV.
std::string targets_csv(const std::vector<RegressionResult>& results);

}  // namespace attnreg::app
