#pragma once

#include <Eigen/Core>
#include <span>
#include <vector>

#include "rows/row_passes.hpp"

namespace attnreg {

/// Rows that another rank has packed. What is made of them is summed in an order of its own: the last row first, and
/// each from its last entry on. Local; nothing is counted as a read.
class RemadeRows {
 public:
  /// packed: `count` rows of a matrix like this one.
  RemadeRows(const RowPasses& like, std::span<const char> packed, Index count);

  /// a_i . x - shift. Dense rows: `Compensated`; sparse ones: in long double. x: d.
  Eigen::VectorXd products(const Eigen::VectorXd& x, double shift) const;
  Eigen::MatrixXd sums(const RowMajorMatrix& U) const;  ///< A^T U. U: count x columns; result: d x columns
  // The same of absolute values.
  double reach(Index row, const Eigen::VectorXd& bounds) const;  ///< |a_i| . bounds
  Eigen::MatrixXd sizes(const RowMajorMatrix& U) const;          ///< |A|^T |U|

 private:
  Index columns_, count_;
  RowMajorMatrix turned_;  // dense rows, backwards and upside down
  CsrRows sparse_;
};

}  // namespace attnreg
