#pragma once

#include <Eigen/Core>
#include <vector>

#include "rows/tile.hpp"
#include "kernels/sketch_kernels.hpp"

namespace attnreg {

/// A few columns N, d x k, laid out for products with tiles of A.
class PackedColumns {
 public:
  explicit PackedColumns(const Eigen::MatrixXd& N);

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

/// Which part of a product is wanted.
enum class Part { full, lower };

/// Local, on the calling thread. out += S P; of out's strict upper triangle `lower` leaves an undefined part. S: m x k,
/// P: k x d, out: m x d. For use by the threads of a pass, instead of BLAS: OpenBLAS built for one thread, as Debian's
/// -serial is, hands the same work space to two threads once in some ten thousand calls, and the results are wrong.
void add_product(const RowMajorMatrix& S, const Eigen::Ref<const RowMajorMatrix>& P, Part part, RowMajorMatrix& out);

}  // namespace attnreg
