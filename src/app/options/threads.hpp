#pragma once

#include <optional>

#include "attnreg/communicator.hpp"

namespace attnreg::app {

struct ThreadLayout {
  int threads = 1;         ///< OpenMP threads of this rank
  int cores = 1;           ///< that this rank may run on
  int ranks_on_cores = 1;  ///< ranks that may run on the same cores, this one included
  bool crowded() const { return threads * ranks_on_cores > cores; }
};

/// Collective. Sets the number of OpenMP threads: `requested`, else OMP_NUM_THREADS, else the cores in this rank's
/// affinity mask divided by the ranks that share them. BLAS gets one thread, always.
ThreadLayout set_threads(const Communicator& communicator, std::optional<int> requested);

}  // namespace attnreg::app
