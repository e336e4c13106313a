#pragma once

#include <mpi.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <set>
#include <string>
#include <string_view>

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
  if (::pwrite(file, data, size, 0) != static_cast<ssize_t>(size)) std::abort();
  if (::ftruncate(file, static_cast<off_t>(size)) != 0) std::abort();
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
  if (names.insert(name).second) {
    ::unlink(name.c_str());  // of a process that was killed, and had this number
    if (::symlink(file.c_str(), name.c_str()) != 0) std::abort();
  }
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

/// Reads an input in one of several ways. A hash of the input says in which: the next mutation is read in another one,
/// so that a run gets to all of them, and each input takes the time of one. What an input finds in one way only is
/// found again as long as its bytes are these. The first inputs of a process, which are kept ones, are read in all
/// ways, so that what mutations start from is known to each; with the variable ATTNREG_FUZZ_ALL all inputs are.
template <class... Reads>
void read_in_one_way(const std::uint8_t* data, std::size_t size, Reads&&... reads) {
  constexpr int kFirst = 100;
  static const bool always = std::getenv("ATTNREG_FUZZ_ALL") != nullptr;
  static int inputs = 0;
  const bool all = always || inputs++ < kFirst;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::size_t chosen = std::hash<std::string_view>{}(bytes) % sizeof...(reads);
  std::size_t way = 0;
  const auto take = [&](const auto& read) {
    if (way++ == chosen || all) read_or_refuse(read);
  };
  (take(reads), ...);
}

}  // namespace attnreg::fuzz
