#pragma once

#include <mpi.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>

#include "attnreg/communicator.hpp"
#include "attnreg/error.hpp"

namespace attnreg::fuzz {

/// The one rank of this process.
inline const Communicator& communicator() {
  static const bool started = [] { return MPI_Init(nullptr, nullptr) == MPI_SUCCESS; }();
  static const Communicator self(MPI_COMM_SELF);
  if (!started) std::abort();
  return self;
}

/// The name of a file in memory that holds these bytes until the next call.
inline std::string as_file(const std::uint8_t* data, std::size_t size) {
  static const int file = ::memfd_create("fuzz", 0);
  if (::ftruncate(file, 0) != 0 || ::pwrite(file, data, size, 0) != static_cast<ssize_t>(size)) std::abort();
  return "/proc/self/fd/" + std::to_string(file);
}

/// The same under a name that ends so, for formats that the name tells. The name goes when the process ends.
inline std::string as_file(const std::uint8_t* data, std::size_t size, const std::string& ending) {
  static std::set<std::string> names;
  const std::string name = "/tmp/attnreg-fuzz-" + std::to_string(::getpid()) + ending;
  const std::string file = as_file(data, size);
  if (names.empty())
    std::atexit([] {
      for (const auto& one : names) ::unlink(one.c_str());
    });
  if (names.insert(name).second && ::symlink(file.c_str(), name.c_str()) != 0) std::abort();
  return name;
}

/// A reader gives its result or throws an error of attnreg's, which says why; all else ends the process.
template <class Read>
void read_or_refuse(Read&& read) {
  try {
    read();
  } catch (const Error&) {
  }
}

}  // namespace attnreg::fuzz
