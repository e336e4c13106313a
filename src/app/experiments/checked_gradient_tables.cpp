#include "app/experiments/all_experiments.hpp"

namespace attnreg::app {

namespace {

std::vector<experiments::Table> checked_gradient_tables(const Communicator& communicator, const Arguments& arguments,
                                                        const ReportDirectory& /*directory*/) {
  return {experiments::checked_gradient(communicator, {.seed = arguments.seed()})};
}

}  // namespace

Experiment checked_gradient_experiment() {
  return {.name = "checked-gradient",
          .summary = "gradient descent whose contributions are checked (after arXiv 2308.10502)",
          .run = checked_gradient_tables};
}

}  // namespace attnreg::app
