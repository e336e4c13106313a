#include "app/experiments/all_experiments.hpp"

namespace attnreg::app {

namespace {

std::vector<experiments::Table> cycle_rank_tables(const Communicator& communicator, const Arguments& arguments,
                                                  const ReportDirectory& /*directory*/) {
  using namespace experiments;
  const std::uint64_t seed = arguments.seed();
  return {cycle_rank(communicator, {.seed = seed}), cycle_rank(communicator, {.noise = 0.01, .seed = seed}),
          cycle_rank(communicator, {.noise = 0.01, .sampled_rows = 40, .seed = seed})};
}

}  // namespace

Experiment cycle_rank_experiment() {
  return {.name = "cycle-rank",
          .summary = "tensor ring by alternating, sampled least squares (arXiv 2304.06594)",
          .run = cycle_rank_tables};
}

}  // namespace attnreg::app
