#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <vector>

#include "attnreg/communicator.hpp"

namespace attnreg {

using Eigen::Index;

/// Rows of one tile, the unit of work of every pass over A and of deterministic sums: a power of two,
/// clamp(256 KiB / (8 columns), 16, 1024) rounded down. A function of the number of columns only.
Index tile_rows(Index columns);

/// Which rank owns which rows: contiguous global ranges in rank order, of any sizes, empty ones too. Replicated.
class RowPartition {
 public:
  /// Local. `first_rows` has one entry per rank and the number of rows at the end; it must not decrease and must
  /// start at 0, else `InvalidArgument` (all ranks: the argument is replicated).
  explicit RowPartition(std::vector<std::int64_t> first_rows);

  /// Local. The default: whole tiles, spread evenly over the ranks.
  static RowPartition tiled(std::int64_t rows, Index columns, int ranks);
  /// Local. The same with blocks of so many rows in place of tiles.
  static RowPartition in_blocks(std::int64_t rows, std::int64_t block, int ranks);

  /// Collective. The partition in which this rank owns `rows_local` rows. One all-gather of 8 bytes.
  static RowPartition from_local(const Communicator& communicator, std::int64_t rows_local);

  std::int64_t rows_global() const { return first_rows_.back(); }
  int ranks() const { return static_cast<int>(first_rows_.size()) - 1; }
  std::int64_t begin(int rank) const { return first_rows_[static_cast<std::size_t>(rank)]; }
  std::int64_t end(int rank) const { return first_rows_[static_cast<std::size_t>(rank) + 1]; }
  Index rows_local(int rank) const { return static_cast<Index>(end(rank) - begin(rank)); }

 private:
  std::vector<std::int64_t> first_rows_;
};

}  // namespace attnreg
