#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <vector>

#include "attnreg/communicator.hpp"

namespace attnreg {

// Numbers of rows and columns; dense vectors and matrices.
using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

/// Local. The rows of a tile, the unit of work of every pass over A: clamp(256 KiB / (8 columns), 16, 1024), rounded
/// down to a power of two; no columns count as one. A function of the number of columns only, so that no sum depends on
/// who owns which rows.
Index tile_rows(Index columns);

/// Which rank owns which rows of A: contiguous ranges of the global numbering, in rank order, of any sizes; a range may
/// be empty. Replicated.
class RowPartition {
 public:
  /// Local. `first_rows` has the first row of each rank, and at the end the number of rows. Replicated. If it does not
  /// start at 0, or decreases: `InvalidArgument` (all ranks).
  explicit RowPartition(std::vector<std::int64_t> first_rows);

  /// Local. Whole tiles, spread evenly over the ranks: what `load_matrix` makes of a dense file.
  static RowPartition tiled(std::int64_t rows, Index columns, int ranks);
  /// Local. The same with blocks of so many rows in place of tiles. If rows < 0, block < 1 or ranks < 1:
  /// `InvalidArgument` (all ranks).
  static RowPartition in_blocks(std::int64_t rows, std::int64_t block, int ranks);

  /// Collective. The partition in which this rank owns `rows_local` rows. One all-gather of 8 bytes.
  static RowPartition from_local(const Communicator& communicator, std::int64_t rows_local);

  // Local.
  std::int64_t rows_global() const { return first_rows_.back(); }
  int ranks() const { return static_cast<int>(first_rows_.size()) - 1; }
  std::int64_t begin(int rank) const { return first_rows_[static_cast<std::size_t>(rank)]; }
  std::int64_t end(int rank) const { return first_rows_[static_cast<std::size_t>(rank) + 1]; }
  Index rows_local(int rank) const { return static_cast<Index>(end(rank) - begin(rank)); }

 private:
  std::vector<std::int64_t> first_rows_;
};

}  // namespace attnreg
