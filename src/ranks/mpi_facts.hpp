#pragma once

#include <string>

namespace attnreg {

/// What MPI says of itself.
struct MpiFacts {
  std::string library;       ///< "Open MPI v4.1.4, package: ..."
  std::string standard;      ///< "3.1"
  std::string thread_level;  ///< "funneled"
};

/// Local. MPI must be initialized.
MpiFacts mpi_facts();

}  // namespace attnreg
