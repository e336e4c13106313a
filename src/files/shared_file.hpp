#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "attnreg/communicator.hpp"
#include "files/output_file.hpp"

namespace attnreg {

/// Collective. A file that all ranks write at once, visible under its name only after `commit`. The directory must be
/// shared by all nodes. Constructor and `commit` agree on errors and throw `OutputError` on all ranks.
class SharedFile {
 public:
  /// Reserves `bytes` bytes.
  SharedFile(const Communicator& communicator, std::string path, std::int64_t bytes);

  const std::string& path() const { return path_; }

  /// Local. An error is kept for `commit`.
  void write(std::int64_t offset, std::string_view bytes) noexcept;
  /// Local. An error of this rank for `commit`; of several the first counts.
  void keep_error(const std::string& message) noexcept;

  /// Collective. fsync, agreement, rename; an error if the ranks together did not write all bytes.
  void commit();

 private:
  Communicator communicator_;
  std::string path_, error_;
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

  std::int64_t data_bytes() const;
};

/// Collective. A `SharedFile` with one array.
class SharedArray : public SharedFile {
 public:
  SharedArray(const Communicator& communicator, std::string path, const ArrayFormat& format);

  /// Local. Data from a byte of the data on. An error is kept for `commit`.
  void write(std::int64_t offset, std::string_view bytes) noexcept { SharedFile::write(header_bytes_ + offset, bytes); }

 private:
  SharedArray(const Communicator& communicator, std::string path, const std::string& header, std::int64_t data_bytes);

  std::int64_t header_bytes_;
};

}  // namespace attnreg
