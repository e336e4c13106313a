#include "machine.hpp"

#include <hwy/highway.h>
#include <malloc.h>
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "build_info.hpp"

namespace attnreg::bench {

namespace {

/// What follows `key` and a colon in a file of such lines; empty if there is none.
std::string field(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const auto colon = line.find(':');
    if (colon == std::string::npos) continue;
    const auto begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

double kibibytes(const std::string& path, const std::string& key) { return std::atof(field(path, key).c_str()) * 1024; }

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

int usable_cores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  return sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 0;
}

/// The target that Highway's dispatch takes of those compiled: the lowest bit is the widest.
std::string highway_target() {
  const auto usable = hwy::SupportedTargets() & HWY_TARGETS;
  return hwy::TargetName(usable & -usable);
}

std::string gigabytes(double bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", bytes / 1e9);
  return text;
}

}  // namespace

Facts machine_facts(const Communicator& communicator, int threads) {
  return {{"cpu", field("/proc/cpuinfo", "model name")},
          {"cores", std::to_string(usable_cores())},
          {"ranks", std::to_string(communicator.size())},
          {"threads", std::to_string(threads)},
          {"memory_gb", gigabytes(kibibytes("/proc/meminfo", "MemTotal"))},
          {"llc_mb", std::to_string(static_cast<int>(last_cache_bytes() / 1048576))},
          {"huge_pages", first_line("/sys/kernel/mm/transparent_hugepage/enabled")},
          {"highway", highway_target()},
          {"compiler", std::string(build_info::compiler)},
          {"flags", std::string(build_info::flags)},
          {"openblas", std::string(build_info::openblas_version)},
          {"mpi", std::string(build_info::mpi_version)},
          {"revision", std::string(build_info::git_revision)}};
}

double last_cache_bytes() {
  const std::string caches = "/sys/devices/system/cpu/cpu0/cache/index";
  double largest = 0;  // sizes are written as "32768K"
  for (int k = 0; k < 5; ++k)
    largest = std::max(largest, 1024 * std::atof(first_line(caches + std::to_string(k) + "/size").c_str()));
  return largest;
}

double load_average() {
  double loads[1] = {};
  return getloadavg(loads, 1) == 1 ? loads[0] : -1;
}

double resident_bytes() { return kibibytes("/proc/self/status", "VmRSS"); }
double peak_resident_bytes() { return kibibytes("/proc/self/status", "VmHWM"); }

bool reset_peak_memory() {
  malloc_trim(0);
  std::ofstream file("/proc/self/clear_refs");
  file << 5;
  file.flush();
  return file.good();
}

}  // namespace attnreg::bench
