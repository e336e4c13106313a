#include "app/run/run_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>
#include <utility>

#include "app/options/options.hpp"
#include "app/options/parsed_json.hpp"
#include "app/report/text.hpp"
#include "attnreg/error.hpp"
#include "errors/printable.hpp"

namespace attnreg::app {

namespace {

constexpr const char* kLockName = "/lock";

/// Field 22 of /proc/PROCESS/stat; 0: there is no such process, or no /proc.
std::int64_t start_of(std::int64_t process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto name_end = text.rfind(')');  // a name may have blanks and brackets
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(text.substr(name_end + 1));
  std::string field;
  for (int k = 3; k <= 22 && fields >> field; ++k)
    if (k == 22) return number_in<std::int64_t>(field).value_or(0);
  return 0;
}

nlohmann::ordered_json json_in(int file) {
  std::string text(4096, ' ');
  const ssize_t got = retry_interrupted([&] { return ::pread(file, text.data(), text.size(), 0); });
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return parsed_json(text);
}

[[noreturn]] void refuse_lock(const std::string& path, const std::string& reason) {
  throw OutputError("cannot lock the run directory with " + printable(path) + ": " + reason);
}

[[noreturn]] void refuse_busy(const std::string& path, const std::optional<RunOwner>& owner, bool by_file) {
  throw OutputError(printable(path.substr(0, path.size() - std::strlen(kLockName))) + " is in use by " +
                    (owner ? owner->text() : std::string("another run")) +
                    "; wait for it, or choose another directory" +
                    (by_file ? ". If that run is gone, remove " + printable(path) : ""));
}

/// Whether the open file is the one that has the name.
bool has_name(int file, const std::string& path) {
  struct stat opened {
  }, named{};
  return ::fstat(file, &opened) == 0 && ::lstat(path.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
         opened.st_dev == named.st_dev;
}

bool has_no_locks(int error) { return error == ENOLCK || error == EOPNOTSUPP || error == ENOSYS || error == EINVAL; }

}  // namespace

bool RunOwner::is_here() const { return host == host_name(); }

bool RunOwner::is_gone() const {
  if (!is_here()) return false;
  const std::int64_t found = start_of(process);
  if (found == 0) return ::kill(static_cast<pid_t>(process), 0) != 0 && errno == ESRCH;
  return start != 0 && found != start;
}

std::string RunOwner::text() const {
  return "process " + std::to_string(process) + " on " + printable(host) + ", since " + printable(since);
}

RunOwner this_process() {
  const std::int64_t process = ::getpid();
  return {host_name(), process, start_of(process), utc_time(std::time(nullptr))};
}

nlohmann::ordered_json to_json(const RunOwner& owner) {
  return {{"host", owner.host}, {"pid", owner.process}, {"process_start", owner.start}, {"started", owner.since}};
}

std::optional<RunOwner> owner_in(const nlohmann::ordered_json& json) {
  if (!json.is_object()) return std::nullopt;
  const auto has = [&](const char* name, auto is) { return json.contains(name) && (json[name].*is)(); };
  using Json = nlohmann::ordered_json;
  if (!has("host", &Json::is_string) || !has("pid", &Json::is_number_integer) ||
      !has("process_start", &Json::is_number_integer) || !has("started", &Json::is_string))
    return std::nullopt;
  return RunOwner{json["host"], json["pid"], json["process_start"], json["started"]};
}

LockReach lock_reach(std::istream& mountinfo, unsigned major, unsigned minor) {
  const std::string numbers = std::to_string(major) + ":" + std::to_string(minor);
  std::string line, word;
  while (std::getline(mountinfo, line)) {
    std::istringstream words(line);
    for (int k = 0; k < 3; ++k) words >> word;
    if (word != numbers) continue;
    while (words >> word && word != "-") continue;
    std::string type, device, options;
    words >> type >> device >> options;
    const auto has = [&](const char* option) { return ("," + options + ",").find(option) != std::string::npos; };
    if (type == "fuse" || type.starts_with("fuse.") || type == "beegfs" || has(",nolock,") || has(",localflock,") ||
        has(",local_lock=flock,") || has(",local_lock=all,"))
      return LockReach::this_host;
  }
  return LockReach::all;
}

LockReach lock_reach(const std::string& directory) {
  struct stat facts {};
  std::ifstream mountinfo("/proc/self/mountinfo");
  if (::stat(directory.c_str(), &facts) != 0) return LockReach::all;  // what opens the lock says why
  return lock_reach(mountinfo, major(facts.st_dev), minor(facts.st_dev));
}

RunLock::RunLock(const std::string& directory, LockReach reach) : path_(directory + kLockName) {
  constexpr int kAttempts = 100;  // another run may end, and take its lock with it, between two calls
  constexpr int kPatience = 5;    // `is_held` holds it for a moment; a run names itself a moment after it has begun
  for (int k = 0; k < kAttempts; ++k) {
    constexpr int kFlags = O_RDWR | O_NOFOLLOW | O_CLOEXEC;
    file_ = FileDescriptor(retry_interrupted([&] { return ::open(path_.c_str(), kFlags | O_CREAT | O_EXCL, 0666); }));
    const bool is_new = file_.is_open();
    if (!is_new) {
      if (errno != EEXIST) refuse_lock(path_, std::strerror(errno));
      file_ = FileDescriptor(retry_interrupted([&] { return ::open(path_.c_str(), kFlags); }));
      if (!file_.is_open() && errno == ENOENT) continue;
      if (!file_.is_open()) refuse_lock(path_, std::strerror(errno));
    }
    const bool is_locked = retry_interrupted([&] { return ::flock(file_.get(), LOCK_EX | LOCK_NB); }) == 0;
    const int error = errno;
    const auto owner = is_new ? std::nullopt : owner_in(json_in(file_.get()));
    const bool is_of_another = is_locked && !is_new && reach == LockReach::this_host && (!owner || !owner->is_here());
    if (is_of_another || (!is_locked && error == EWOULDBLOCK)) {
      if (k >= kPatience) refuse_busy(path_, owner, is_of_another);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      continue;
    }
    if (!is_locked) {
      if (!has_no_locks(error)) refuse_lock(path_, std::strerror(error));
      if (!is_new) {
        if (!owner || !owner->is_gone()) refuse_busy(path_, owner, true);
        ::unlink(path_.c_str());
        continue;
      }
    }
    if (!has_name(file_.get(), path_)) continue;
    const std::string text = json_text(to_json(this_process()));
    const auto size = static_cast<ssize_t>(text.size());
    if (::ftruncate(file_.get(), 0) == 0 && ::pwrite(file_.get(), text.data(), text.size(), 0) == size) return;
    const int failure = errno;
    ::unlink(path_.c_str());
    refuse_lock(path_, std::strerror(failure));
  }
  refuse_lock(path_, "other runs begin and end in this directory all the time");
}

RunLock::~RunLock() {
  if (file_.is_open() && has_name(file_.get(), path_)) ::unlink(path_.c_str());
}

RunLock& RunLock::operator=(RunLock&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  return *this;
}

std::optional<bool> RunLock::is_held(const std::string& directory) {
  const std::string path = directory + kLockName;
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!file.is_open()) return errno == ENOENT ? std::optional(false) : std::nullopt;
  if (retry_interrupted([&] { return ::flock(file.get(), LOCK_SH | LOCK_NB); }) == 0) return false;
  return errno == EWOULDBLOCK ? std::optional(true) : std::nullopt;
}

}  // namespace attnreg::app
