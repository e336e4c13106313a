// Which rows are whose: tiles, blocks and sizes of the ranks' own.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "attnreg/communicator.hpp"
#include "attnreg/error.hpp"
#include "attnreg/row_partition.hpp"

namespace attnreg::test_row_partition {

TEST(RowPartition, TileRowsIsAPowerOfTwoThatFillsTheCache) {
  EXPECT_EQ(tile_rows(0), 1024);
  EXPECT_EQ(tile_rows(1), 1024);
  EXPECT_EQ(tile_rows(32), 1024);
  EXPECT_EQ(tile_rows(33), 512);
  EXPECT_EQ(tile_rows(100), 256);
  EXPECT_EQ(tile_rows(257), 64);
  EXPECT_EQ(tile_rows(2048), 16);
  EXPECT_EQ(tile_rows(1000000), 16);
}

TEST(RowPartition, TiledGivesWholeTilesEvenly) {
  const auto partition = RowPartition::tiled(5000, 100, 4);  // 20 tiles of 256 rows, the last one shorter
  EXPECT_EQ(partition.rows_global(), 5000);
  EXPECT_EQ(partition.ranks(), 4);
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(partition.begin(rank), 1280 * rank);
    EXPECT_EQ(partition.end(rank), std::min(5000, 1280 * (rank + 1)));
  }
  const auto small = RowPartition::tiled(3, 100, 4);
  EXPECT_EQ(small.rows_local(0), 3);
  EXPECT_EQ(small.rows_local(3), 0);
}

// Of files without values one extent may be any number.
TEST(RowPartition, OfAnyExtents) {
  constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t rows : {std::int64_t{0}, std::int64_t{1}, largest})
    for (const std::int64_t columns : {std::int64_t{0}, std::int64_t{1}, std::int64_t{1} << 61, largest})
      for (const int ranks : {1, 3}) {
        const auto partition = RowPartition::tiled(rows, columns, ranks);
        EXPECT_EQ(partition.ranks(), ranks);
        EXPECT_EQ(partition.rows_global(), rows);
        EXPECT_LE(partition.rows_local(ranks - 1) - rows / ranks, tile_rows(columns));
      }
}

TEST(RowPartition, FromLocalAndItsChecks) {
  const Communicator comm(MPI_COMM_WORLD);
  const auto partition = RowPartition::from_local(comm, comm.rank() == 0 ? 0 : 10 * comm.rank());
  EXPECT_EQ(partition.rows_global(), 5 * comm.size() * (comm.size() - 1));
  EXPECT_EQ(partition.begin(comm.rank()), 5 * comm.rank() * (comm.rank() - 1));
  EXPECT_THROW(RowPartition({}), InvalidArgument);
  EXPECT_THROW(RowPartition({0}), InvalidArgument);
  EXPECT_THROW(RowPartition({1, 2}), InvalidArgument);
  EXPECT_THROW(RowPartition({0, 5, 4}), InvalidArgument);
  EXPECT_THROW(RowPartition::tiled(-1, 3, 2), InvalidArgument);
  EXPECT_THROW(RowPartition::in_blocks(4, 0, 2), InvalidArgument);
  EXPECT_THROW(RowPartition::in_blocks(4, 1, 0), InvalidArgument);
}

}  // namespace attnreg::test_row_partition
