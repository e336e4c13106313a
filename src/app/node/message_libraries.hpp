#pragma once

#include <string_view>
#include <vector>

#include "app/node/known_faults.hpp"

namespace attnreg::app {

/// Local. The MPI library, named and numbered from what MPI_Get_library_version says ("Open MPI v4.1.4, package: ...",
/// "MPICH Version: 4.0.2"); other libraries have their first line for a name and no version.
MessageLibrary mpi_library(std::string_view description);

/// Local. The MPI library, and those of PMIx and UCX that it has loaded, as shared libraries of their own, into this
/// process. MPI must be initialized; asks /var/lib/dpkg/status for the packages.
std::vector<MessageLibrary> message_libraries();

}  // namespace attnreg::app
