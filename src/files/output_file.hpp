#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "attnreg/communicator.hpp"
#include "files/file_descriptor.hpp"

namespace attnreg {

/// A file that appears under its name whole or not at all: it is written as `<path>.tmp.<process>.<k>` beside its
/// target and renamed by `publish`; an older file stays as it was until then. A target that is there and is not a
/// regular file (directory, symbolic link, device, pipe), or is an input of this process, is refused. Modes follow the
/// umask.
/// Everything is local and throws `OutputError` (this rank) with path, reason and what to do.
class OutputFile {
 public:
  enum class Shared { no, yes };  ///< whether other ranks open the file, too
  /// Creates the temporary file: without a name, where the file system can do that and no other rank opens it, so that
  /// nothing is left of it when this process is killed.
  explicit OutputFile(std::string path, Shared shared = Shared::no);
  /// Opens the temporary file that another rank created for `path`; that rank publishes or removes it.
  OutputFile(std::string path, std::string temporary);
  ~OutputFile();  ///< not published: the creator removes the temporary file
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  const std::string& temporary() const { return temporary_; }  ///< empty: without a name

  /// Sets the size and reserves the space where the file system can, so that a full disk is noticed early.
  void reserve(std::int64_t bytes);
  void write(std::int64_t offset, std::string_view bytes);
  /// Sets the size, where less was written than reserved.
  void cut(std::int64_t bytes);
  /// Until this returns, a write that the system accepted can still be lost.
  void sync();
  /// Creator only: sync, rename, sync of the directory.
  void publish();

 private:
  template <class Take>
  void name_temporary(Take&& take);

  std::string path_, temporary_;
  FileDescriptor file_;
  bool remove_ = false;
};

/// Local. Throws `OutputError` (this rank) if no file can be written there, or one is there already, unless it may be
/// replaced.
void check_output(const std::string& path, bool replaces);

/// Local. Replaces the file at `path` by `bytes`, whole or not at all.
void write_file(const std::string& path, std::string_view bytes);
/// The same with space that was reserved; the file is published.
void write_file(OutputFile& file, std::string_view bytes);

/// The same for the array of `write_npy` at `path`.
void write_npy(OutputFile& file, const std::string& path, std::span<const double> values,
               const std::vector<std::int64_t>& shape);

/// Collective. A vector of int64 in a .npy file, of which this rank has the values from `first` on.
void write_integers(const Communicator& communicator, const std::string& path, std::vector<std::int64_t> values,
                    std::int64_t first, std::int64_t size);

/// Local. Creates the directory and those above it; it may be there already.
void create_directories(const std::string& path);

/// Collective. A file that all ranks write at once, visible under its name only after `commit`. The directory must be
/// shared by all nodes. Constructor and `commit` agree on errors and throw `OutputError` on all ranks.
class SharedFile {
 public:
  /// Reserves `bytes` bytes.
  SharedFile(const Communicator& communicator, std::string path, std::int64_t bytes);

  const std::string& path() const { return path_; }

  /// Local. An error, of the file or of memory, is kept for `commit`.
  void write(std::int64_t offset, std::string_view bytes) noexcept;
  /// Local. An error of this rank for `commit`; of several the first counts.
  void keep(std::exception_ptr failure) noexcept;

  /// Collective. fsync, agreement, rename; an error if the ranks together did not write all bytes.
  void commit();

 private:
  Communicator communicator_;
  std::string path_;
  std::exception_ptr failure_;
  std::int64_t bytes_, bytes_written_ = 0;
  std::unique_ptr<OutputFile> file_;
};

/// One .npy array to be written, little endian.
struct ArrayFormat {
  std::string name;   ///< without ".npy"
  std::string dtype;  ///< "<f8"
  std::int64_t item_bytes;
  std::vector<std::int64_t> shape;
  bool fortran_order = false;

  std::string header() const;  ///< the bytes before the first element
  std::int64_t data_bytes() const;
};

/// Collective. A `SharedFile` with one array.
class SharedArray : public SharedFile {
 public:
  SharedArray(const Communicator& communicator, std::string path, const ArrayFormat& format);

  /// Local. Data from a byte of the data on. An error is kept for `commit`.
  void write(std::int64_t offset, std::string_view bytes) noexcept { SharedFile::write(header_bytes_ + offset, bytes); }

 private:
  std::int64_t header_bytes_;
};

}  // namespace attnreg
