#include "attnreg/row_partition.hpp"

#include <algorithm>
#include <bit>
#include <string>

#include "errors/refuse.hpp"

namespace attnreg {

Index tile_rows(Index columns) {
  constexpr Index kNumbers = 256 * 1024 / 8;
  const auto rows = std::clamp<Index>(kNumbers / std::max<Index>(columns, 1), 16, 1024);
  return static_cast<Index>(std::bit_floor(static_cast<std::uint64_t>(rows)));
}

RowPartition::RowPartition(std::vector<std::int64_t> first_rows) : first_rows_(std::move(first_rows)) {
  if (first_rows_.size() < 2 || first_rows_.front() != 0)
    refuse("a row partition needs one first row per rank, from row 0 on, and the number of rows");
  for (std::size_t k = 1; k < first_rows_.size(); ++k)
    if (first_rows_[k] < first_rows_[k - 1])
      refuse("a row partition must not decrease: rank " + std::to_string(k - 1) + " would own rows " +
             std::to_string(first_rows_[k - 1]) + " to " + std::to_string(first_rows_[k]));
}

RowPartition RowPartition::tiled(std::int64_t rows, Index columns, int ranks) {
  return in_blocks(rows, tile_rows(columns), ranks);
}

RowPartition RowPartition::in_blocks(std::int64_t rows, std::int64_t block, int ranks) {
  if (rows < 0 || block < 1 || ranks < 1)
    refuse("a row partition needs at least 0 rows, in blocks of at least 1, for at least 1 rank");
  const std::int64_t blocks = rows / block + (rows % block != 0);
  std::vector<std::int64_t> first_rows(static_cast<std::size_t>(ranks) + 1);
  for (int rank = 0; rank <= ranks; ++rank) {
    const std::int64_t first_block = blocks / ranks * rank + std::min<std::int64_t>(blocks % ranks, rank);
    first_rows[static_cast<std::size_t>(rank)] = first_block < blocks ? first_block * block : rows;
  }
  return RowPartition(std::move(first_rows));
}

RowPartition RowPartition::from_local(const Communicator& communicator, std::int64_t rows_local) {
  const auto sizes = communicator.all_gather(rows_local);
  std::vector<std::int64_t> first_rows{0};
  for (auto size : sizes) first_rows.push_back(first_rows.back() + size);
  return RowPartition(std::move(first_rows));
}

}  // namespace attnreg
