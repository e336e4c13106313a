#pragma once

#include <string>
#include <vector>

#include "app/charts/report_data.hpp"

namespace attnreg::app {

/// Local. One page of HTML on a run. labels: names of the rows of A, or none.
std::string report_html(const ReportedRun& run, const ReportData& data, const std::vector<std::string>& labels);

/// Local. One that compares several, two at least.
std::string comparison_html(const std::vector<ReportedRun>& runs);

}  // namespace attnreg::app
