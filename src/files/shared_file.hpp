#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

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
  std::int64_t bytes_written() const { return bytes_written_; }

  /// Collective. fsync, agreement, rename; an error if the ranks together did not write all bytes.
  void commit();

 private:
  Communicator communicator_;
  std::string path_, error_;
  std::int64_t bytes_, bytes_written_ = 0;
  std::unique_ptr<OutputFile> file_;
};

}  // namespace attnreg
