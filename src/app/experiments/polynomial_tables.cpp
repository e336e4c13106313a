#include "app/experiments/all_experiments.hpp"

namespace attnreg::app {

namespace {

std::vector<experiments::Table> polynomial_tables(const Communicator& communicator, const Arguments& arguments,
                                                  const ReportDirectory& /*directory*/) {
  using namespace experiments;
  const std::uint64_t seed = arguments.seed();
  return {polynomial_attention(communicator, {.seed = seed}),
          polynomial_attention(communicator,
                               {.columns = 66, .copies = 64, .a1 = 0.7, .c = 0.05, .degrees = {1, 2}, .seed = seed}),
          polynomial_vector(communicator, {.seed = seed})};
}

}  // namespace

Experiment polynomial_experiment() {
  return {.name = "polynomial",
          .summary = "attention by powers separates two data sets from degree 3 on (arXiv 2310.20051)",
          .run = polynomial_tables};
}

}  // namespace attnreg::app
