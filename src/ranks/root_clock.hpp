#pragma once

#include <chrono>

#include "attnreg/communicator.hpp"

namespace attnreg {

/// The seconds since it was made: on rank 0, and 0 on the others, so that the sum over the ranks replicates them.
/// Local.
class RootClock {
 public:
  explicit RootClock(const Communicator& communicator) : counts_(communicator.is_root()) {}
  double seconds() const {
    return counts_ ? std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count() : 0;
  }

 private:
  bool counts_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace attnreg
