#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <vector>

#include "kernels/sketch_kernels.hpp"
#include "rows/tile.hpp"

namespace attnreg {

/// A few columns N, d x k, laid out for products with tiles of A.
class PackedColumns {
 public:
  explicit PackedColumns(const Eigen::MatrixXd& N) {
    for (Index first = 0; first < N.cols(); first += kernels::kBlockColumns) {
      const Index width = std::min(kernels::kBlockColumns, N.cols() - first);
      groups_.emplace_back(RowMajorMatrix::Zero(N.rows(), kernels::kBlockColumns));
      groups_.back().leftCols(width) = N.middleCols(first, width);
    }
  }

  /// Local. Calls `use(first_column, Y)` for every group of 16 columns, Y = tile N(:, first_column...), rows x 16; the
  /// last group is filled up with zeros.
  template <class Use>
  void multiply(const Tile& tile, Use&& use) const {
    RowMajorMatrix Y(tile.rows(), kernels::kBlockColumns);
    for (std::size_t k = 0; k < groups_.size(); ++k) {
      tile.multiply_packed(groups_[k].data(), Y.data());
      use(static_cast<Index>(k) * kernels::kBlockColumns, Y);
    }
  }

 private:
  std::vector<RowMajorMatrix> groups_;  ///< d x 16 each
};

}  // namespace attnreg
