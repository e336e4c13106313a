#pragma once

#include <Eigen/Core>
#include <optional>
#include <vector>

#include "attnreg/certificate.hpp"

namespace attnreg {

/// The figures that the papers' assumptions are about. Replicated.
struct PapersFigures {
  double norm_A = 0;             ///< largest singular value
  double smallest_singular = 0;  ///< of A; 0 where it drowns in rounding
  double norm_x = 0;
  double target_norm = 0;                ///< |b|_1
  double smallest_weight = 0;            ///< min_i w_i^2
  double rows = 0;                       ///< n
  double indefiniteness = 0;             ///< c with Hess phi >= -c I for all y
  double convexity = 0;                  ///< largest l known with H(y) >= l I for all y; <= 0: none
  std::optional<double> start_distance;  ///< an upper bound of |x0 - x*|
};

/// Local. The table of arXiv 2304.10411 and its exposition, with the corrected constants next to theirs.
std::vector<Assumption> papers_assumptions(const PapersFigures& figures);

}  // namespace attnreg
