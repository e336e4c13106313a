#include "app/node/job_plan.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "app/options/parsed_json.hpp"
#include "errors/printable.hpp"
#include "files/input_file.hpp"
#include "surrogate/surrogate.hpp"

namespace attnreg::app {

Machine machine_of_doctor(const std::string& text, const std::string& path) {
  constexpr double kLongMessage = 1 << 20;
  Machine machine;
  try {
    const auto json = parsed_json(text);
    if (json.at("schema") != "attnreg-doctor-1") throw InvalidArgument("schema");
    std::set<std::string> hosts;
    machine.cores = std::numeric_limits<int>::max();
    machine.node_bytes = std::numeric_limits<double>::infinity();
    for (const auto& rank : json.at("ranks")) {
      hosts.insert(rank.at("host").get<std::string>());
      machine.cores = std::min(machine.cores, rank.at("node_cores").get<int>());
      if (rank.at("memory").is_number())
        machine.node_bytes = std::min(machine.node_bytes, rank["memory"].get<double>());
    }
    const auto& test = json.at("self_test");
    const double ranks = static_cast<double>(json["ranks"].size()), bandwidth = test.at("bytes_per_second");
    const double short_one = test.at("reduction_seconds"), long_one = test.at("long_reduction_seconds");
    if (hosts.empty() || machine.cores < 1 || !(bandwidth > 0)) throw InvalidArgument("figures");
    machine.speeds.node_bandwidth = bandwidth / static_cast<double>(hosts.size());
    machine.cores_from = machine.memory_from = machine.bandwidth_from = "doctor";
    if (ranks > 1 && short_one > 0) {
      machine.speeds.round_seconds = short_one / std::ceil(std::log2(ranks));
      machine.speeds.byte_seconds = std::max(0.0, long_one - short_one) / kLongMessage;
      machine.messages_from = "doctor";
    }
  } catch (const std::exception&) {
    refuse_file(path, "expected what `attnreg doctor --json` prints");
  }
  return machine;
}

double node_bytes(const SolveMemory& memory, const SolveLayout& layout) {
  const int ranks = layout.ranks_on_busiest();
  return memory.rank0.total() + (ranks - 1) * memory.mean_other.total() + ranks * program_bytes(ranks);
}

JobPlan plan_job(const SolveShape& shape, const SolveLayout& layout, double node_bandwidth) {
  constexpr double kMargin = 1.25, kProgramBytes = 200e6, kStartSeconds = 10, kSure = 5;
  const int on_busiest = layout.ranks_on_busiest();
  Speeds speeds;
  speeds.node_bandwidth = node_bandwidth;
  const SolveWork work = solve_work(shape, layout, {});
  const double seconds = solve_time(shape, layout, {}, speeds).total();

  JobPlan plan;
  plan.bytes_per_node = on_busiest * (kMargin * solve_bytes(shape, layout, {}) + kProgramBytes);
  plan.seconds = seconds + kStartSeconds;
  const double most = seconds * work.most_reads / work.reads + kStartSeconds;
  plan.minutes = std::max<std::int64_t>(10, static_cast<std::int64_t>(std::ceil(kSure * most / 60)));
  return plan;
}

std::optional<SolveLayout> advised_layout(const SolveShape& shape, const RegressionOptions& options, int nodes,
                                          const Machine& machine, int blocks) {
  constexpr double kShare = 0.9;  // of a node: the model is right to a tenth
  if (blocks == 0 && nodes == 1 && fits_on_root(shape.numbers()) && may_sample(options, LinearSolver::rank0))
    return SolveLayout{.node_bytes = machine.node_bytes};
  for (int threads = 1; threads <= machine.cores; ++threads) {
    if (machine.cores % threads != 0) continue;
    SolveLayout layout{.ranks = nodes * (machine.cores / threads),
                       .ranks_per_node = machine.cores / threads,
                       .threads = threads,
                       .blocks = blocks,
                       .node_bytes = machine.node_bytes};
    if (node_bytes(solve_memory(shape, layout, options), layout) <= kShare * machine.node_bytes) return layout;
  }
  return std::nullopt;
}

std::optional<int> fewest_nodes(const SolveShape& shape, const RegressionOptions& options, const Machine& machine,
                                int blocks) {
  constexpr int kMost = 1 << 20;
  const auto fits = [&](int nodes) { return advised_layout(shape, options, nodes, machine, blocks).has_value(); };
  int most = 1;
  while (most < kMost && !fits(most)) most *= 2;
  if (!fits(most)) return std::nullopt;
  int least = most / 2;  // does not fit
  while (most - least > 1) {
    const int middle = least + (most - least) / 2;
    (fits(middle) ? most : least) = middle;
  }
  return most;
}

}  // namespace attnreg::app
