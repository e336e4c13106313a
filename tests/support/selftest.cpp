// Tests that misbehave on the rank given by ATTNREG_SELFTEST_RANK; check_runner.cmake looks at what the runner says.

#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdlib>
#include <stdexcept>

namespace {

bool is_the_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const char* chosen = std::getenv("ATTNREG_SELFTEST_RANK");
  return chosen != nullptr && rank == std::atoi(chosen);
}

TEST(Selftest, Passes) { MPI_Barrier(MPI_COMM_WORLD); }

TEST(Selftest, FailsOnOneRank) {
  MPI_Barrier(MPI_COMM_WORLD);
  EXPECT_FALSE(is_the_rank()) << "planted failure";
}

TEST(Selftest, ThrowsOnOneRank) {
  if (is_the_rank()) throw std::runtime_error("planted exception");
}

TEST(Selftest, LeavesTheOthersInABarrier) {
  if (is_the_rank()) FAIL() << "planted early return";
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST(Selftest, LeaksOnOneRank) {
  if (!is_the_rank()) return;
  auto* volatile lost = new int[1000];
  lost[0] = 1;
  lost = nullptr;
}

}  // namespace
