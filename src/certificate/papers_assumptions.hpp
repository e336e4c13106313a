#pragma once

#include <optional>
#include <vector>

#include "attnreg/certificate.hpp"
#include "certificate/global_convexity.hpp"

namespace attnreg {

/// Local. The table of arXiv 2304.10411 and its exposition, with the corrected constants next to theirs. norm_x: |x|;
/// start_distance: an upper bound of |x0 - x*|.
std::vector<Assumption> papers_assumptions(const GlobalConvexity& convexity, double rows,
                                           double smallest_weight_squared, double norm_x,
                                           std::optional<double> start_distance);

}  // namespace attnreg
