#pragma once

#include <string>
#include <vector>

#include "attnreg/regression.hpp"

namespace attnreg::app {

/// The first result that did not converge, or the first: its exit code is that of all.
const RegressionResult& worst_result(const std::vector<RegressionResult>& results);

/// A table of several results for people, one line each. name: of what tells them apart, in `names`, as wide as its
/// column. `parts`: the loss fits a distribution, so that the total variation says how well.
std::string results_table(const std::string& name, const std::vector<std::string>& names,
                          const std::vector<RegressionResult>& results, bool parts);

/// The same with 17 digits, as CSV. `residuals`: with a column for |f - b| / |b|.
std::string results_csv(const std::string& name, const std::vector<std::string>& names,
                        const std::vector<RegressionResult>& results, bool residuals);

/// The notes or warnings of all targets, each once, with the targets that have it.
std::vector<std::string> of_all_targets(const std::vector<RegressionResult>& results,
                                        std::vector<std::string> SolveResult::*list);

}  // namespace attnreg::app
