#include "ranks/mpi_facts.hpp"

#include <mpi.h>

#include <array>

#include "attnreg/error.hpp"

namespace attnreg {

MpiFacts mpi_facts() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> library{};
  int length = 0, version = 0, subversion = 0, level = MPI_THREAD_SINGLE;
  for (const int result : {MPI_Get_library_version(library.data(), &length), MPI_Get_version(&version, &subversion),
                           MPI_Query_thread(&level)})
    if (result != MPI_SUCCESS) throw InternalError("MPI does not say what it is");
  std::string name = "single";
  if (level == MPI_THREAD_FUNNELED) name = "funneled";
  if (level == MPI_THREAD_SERIALIZED) name = "serialized";
  if (level == MPI_THREAD_MULTIPLE) name = "multiple";
  return {{library.data(), static_cast<std::size_t>(length)},
          std::to_string(version) + "." + std::to_string(subversion),
          name};
}

}  // namespace attnreg
