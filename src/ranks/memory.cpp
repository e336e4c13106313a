#include "ranks/memory.hpp"

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

double room_in(const std::string& directory, const GroupFiles& files) {
  const auto limit = value_of(directory + "/" + files.limit);
  const auto usage = value_of(directory + "/" + files.usage);
  if (!limit || !usage) return infinity;
  const std::string statistics = directory + "/memory.stat";
  const double cache =
      value_of(statistics, files.inactive_cache).value_or(0) + value_of(statistics, files.active_cache).value_or(0);
  return std::max(0.0, *limit - std::max(0.0, *usage - cache));
}

/// The group `group` ("/a/b") and those above it. In a container the path may be one of the host; then only the
/// mount itself exists, and it is the container's own group.
double room_in_hierarchy(const std::string& root, std::string group, const GroupFiles& files) {
  const std::string mount = root + files.mount;
  double room = room_in(mount, files);
  while (group.size() > 1) {
    room = std::min(room, room_in(mount + group, files));
    group.resize(group.find_last_of('/') == std::string::npos ? 0 : group.find_last_of('/'));
  }
  return room;
}

double control_group_room(const std::string& root) {
  double room = infinity;
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // hierarchy:controllers:path
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string group = line.substr(second + 1);
    if (controllers == ",,") room = std::min(room, room_in_hierarchy(root, group, version_2));
    if (controllers.find(",memory,") != std::string::npos)
      room = std::min(room, room_in_hierarchy(root, group, version_1));
  }
  return room;
}

std::string gigabytes(double bytes) {
  char text[64];
  std::snprintf(text, sizeof text, "%.3g GB", bytes / 1e9);
  return text;
}

}  // namespace

double available_node_memory(const std::string& root) {
  const auto kibibytes = value_of(root + "/proc/meminfo", "MemAvailable:");
  return std::min(kibibytes ? *kibibytes * 1024 : infinity, control_group_room(root));
}

void advise_huge_pages(void* memory, std::size_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr std::uintptr_t kPage = 4096;  // a hint for whole pages
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
    const double available = available_node_memory();
    if (needed <= available) return;
    throw OutOfMemory(what + ": " + gigabytes(needed) + " needed on a node (" + std::to_string(ranks) + " ranks), " +
                      gigabytes(available) + " available; use more nodes, or hold the rows as float (--storage float)");
  });
}

}  // namespace attnreg
