#pragma once

#include <Eigen/Core>
#include <memory>
#include <vector>

#include "algebra/scalapack_grid.hpp"
#include "attnreg/communicator.hpp"

namespace attnreg {

/// Columns or rows of a panel.
constexpr Index kPanel = 256;

/// Local. How many of the indices below n, dealt out in blocks to `processes` in turn, belong to `process`.
Index local_count(Index n, Index block, int process, int processes);
/// Local. The global index of a process' local one.
Index global_index(Index local, Index block, int process, int processes);

/// A dense matrix spread block-cyclically over a process grid: block (I, J), of block_size^2 entries, is on process
/// (I mod rows, J mod columns) of the grid, in column-major order with its other blocks.
class DistributedMatrix {
 public:
  /// Collective. Zero. Throws `OutOfMemory` on all ranks, with the figures, where the nodes have no room for it or
  /// ScaLAPACK's 32-bit sizes do not reach.
  DistributedMatrix(std::shared_ptr<const ProcessGrid> grid, Index rows, Index columns);

  /// Local. A matrix with few columns that every rank has.
  static DistributedMatrix of(std::shared_ptr<const ProcessGrid> grid, const Eigen::MatrixXd& replicated);

  const ProcessGrid& grid() const { return *grid_; }
  const std::shared_ptr<const ProcessGrid>& shared_grid() const { return grid_; }
  Index rows() const { return rows_; }
  Index columns() const { return columns_; }

  /// Local. This rank's entries; those of two matrices of one shape on one grid correspond. `column`: the global one.
  Eigen::MatrixXd& local() { return local_; }
  const Eigen::MatrixXd& local() const { return local_; }
  Index column(Index local) const {
    return global_index(local, grid_->block_size(), process_column_, grid_->columns());
  }

  /// Local. Calls function(i, j, entry) for this rank's entries, i and j global.
  template <class Function>
  void for_each(Function&& function) {
    const std::vector<Index> rows = indices_of(0, rows_, process_row_, grid_->rows());
    for (Index c = 0; c < local_.cols(); ++c)
      for (Index r = 0; r < local_.rows(); ++r) function(rows[static_cast<std::size_t>(r)], column(c), local_(r, c));
  }

  /// Collective. Adds the sum over the ranks of `part` to the rows from first_row and the columns from first_column on.
  /// `communicator` has the ranks of the grid; one reduce-scatter of 8 part.size() bytes, and a packed copy of `part`.
  void add_sum(const Communicator& communicator, const Eigen::Ref<const Eigen::MatrixXd>& part, Index first_row,
               Index first_column);

  Eigen::MatrixXd replicated() const;  ///< Collective. On every rank; one all-reduce of 8 rows columns bytes.
  Eigen::VectorXd diagonal() const;    ///< Collective. On every rank; one all-reduce of 8 min(rows, columns) bytes.
  void set_diagonal(const Eigen::VectorXd& diagonal);  ///< Local. diagonal: replicated.
  bool is_finite() const;                              ///< Collective, replicated. One all-reduce of 8 bytes.

 private:
  struct Empty {};
  DistributedMatrix(Empty, std::shared_ptr<const ProcessGrid> grid, Index rows, Index columns);

  /// Calls function(j, local row, local column) for the diagonal entries of this rank.
  template <class Function>
  void for_diagonal(Function&& function) const;
  /// Global indices, ascending, of the entries in [first, first + count) that belong to a process.
  std::vector<Index> indices_of(Index first, Index count, int process, int processes) const;

  std::shared_ptr<const ProcessGrid> grid_;
  Index rows_, columns_;
  int process_row_ = 0, process_column_ = 0;
  Eigen::MatrixXd local_;
};

}  // namespace attnreg
