// Who waits for a rank that works does not stand still. (A job that does is ended: tests/system/test_watchdog.py.)

#include "ranks/watchdog.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "ranks/activity.hpp"

namespace attnreg::test_watchdog {

TEST(Watchdog, ranks_that_wait_for_one_that_works_are_left_alone) {
  const Communicator communicator(MPI_COMM_WORLD);
  const double seconds = 2;
  const Watchdog watchdog(communicator, seconds);  // would abort this program
  if (communicator.is_root()) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(1.5 * seconds);
    while (std::chrono::steady_clock::now() < end) {
      note_activity("a step of work that only rank 0 has");
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  EXPECT_EQ(communicator.size(), communicator.sum(1.0));
}

}  // namespace attnreg::test_watchdog
