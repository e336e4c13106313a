#include "app/node/checks.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "app/report/text.hpp"
#include "build_info.hpp"
#include "errors/printable.hpp"

// Weak: another BLAS may be linked in place of OpenBLAS.
extern "C" {
__attribute__((weak)) char* openblas_get_config();
__attribute__((weak)) char* openblas_get_corename();
__attribute__((weak)) int openblas_get_parallel();
__attribute__((weak)) int openblas_get_num_threads();
}

namespace attnreg::app {

namespace {

using Status = Check::Status;
using Ranks = std::vector<NodeFacts>;

std::string gigabytes(double bytes) { return std::isfinite(bytes) ? plain(bytes / 1e9, 3) + " GB" : "no limit"; }
std::string limit(double value) { return std::isfinite(value) ? plain(value, 12) : "unlimited"; }
std::string megabytes(double bytes) { return std::isfinite(bytes) ? plain(bytes / 1e6, 3) + " MB" : "unlimited"; }

/// The smallest of one fact, over the ranks.
double least(const Ranks& ranks, double NodeFacts::*fact) { return (*std::ranges::min_element(ranks, {}, fact)).*fact; }

std::map<std::string, int> ranks_by_host(const Ranks& ranks) {
  std::map<std::string, int> hosts;
  for (const auto& rank : ranks) ++hosts[rank.host];
  return hosts;
}

/// "head: 2, w1: 1", at most eight of them.
std::string host_list(const std::map<std::string, int>& hosts) {
  std::string text;
  int shown = 0;
  for (const auto& [host, count] : hosts) {
    if (++shown > 8) return text + ", ...";
    text += (text.empty() ? "" : ", ") + printable(host) + ": " + std::to_string(count);
  }
  return text;
}

Check mpi_check(const MpiFacts& mpi) {
  const std::string running = mpi.library.substr(0, mpi.library.find_first_of(",\n"));
  return Check{"MPI", running + ", MPI " + mpi.standard + ", threads " + mpi.thread_level}
      .problem_if(mpi.thread_level == "single",
                  "this MPI allows no threads beside its own; run with --threads 1 or another MPI")
      .note_if(!running.starts_with(build_info::mpi_version),
               "built with " + std::string(build_info::mpi_version) + "; build again if anything is odd");
}

/// "Open MPI 4.1.4, PMIx 4.2.2 (package 4.2.2-1+deb12u1)".
std::string library_list(const std::vector<MessageLibrary>& libraries) {
  std::string text;
  for (const auto& [name, version, package] : libraries)
    text += (text.empty() ? "" : ", ") + name + (version.empty() ? "" : " " + version) +
            (package.empty() ? "" : " (package " + package + ")");
  return printable(text);
}

/// The libraries that messages go through, and a line for every fault that those of some rank are known for.
std::vector<Check> library_checks(const Ranks& ranks) {
  std::vector<Check> lines{{"libraries", library_list(ranks[0].libraries)}};
  std::set<std::string_view> reported;
  for (const auto& rank : ranks) {
    if (lines[0].advice.empty() && library_list(rank.libraries) != library_list(ranks[0].libraries)) {
      lines[0].status = Status::note;
      lines[0].found += "; " + library_list(rank.libraries) + " on " + printable(rank.host);
      lines[0].advice = "take the same on all hosts: other versions may not understand each other";
    }
    for (const auto& fault : known_faults_of(rank.libraries))
      if (reported.insert(fault.harm).second)
        lines.push_back({"known fault",
                         library_list(rank.libraries) + " on " + printable(rank.host) + ": " + std::string(fault.harm),
                         std::string(fault.cure) + "; " + std::string(fault.source),
                         fault.numbers ? Status::problem : Status::note});
  }
  if (lines.size() == 1) lines[0].found += ": none of the known faults";
  return lines;
}

Check hosts_check(const Ranks& ranks) {
  const auto hosts = ranks_by_host(ranks);
  return {"hosts", counted(static_cast<std::int64_t>(ranks.size()), "rank") + " on " +
                       counted(static_cast<std::int64_t>(hosts.size()), "host") + " (" + host_list(hosts) + ")"};
}

Check processors_check(const Ranks& ranks) {
  std::set<std::string> kinds;
  for (const auto& rank : ranks) kinds.insert(rank.processor);
  const std::string one = printable(*kinds.begin());
  if (kinds.size() == 1) return {"processors", one + ", " + ranks[0].operating_system};
  return {"processors", std::to_string(kinds.size()) + " kinds of processor, one is " + one,
          "results are right; bits may differ from those of a cluster of one kind", Status::note};
}

Check blas_check() {
  if (openblas_get_config == nullptr)
    return {"BLAS", "not OpenBLAS", "attnreg cannot set its threads: set them to 1 by its own variable", Status::note};
  const int flavour = openblas_get_parallel();
  const std::string name = flavour == 0 ? "serial" : flavour == 1 ? "pthread" : "OpenMP";
  const int threads = openblas_get_num_threads();
  return Check{"BLAS", std::string(openblas_get_config()) + ", kernels for " + openblas_get_corename() + ", " + name +
                           " flavour, " + counted(threads, "thread")}
      .problem_if(threads != 1, "BLAS ignores that attnreg asks for one thread; install libopenblas0-serial");
}

Check binding_check(const Ranks& ranks) {
  const auto crowded = std::ranges::count_if(ranks, &NodeFacts::crowded);
  const NodeFacts& first = ranks[0];
  const bool bound = first.cores < first.node_cores;
  const std::string shared = counted(crowded, "rank") + " of " + std::to_string(ranks.size()) +
                             " share cores with more threads than cores (oversubscribed)";
  return Check{"binding", "rank 0 may use cores " + first.core_list + " of " + std::to_string(first.node_cores) +
                              " with " + counted(first.threads, "thread") + (bound ? "" : ", not bound") +
                              (crowded > 0 ? "; " + shared : "")}
      .note_if(crowded > 0, "fewer ranks or --threads; with several threads a rank: mpirun --map-by slot:PE=THREADS");
}

Check quota_check(const Ranks& ranks) {
  const double quota = least(ranks, &NodeFacts::core_quota);
  if (!std::isfinite(quota)) return {"core quota", "none"};
  return Check{"core quota", plain(quota, 3) + " cores' worth of time (control group)"}.note_if(
      quota + 0.01 < ranks[0].threads * ranks[0].ranks_on_cores,
      "more threads than that are stopped in turn: use fewer, or raise the container's --cpus");
}

Check copy_check(const Ranks& ranks) {
  const auto failed = std::ranges::find_if(ranks, [](const NodeFacts& rank) { return !rank.copy_error.empty(); });
  const std::string where = ranks[0].container.empty() ? "" : " (in " + ranks[0].container + ")";
  if (failed == ranks.end()) return {"CMA", "ranks of a node can read each other's memory" + where};
  const bool told = std::ranges::all_of(ranks, &NodeFacts::copies_off);
  if (told) return {"CMA", "not permitted" + where + ", and Open MPI was told so"};
  return {"CMA", "process_vm_readv: " + failed->copy_error + where,
          "set OMPI_MCA_btl_vader_single_copy_mechanism=none, else long messages print `Read -1` and go a slower way; "
          "the image of docker/Dockerfile has it",
          Status::note};
}

Check shared_memory_check(const Ranks& ranks) {
  constexpr double kPerRank = 4 << 20;  // what Open MPI's vader takes for each rank of a node
  int most = 0;
  for (const auto& [host, count] : ranks_by_host(ranks)) most = std::max(most, count);
  const double free = least(ranks, &NodeFacts::shared_memory);
  return Check{"/dev/shm", gigabytes(free) + " free"}.note_if(
      free < kPerRank * most, std::to_string(most) + " ranks on a node need " + gigabytes(kPerRank * most) +
                                  "; in a container raise --shm-size");
}

Check limits_check(const Ranks& ranks) {
  const double files = least(ranks, &NodeFacts::open_files);
  const double space = least(ranks, &NodeFacts::address_space);
  // mpirun and its daemons hold a few descriptors for each rank and node, TCP one for each peer.
  const double needed = 64 + 8 * static_cast<double>(ranks.size());
  return Check{"limits", "open files " + limit(files) + ", stack " + megabytes(least(ranks, &NodeFacts::stack)) +
                             ", locked memory " + megabytes(least(ranks, &NodeFacts::locked_memory)) + ", processes " +
                             limit(least(ranks, &NodeFacts::processes)) + ", address space " + megabytes(space)}
      .note_if(std::isfinite(space), "a limited address space (ulimit -v) can end a run that fits into memory")
      .problem_if(files < needed, "ulimit -n " + plain(needed, 12) + " or more");
}

Check memory_check(const Ranks& ranks) {
  return {"memory", gigabytes(least(ranks, &NodeFacts::memory)) + " free on the node with the least"};
}

Check directory_check(const Ranks& ranks) {
  const NodeFacts& first = ranks[0];  // the rank that writes; scores and problems are written by all
  const auto failed = std::ranges::find_if(ranks, [](const NodeFacts& rank) { return !rank.directory_error.empty(); });
  if (failed != ranks.end())
    return {"file system", "rank " + std::to_string(failed->rank) + ": " + printable(failed->directory_error),
            "choose another directory for -o; all nodes should see it",
            failed->rank == 0 ? Status::problem : Status::note};
  return Check{"file system", first.directory_type + ", " + gigabytes(first.directory_free) +
                                  " free, 1 MiB is safe after " + plain(1e3 * first.sync_seconds, 3) + " ms"}
      .note_if(first.sync_seconds > 1, "slow to write; put run directories elsewhere");
}

Check user_check(const Ranks& ranks) {
  if (ranks[0].user != "root") return {"user", "not root"};
  return {"user", "root", "nothing here needs root, and Open MPI starts nothing for it unless told to", Status::note};
}

Check self_test_check(const SelfTest& test) {
  // A step has about ten collectives; a healthy network takes 2 to 50 us for one, busy waiting ranks that share cores
  // several ms.
  return Check{"self-test", test.found + "; reads " + plain(test.bytes_per_second / 1e9, 3) +
                                " GB/s, all-reduce of 8 bytes " + plain(1e6 * test.reduction_seconds, 3) +
                                " us, of 1 MiB " + plain(1e3 * test.long_reduction_seconds, 3) + " ms; " +
                                fixed(test.seconds, 2) + " s"}
      .note_if(test.reduction_seconds > 1e-3,
               "all-reduces are slow: oversubscribed cores (mpi_yield_when_idle helps), or a slow network")
      .problem_if(!test.right, "wrong numbers: please report this page");
}

}  // namespace

std::string status_name(Check::Status status) {
  return status == Status::good ? "good" : status == Status::note ? "note" : "problem";
}

std::vector<Check> checks(const MpiFacts& mpi, const std::vector<NodeFacts>& ranks, const SelfTest& test) {
  std::vector<Check> all = library_checks(ranks);
  all.insert(all.begin(), mpi_check(mpi));
  for (const auto& check : {hosts_check(ranks), processors_check(ranks), blas_check(), binding_check(ranks),
                            quota_check(ranks), copy_check(ranks), shared_memory_check(ranks), limits_check(ranks),
                            memory_check(ranks), directory_check(ranks), user_check(ranks), self_test_check(test)})
    all.push_back(check);
  return all;
}

}  // namespace attnreg::app
