#include "ranks/memory.hpp"

#include <malloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <limits>
#include <optional>
#include <string_view>

namespace attnreg {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// The first number in `text` after spaces; nothing for "max" and the like.
std::optional<double> number_in(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{}) return std::nullopt;
  return static_cast<double>(value);
}

/// Bytes that can still be taken, and by what they are limited.
struct Room {
  double bytes = infinity;
  std::string limit;
};

Room smaller(Room one, Room other) { return other.bytes < one.bytes ? std::move(other) : std::move(one); }

/// The number that follows `key` at the start of a line; without a key, that of the first line.
std::optional<double> value_of(const std::string& path, std::string_view key = "") {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key)) return number_in(std::string_view(line).substr(key.size()));
  }
  return std::nullopt;
}

/// Names of the files of a memory control group.
struct GroupFiles {
  const char *mount, *limit, *usage, *inactive_cache, *active_cache;
};
constexpr GroupFiles version_1{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                               "total_inactive_file ", "total_active_file "};
constexpr GroupFiles version_2{"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file ", "active_file "};

Room room_in(const std::string& directory, const GroupFiles& files) {
  const std::string limit_file = directory + "/" + files.limit;
  const auto limit = value_of(limit_file);
  const auto usage = value_of(directory + "/" + files.usage);
  if (!limit || !usage) return {};
  const std::string statistics = directory + "/memory.stat";
  const double cache =
      value_of(statistics, files.inactive_cache).value_or(0) + value_of(statistics, files.active_cache).value_or(0);
  return {std::max(0.0, *limit - std::max(0.0, *usage - cache)), "the control group's " + limit_file};
}

/// The group `group` ("/a/b") and those above it. In a container the path may be one of the host; then only the
/// mount itself exists, and it is the container's own group.
Room room_in_hierarchy(const std::string& root, std::string group, const GroupFiles& files) {
  const std::string mount = root + files.mount;
  Room room = room_in(mount, files);
  while (group.size() > 1) {
    room = smaller(room, room_in(mount + group, files));
    group.resize(group.find_last_of('/') == std::string::npos ? 0 : group.find_last_of('/'));
  }
  return room;
}

Room control_group_room(const std::string& root) {
  Room room;
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // hierarchy:controllers:path
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string group = line.substr(second + 1);
    if (controllers == ",,") room = smaller(room, room_in_hierarchy(root, group, version_2));
    if (controllers.find(",memory,") != std::string::npos)
      room = smaller(room, room_in_hierarchy(root, group, version_1));
  }
  return room;
}

Room node_room(const std::string& root) {
  const auto kibibytes = value_of(root + "/proc/meminfo", "MemAvailable:");
  return smaller({kibibytes ? *kibibytes * 1024 : infinity, "MemAvailable"}, control_group_room(root));
}

/// What the limits of this process leave.
Room process_room(const std::string& root) {
  const auto left = [&](const char* limit, const char* used, const char* name) -> Room {
    const auto most = value_of(root + "/proc/self/limits", limit);
    const auto kibibytes = value_of(root + "/proc/self/status", used);
    if (!most || !kibibytes) return {};
    return {std::max(0.0, *most - *kibibytes * 1024), name};
  };
  return smaller(left("Max address space", "VmSize:", "the limit on the address space (ulimit -v)"),
                 left("Max data size", "VmData:", "the limit on the data segment (ulimit -d)"));
}

std::string gigabytes(double bytes) {
  char text[64];
  std::snprintf(text, sizeof text, "%.3g GB", bytes / 1e9);
  return text;
}

}  // namespace

double available_node_memory(const std::string& root) { return node_room(root).bytes; }

double available_process_memory(const std::string& root) { return process_room(root).bytes; }

double peak_memory(const std::string& root) {
  return 1024 * value_of(root + "/proc/self/status", "VmHWM:").value_or(0);
}

bool forget_peak_memory() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
  constexpr char kPeakOfMemory[] = "5";  // man 5 proc: clear_refs
  std::ofstream file("/proc/self/clear_refs");
  return static_cast<bool>(file << kPeakOfMemory << std::flush);
}

void advise_huge_pages(void* memory, std::size_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr std::uintptr_t kPage = 4096;  // a hint for whole pages
  constexpr std::size_t kHugePage = std::size_t{1} << 21;
  if (bytes < kHugePage) return;
  const auto first = (reinterpret_cast<std::uintptr_t>(memory) + kPage - 1) / kPage * kPage;
  const auto last = (reinterpret_cast<std::uintptr_t>(memory) + bytes) / kPage * kPage;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  static_cast<void>(memory), static_cast<void>(bytes);
#endif
}

void require_memory(const Communicator& communicator, double bytes_this_rank, const std::string& what) {
  const int ranks = communicator.ranks_on_node();
  const double needed = communicator.max(bytes_this_rank) * ranks;
  communicator.agree([&] {
    constexpr double kSmall = 1 << 20;  // the look at some ten files of /proc and /sys would take longer than the work
    if (needed < kSmall) return;
    const Room own = process_room("");
    if (bytes_this_rank > own.bytes)
      throw OutOfMemory(what + ": " + gigabytes(bytes_this_rank) + " needed on rank " +
                        std::to_string(communicator.rank()) + ", but " + own.limit + " leaves " + gigabytes(own.bytes) +
                        "; raise it, or use more ranks; --storage float halves what matrices of a file take");
    const Room node = node_room("");
    if (needed <= node.bytes) return;
    throw OutOfMemory(what + ": " + gigabytes(needed) + " needed on a node (" + std::to_string(ranks) + " ranks), " +
                      gigabytes(node.bytes) + " available by " + node.limit +
                      "; use more nodes; --storage float halves what matrices of a file take");
  });
}

void try_address_space(const Communicator& communicator, double bytes, const std::string& what) {
  communicator.agree([&] {
    const auto size = static_cast<std::size_t>(bytes);
    void* const memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory != MAP_FAILED) {
      munmap(memory, size);
      return;
    }
    const Room own = process_room("");
    throw OutOfMemory(what + ": the system refuses " + gigabytes(bytes) + " of address space to rank " +
                      std::to_string(communicator.rank()) + "; " +
                      (own.bytes < bytes ? own.limit + " leaves " + gigabytes(own.bytes) + ": raise it"
                                         : "look at vm.overcommit_memory and the limits of the job"));
  });
}

}  // namespace attnreg
