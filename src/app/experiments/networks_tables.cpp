#include "app/experiments/all_experiments.hpp"

namespace attnreg::app {

namespace {

std::vector<experiments::Table> exponential_network_tables(const Communicator& communicator, const Arguments& arguments,
                                                           const ReportDirectory& /*directory*/) {
  return {experiments::exponential_network(communicator, {.seed = arguments.seed()})};
}

std::vector<experiments::Table> active_sets_tables(const Communicator& communicator, const Arguments& arguments,
                                                   const ReportDirectory& /*directory*/) {
  return {experiments::active_sets(communicator, {.seed = arguments.seed()})};
}

}  // namespace

Experiment exponential_network_experiment() {
  return {.name = "exp-network",
          .summary = "over-parameterised exponential regression (arXiv 2303.16504)",
          .run = exponential_network_tables};
}

Experiment active_sets_experiment() {
  return {.name = "active-sets",
          .summary = "neurons of a shifted ReLU that fire (arXiv 2208.05395)",
          .run = active_sets_tables};
}

}  // namespace attnreg::app
