#pragma once

#include <cstdint>
#include <string>

#include "attnreg/communicator.hpp"
#include "files/file_descriptor.hpp"

namespace attnreg {

/// Local. Throws `InvalidArgument` (this rank): the file, printable, and what is wrong with it.
[[noreturn]] void refuse_file(const std::string& path, const std::string& problem);

/// An input file: opened without waiting for the writer of a pipe, regular, and the same from open to close.
/// Everything is local and throws `InvalidArgument` (this rank) with path, reason and what to do.
class InputFile {
 public:
  /// `expected` ("a .npy file") is what a directory of that name should have been.
  explicit InputFile(std::string path, const char* expected = "a .npy file");

  std::int64_t bytes() const;
  std::int64_t modified_ns() const;
  int descriptor() const { return file_.get(); }

  /// Size and time of modification are as they were.
  void check_unchanged(std::int64_t bytes_before, std::int64_t modified_ns_before) const;

  /// Fills `size` bytes at `out` from `offset`.
  void read(std::int64_t offset, void* out, std::int64_t size) const;

 private:
  std::string path_;
  FileDescriptor file_;
};

/// Collective. Every rank reads the headers itself, since nodes may have copies of the file; they must agree. found:
/// what this rank found. Throws `InvalidArgument` on all ranks.
void require_same_file(const Communicator& communicator, const std::string& path, const std::string& what,
                       const std::string& found);

}  // namespace attnreg
