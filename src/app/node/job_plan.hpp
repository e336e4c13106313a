#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "regression/solve_cost.hpp"

namespace attnreg::app {

/// A machine, as far as it is known. `from`: where each figure comes from.
struct Machine {
  int cores = 1;          ///< of a node
  double node_bytes = 0;  ///< that a node has for a job
  Speeds speeds;
  std::string cores_from, memory_from, bandwidth_from, messages_from;
};

/// Local. What `attnreg doctor --json` found, `text`: of the nodes the least memory and cores; the bandwidth of a node;
/// of all-reduces the time of a round and of a byte. Throws `InvalidArgument` (this rank): it is no such file; `path`
/// is named.
Machine machine_of_doctor(const std::string& text, const std::string& path);

/// Local. Bytes that the busiest node holds, programs included.
double node_bytes(const SolveMemory& memory, const SolveLayout& layout);

/// What to ask a batch system for.
struct JobPlan {
  double bytes_per_node = 0;  ///< to ask for: what the busiest node needs, and a margin
  double seconds = 0;         ///< expected of a typical problem
  std::int64_t minutes = 0;   ///< to ask for
};

/// Local. The memory: 1.25 times that of `solve_memory`, and 200 MB a rank for MPI and the files' buffers. The time:
/// `solve_time`, and 10 s for the start; asked for is five times that of a solve with the most reads of typical ones,
/// at least 10 minutes.
JobPlan plan_job(const SolveShape& shape, const SolveLayout& layout, double node_bandwidth);

/// Local. The ranks and threads for so many nodes: a rank on each core, or, where matrices of d x d would not fit, as
/// many ranks with threads as do; one rank where A is so small that rank 0 solves it alone. None: nothing fits.
std::optional<SolveLayout> advised_layout(const SolveShape& shape, const RegressionOptions& options, int nodes,
                                          const Machine& machine, int blocks);
/// Local. The fewest nodes for which there is one, up to 2^20; none: not even those.
std::optional<int> fewest_nodes(const SolveShape& shape, const RegressionOptions& options, const Machine& machine,
                                int blocks);

}  // namespace attnreg::app
