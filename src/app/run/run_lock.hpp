#pragma once

#include <cstdint>
#include <iosfwd>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "files/file_descriptor.hpp"

namespace attnreg::app {

/// A process, in words that outlive it. Numbers of processes are used again; with the time of its start one is unique
/// on its host.
struct RunOwner {
  std::string host;
  std::int64_t process = 0, start = 0;  ///< start: in clock ticks since the host started; 0: not known
  std::string since;                    ///< UTC

  bool is_here() const;  ///< Local. Of this host.
  bool is_gone() const;  ///< Local. Of this host, and it runs no more.
  std::string text() const;
};

RunOwner this_process();
nlohmann::ordered_json to_json(const RunOwner& owner);
/// None where the members are missing.
std::optional<RunOwner> owner_in(const nlohmann::ordered_json& json);

/// Which processes know of a lock that `flock` gives.
enum class LockReach { all, this_host };

/// The reach of locks on the file system with these numbers, by what /proc/self/mountinfo says of it: network file
/// systems may be mounted so that each host has its own locks, and some are never mounted otherwise.
LockReach lock_reach(std::istream& mountinfo, unsigned major, unsigned minor);
LockReach lock_reach(const std::string& directory);

/// One run at a time in a directory: a lock of the file `lock` there, which says whose it is. Where the file system has
/// no locks, or other hosts do not know of them, that the file is there is the lock for them. The file goes with the
/// lock; that of a killed run is taken over. Local, for one rank.
class RunLock {
 public:
  RunLock() = default;
  /// Throws `OutputError` (this rank): the directory is in use, and by whom.
  explicit RunLock(const std::string& directory) : RunLock(directory, lock_reach(directory)) {}
  RunLock(const std::string& directory, LockReach reach);
  ~RunLock();
  RunLock(RunLock&& other) noexcept { *this = std::move(other); }
  RunLock& operator=(RunLock&& other) noexcept;

  /// Local. Whether some process holds the lock; none where nobody can tell.
  static std::optional<bool> is_held(const std::string& directory);

 private:
  std::string path_;
  FileDescriptor file_;
};

}  // namespace attnreg::app
