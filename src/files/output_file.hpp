#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "files/file_descriptor.hpp"

namespace attnreg {

/// A file that appears under its name whole or not at all: it is written as `<path>.tmp.<process>.<k>` beside its
/// target and renamed by `publish`; an older file stays as it was until then. A target that is there and is not a
/// regular file (directory, symbolic link, device, pipe) is refused. Modes follow the umask.
/// Everything is local and throws `OutputError` (this rank) with path, reason and what to do.
class OutputFile {
 public:
  /// Creates the temporary file.
  explicit OutputFile(std::string path);
  /// Opens the temporary file that another rank created for `path`; that rank publishes or removes it.
  OutputFile(std::string path, std::string temporary);
  ~OutputFile();  ///< not published: the creator removes the temporary file
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  const std::string& temporary() const { return temporary_; }

  /// Sets the size and reserves the space where the file system can, so that a full disk is noticed early.
  void reserve(std::int64_t bytes);
  void write(std::int64_t offset, std::string_view bytes);
  /// Until this returns, a write that the system accepted can still be lost.
  void sync();
  /// Creator only: sync, rename, sync of the directory.
  void publish();

 private:
  std::string path_, temporary_;
  FileDescriptor file_;
  bool remove_ = false;
};

/// Local. Replaces the file at `path` by `bytes`, whole or not at all.
void write_file(const std::string& path, std::string_view bytes);

/// Local. Creates the directory and those above it; it may be there already.
void create_directories(const std::string& path);

}  // namespace attnreg
