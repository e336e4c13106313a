#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "attnreg/row_storage.hpp"
#include "kernels/sketch_kernels.hpp"

namespace attnreg {

/// How A x is summed where its rounding matters: the errors of products and sums are summed too (Ogita, Rump, Oishi
/// 2005), so that every z_i = a_i . x - shift is rounded about once.
struct Compensated {
  double shift = 0;
};

/// Columns of dense rows as a pass is to see them: (a_ij - centre_j) factor_j, d numbers each.
struct ColumnTransform {
  Eigen::VectorXd centre, factor;
};

/// A rank's rows, in one of the types in which they can be held. Not owned.
struct RowPointers {
  Index columns = 0;
  kernels::DenseRows dense{};
  const CsrView* sparse = nullptr;             ///< in place of dense ones
  const ColumnTransform* transform = nullptr;  ///< of dense ones, or none

  /// The same on all ranks, those without rows included.
  Storage type() const {
    constexpr std::array types{Storage::float64, Storage::float32, Storage::float16, Storage::bfloat16};
    return sparse == nullptr ? types[dense.index()] : sparse->is_single ? Storage::float32 : Storage::float64;
  }
};

/// Sparse rows that are held, with the view of them that `RowPointers` points to.
struct HeldCsr {
  explicit HeldCsr(CsrRows from) : rows(std::move(from)), view(rows) {}
  HeldCsr(const HeldCsr&) = delete;
  HeldCsr& operator=(const HeldCsr&) = delete;

  const CsrRows rows;
  const CsrView view;
};

/// Consecutive rows that lie in one tile of the global numbering, as a pass sees them. The kernels below know in what
/// type the rows are held; rows are counted from the tile's first one, unless local rows are said. Sums in double.
class Tile {
 public:
  Tile(const RowPointers& storage, Index first_local, Index rows, std::vector<double>& scratch);

  Index first_local() const { return first_local_; }  ///< position of the first row in this rank's rows
  Index rows() const { return rows_; }
  Index columns() const { return storage_.columns; }
  std::int64_t entries() const;  ///< stored
  bool is_sparse() const { return storage_.sparse != nullptr; }

  /// The rows in double, rows x columns; a copy unless they are held and seen so, good until the next call for this
  /// thread.
  Eigen::Map<const RowMajorMatrix> dense() const { return dense(0, rows_); }
  Eigen::Map<const RowMajorMatrix> dense(Index first, Index rows) const;  ///< some of them

  void multiply(const double* x, double* z) const;                           ///< z_i = a_i . x
  void multiply(const double* x, Compensated compensated, double* z) const;  ///< z_i = a_i . x - shift
  /// Y = A N, 16 columns of which `used` are wanted, all row-major
  void multiply_packed(const double* N, double* Y, Index used) const;
  /// out += A^T U of some rows; U row-major, rows x k
  void add_transpose_multiply(Index first, Index rows, const double* U, Index k, double* out) const;
  /// The same of dense rows, in groups of columns: see `kernels::add_transposed_block`.
  void add_transposed_block(Index first, Index rows, const double* U, Index groups, double* out) const {
    kernels::add_transposed_block(dense(first, rows).data(), rows, columns(), U, groups, out);
  }
  void add_absolute_transpose_multiply(const double* u, double* out) const;    ///< out += |A|^T u
  void squared_norms(const double* factor, double* squares) const;             ///< |a_i o factor|^2
  void scatter(std::span<const kernels::Scatter> entries, double* out) const;  ///< out_target += value a_source

  /// Of dense rows: see `kernels::add_signed_gram`. Rows that are not held in double are copied, some at a time.
  void add_signed_gram(const double* weights, const double* centre, double* positive, double* negative) const;

  /// y_i = a_i . x and out += sum_i u_i a_i; y and the row curvature by local row. out has d + 1 numbers; the last one
  /// gets sum_i curvature_i (y_i - centre).
  void add_normal_product(const double* x, const RowCurvature& weights, double* y, double* out) const;

 private:
  template <class Use>
  void on_rows(Index first, Index rows, Use&& use) const;
  Tile in_double() const;  ///< the same, with a copy of dense rows that are held in another type; good as `dense` is

  RowPointers storage_;
  Index first_local_, rows_;
  std::vector<double>& scratch_;
};

/// A few columns N, d x k, laid out for products with tiles of A.
class PackedColumns {
 public:
  explicit PackedColumns(const Eigen::MatrixXd& N) : columns_(N.cols()) {
    for (Index first = 0; first < N.cols(); first += kernels::kBlockColumns) {
      const Index width = std::min(kernels::kBlockColumns, N.cols() - first);
      groups_.emplace_back(RowMajorMatrix::Zero(N.rows(), kernels::kBlockColumns));
      groups_.back().leftCols(width) = N.middleCols(first, width);
    }
  }

  /// Local. Calls `use(first_column, Y)` for every group of 16 columns, Y = tile N(:, first_column...), rows x 16, what
  /// is beyond the last column being 0.
  template <class Use>
  void multiply(const Tile& tile, Use&& use) const {
    RowMajorMatrix Y = RowMajorMatrix::Zero(tile.rows(), kernels::kBlockColumns);
    for (std::size_t k = 0; k < groups_.size(); ++k) {
      const Index first = static_cast<Index>(k) * kernels::kBlockColumns, left = columns_ - first;
      if (left < kernels::kBlockColumns) Y.setZero();
      tile.multiply_packed(groups_[k].data(), Y.data(), std::min(kernels::kBlockColumns, left));
      use(first, Y);
    }
  }

 private:
  Index columns_;
  std::vector<RowMajorMatrix> groups_;  ///< d x 16 each, the last filled up with zeros
};

}  // namespace attnreg
