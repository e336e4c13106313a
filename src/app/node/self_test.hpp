#pragma once

#include <string>

#include "attnreg/communicator.hpp"

namespace attnreg::app {

/// What the ranks do together, measured. Replicated.
struct SelfTest {
  bool right = false;                 ///< the solve converged, to a point where |g| is small by a formula of its own
  std::string found;                  ///< "converged, |g| / |g(0)| = 3.1e-15 by the definition"
  double bytes_per_second = 0;        ///< read by all ranks at once, from memory
  double reduction_seconds = 0;       ///< all-reduce of 8 bytes
  double long_reduction_seconds = 0;  ///< all-reduce of 1 MiB
  double seconds = 0;
};

/// Collective. Solves a problem of 2000 x 20 and checks the gradient by its definition, row by row; then times reads of
/// memory and all-reduces. About 2 s, less on an idle machine; 64 MB per rank.
SelfTest self_test(const Communicator& communicator);

}  // namespace attnreg::app
