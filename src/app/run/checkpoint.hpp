#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "attnreg/error.hpp"
#include "newton/journal.hpp"

namespace attnreg::app {

/// A checkpoint that cannot be used; the message says what to do.
class CheckpointError : public Error {
 public:
  explicit CheckpointError(const std::string& message) : Error(ExitCode::checkpoint, message) {}
};

/// What `attnreg resume` goes on from: the command, and how far it came.
struct Checkpoint {
  std::vector<std::string> words;  ///< the command line from the command's name on
  std::string directory;           ///< where it was given
  nlohmann::ordered_json inputs;   ///< `identities` of the files; none: they were not looked at yet
  Journal::Parts stages;
  std::int64_t history_bytes = 0;  ///< of the history
  std::string written;             ///< UTC
  int resumed = 0;                 ///< how often the run went on

  bool has_begun() const;  ///< Local. Some iteration has left something.
};

/// Local. Size, time of modification, and a checksum of the first and the last 64 KiB of each of the files, by path;
/// what is no regular file is left out. Throws `InvalidArgument` (this rank).
nlohmann::ordered_json identities(const std::vector<std::string>& paths);

/// Checkpoints as files, local, for one rank: two slots in the directory `checkpoint` of a run. Each is written whole,
/// with a checksum, over the older one.
class CheckpointSlots {
 public:
  CheckpointSlots() = default;  ///< no directory: not to be written to
  /// What is there is of the run that goes on, or else is removed. Throws `OutputError` (this rank).
  CheckpointSlots(const std::string& run_directory, bool goes_on);

  /// Throws `OutputError` (this rank).
  void write(const Checkpoint& checkpoint);
  /// None is needed any more.
  void remove() const;

  /// The newest whole checkpoint of a run. Throws `CheckpointError` (this rank).
  static Checkpoint read(const std::string& run_directory);

 private:
  std::string path_;
  std::uint64_t count_ = 0;  // of checkpoints written
};

/// Local. A checkpoint as the bytes of a file; count: the newer of two has the larger one.
std::string to_bytes(const Checkpoint& checkpoint, std::uint64_t count);
/// Local. Throws `CheckpointError` (this rank) for anything else.
Checkpoint from_bytes(std::string_view bytes, std::uint64_t& count);

}  // namespace attnreg::app
