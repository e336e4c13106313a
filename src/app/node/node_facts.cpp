#include "app/node/node_facts.hpp"

#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <sstream>

#include "errors/printable.hpp"
#include "files/output_file.hpp"
#include "ranks/memory.hpp"

extern "C" char** environ;

namespace attnreg::app {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// The text behind "key : " in the first line of `path` that begins with `key`.
std::string text_of(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(':');
    if (!line.starts_with(key) || colon == std::string::npos) continue;
    const std::size_t first = line.find_first_not_of(" \t", colon + 1);
    return first == std::string::npos ? "" : line.substr(first);
  }
  return "";
}

std::string kernel() {
  utsname system{};
  uname(&system);
  return std::string(system.sysname) + " " + system.release;
}

/// The engines leave these marks.
std::string container_engine() {
  std::error_code ignored;
  if (std::getenv("APPTAINER_CONTAINER") != nullptr || std::getenv("SINGULARITY_CONTAINER") != nullptr)
    return "apptainer";
  if (std::filesystem::exists("/.dockerenv", ignored)) return "docker";
  if (std::filesystem::exists("/run/.containerenv", ignored)) return "podman";
  return std::getenv("container") != nullptr ? "container" : "";
}

/// The quota in /sys/fs/cgroup of version 2 ("max 100000") or 1; only the process's own mount is looked at.
double core_quota() {
  double quota = 0, period = 0;
  if (std::ifstream version2("/sys/fs/cgroup/cpu.max"); version2 >> quota >> period) return quota / period;
  std::ifstream quota1("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), period1("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (quota1 >> quota && period1 >> period && quota > 0 && period > 0) return quota / period;
  return kInfinity;
}

double soft_limit(__rlimit_resource_t resource) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kInfinity;
  return static_cast<double>(limit.rlim_cur);
}

/// Free bytes of the file system that holds `path`; infinity if it cannot be asked.
double free_bytes(const std::string& path) {
  struct statfs facts {};
  if (statfs(path.c_str(), &facts) != 0) return kInfinity;
  return static_cast<double>(facts.f_bavail) * static_cast<double>(facts.f_bsize);
}

/// The type of the innermost mount that holds `path`, from /proc/self/mounts.
std::string file_system_type(const std::string& path) {
  std::error_code ignored;
  const std::string absolute = std::filesystem::weakly_canonical(path, ignored).string();
  std::ifstream mounts("/proc/self/mounts");
  std::string best, type = "unknown";
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words(line);
    std::string device, place, name;
    words >> device >> place >> name;
    const bool holds = place == "/" || absolute == place || absolute.starts_with(place + "/");
    if (holds && place.size() >= best.size()) {
      best = place;
      type = name;
    }
  }
  return type;
}

/// Writes as a run does: a temporary file, sync, rename; then removes it.
void try_directory(const std::string& directory, NodeFacts& facts) {
  facts.directory_type = file_system_type(directory);
  facts.directory_free = free_bytes(directory);
  const auto start = std::chrono::steady_clock::now();
  const std::string path = directory + "/.attnreg-doctor-" + facts.host + "-" + std::to_string(facts.rank);
  try {
    write_file(path, std::string(std::size_t{1} << 20, '\0'));
  } catch (const OutputError& error) {
    facts.directory_error = error.what();
  }
  facts.sync_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::error_code ignored;
  std::filesystem::remove(path, ignored);
}

/// Collective. Reads a number out of the memory of the next rank on this host, as Open MPI does with long messages
/// (CMA); of itself where it is alone. Docker's seccomp profile and Yama forbid it.
std::string try_copy(const Communicator& communicator, const std::string& host) {
  static constexpr std::uint64_t kMark = 0x61747472656721ull;
  const std::uint64_t mine = kMark;
  const auto hosts = communicator.all_gather(static_cast<std::int64_t>(std::hash<std::string>{}(host)));
  const auto processes = communicator.all_gather(static_cast<std::int64_t>(getpid()));
  const auto places = communicator.all_gather(static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(&mine)));
  auto next = static_cast<std::size_t>(communicator.rank());
  do next = (next + 1) % hosts.size();
  while (hosts[next] != hosts[static_cast<std::size_t>(communicator.rank())]);

  std::uint64_t read = 0;
  iovec here{&read, sizeof read}, there{reinterpret_cast<void*>(static_cast<std::intptr_t>(places[next])), sizeof read};
  const ssize_t count = process_vm_readv(static_cast<pid_t>(processes[next]), &here, 1, &there, 1, 0);
  const std::string error = count == sizeof read && read == kMark ? "" : std::strerror(count < 0 ? errno : EIO);
  communicator.barrier();  // the number stays where it is until all have read
  return error;
}

/// Whether Open MPI's variable, or one of its files of settings, switches these reads off.
bool copies_off() {
  const char* name = "btl_vader_single_copy_mechanism";
  if (const char* value = std::getenv("OMPI_MCA_btl_vader_single_copy_mechanism")) return value == std::string("none");
  const char* home = std::getenv("HOME");
  for (const std::string& path : {std::string(home != nullptr ? home : "") + "/.openmpi/mca-params.conf",
                                  std::string("/etc/openmpi/openmpi-mca-params.conf")}) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);)
      if (line.starts_with(name) && line.find("none") != std::string::npos) return true;
  }
  return false;
}

std::vector<std::string> mpi_settings() {
  std::vector<std::string> settings;
  for (char** variable = environ; *variable != nullptr; ++variable)
    for (const std::string_view prefix : {"OMPI_MCA_btl", "OMPI_MCA_pml", "OMPI_MCA_mpi_yield", "OMPI_MCA_coll",
                                          "OMPI_MCA_hwloc", "OMPI_MCA_rmaps", "OMP_", "OPENBLAS_"})
      if (std::string_view(*variable).starts_with(prefix)) settings.emplace_back(*variable);
  std::ranges::sort(settings);
  return settings;
}

NodeFacts local_facts(int rank, const ThreadLayout& threads, const std::string& directory) {
  NodeFacts facts;
  static_cast<ThreadLayout&>(facts) = threads;
  facts.rank = rank;
  facts.host = host_name();
  facts.processor = text_of("/proc/cpuinfo", "model name");
  facts.operating_system = kernel();
  facts.container = container_engine();
  facts.user = geteuid() == 0 ? "root" : "user";
  facts.node_cores = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  facts.core_list = text_of("/proc/self/status", "Cpus_allowed_list");
  facts.core_quota = core_quota();
  facts.memory = available_node_memory();
  facts.shared_memory = free_bytes("/dev/shm");
  facts.open_files = soft_limit(RLIMIT_NOFILE);
  facts.locked_memory = soft_limit(RLIMIT_MEMLOCK);
  facts.stack = soft_limit(RLIMIT_STACK);
  facts.processes = soft_limit(RLIMIT_NPROC);
  facts.address_space = soft_limit(RLIMIT_AS);
  facts.libraries = message_libraries();
  facts.mpi_settings = mpi_settings();
  facts.copies_off = copies_off();
  try_directory(directory, facts);
  return facts;
}

}  // namespace

std::vector<NodeFacts> node_facts(const Communicator& communicator, const ThreadLayout& threads,
                                  const std::string& directory) {
  NodeFacts mine = local_facts(communicator.rank(), threads, directory);
  mine.copy_error = try_copy(communicator, mine.host);
  std::string bytes;  // CBOR: it has infinities, and host names may be any bytes
  nlohmann::json::to_cbor(mine, bytes);
  std::vector<NodeFacts> all;
  for (int rank = 0; rank < communicator.size(); ++rank) {
    const std::string facts = communicator.broadcast(rank == communicator.rank() ? bytes : std::string(), rank);
    if (communicator.is_root()) all.push_back(nlohmann::json::from_cbor(facts));
  }
  return all;
}

}  // namespace attnreg::app
