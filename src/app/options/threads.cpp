#include "app/options/threads.hpp"

#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <string>

// Weak: another BLAS may be linked in place of OpenBLAS.
extern "C" __attribute__((weak)) void openblas_set_num_threads(int threads);

namespace attnreg::app {

namespace {

cpu_set_t affinity() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof cores, &cores) != 0 || CPU_COUNT(&cores) == 0) {
    CPU_ZERO(&cores);
    CPU_SET(0, &cores);
  }
  return cores;
}

/// Equal for ranks on one host with the same cores.
std::int64_t identity(const cpu_set_t& cores) {
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  std::string text(host);
  text.append(reinterpret_cast<const char*>(&cores), sizeof cores);
  return static_cast<std::int64_t>(std::hash<std::string>{}(text));
}

}  // namespace

ThreadLayout set_threads(const Communicator& communicator, std::optional<int> requested) {
  if (openblas_set_num_threads != nullptr) openblas_set_num_threads(1);
  const cpu_set_t cores = affinity();
  const std::int64_t mine = identity(cores);
  ThreadLayout layout;
  layout.cores = CPU_COUNT(&cores);
  layout.ranks_on_cores = static_cast<int>(std::ranges::count(communicator.all_gather(mine), mine));
  if (requested) {
    layout.threads = *requested;
  } else if (std::getenv("OMP_NUM_THREADS") != nullptr) {
    layout.threads = omp_get_max_threads();
  } else {
    layout.threads = std::max(1, layout.cores / layout.ranks_on_cores);
  }
  omp_set_num_threads(layout.threads);
  return layout;
}

}  // namespace attnreg::app
