#pragma once

#include "attnreg/sketch.hpp"

namespace attnreg {

/// Local. Rows [first, first + count) of this rank's part of a sparse sign sketch that nobody holds whole, count x d;
/// see `sketch`. A row of A is looked at only if it has a nonzero there, but one read is counted.
Eigen::MatrixXd sketch_panel(const RowMatrix& A, const Eigen::VectorXd& row_scale, const SketchOptions& options,
                             Index first, Index count);

}  // namespace attnreg
