#pragma once

#include <cstddef>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "app/options/options.hpp"
#include "app/run/run_directory.hpp"
#include "attnreg/communicator.hpp"
#include "experiments/experiments.hpp"

namespace attnreg::app {

/// One of the experiments that `attnreg experiment NAME [FILE...]` runs.
struct Experiment {
  std::string_view name;
  std::string_view summary;                     ///< a line of the help
  std::string_view files = {};                  ///< what may follow the name: "T.npy"
  std::size_t least_files = 0, most_files = 0;  ///< how many
  std::vector<Option> options = {};             ///< its own; others are refused where this one runs
  std::vector<std::string_view> shared = {};    ///< names of options that several experiments take
  /// Collective. The tables, equal on all ranks; other results go into the directory, where it is used. The files are
  /// `arguments.rest()`.
  std::vector<experiments::Table> (*run)(const Communicator&, const Arguments&, const ReportDirectory&) = nullptr;
};

Experiment polynomial_experiment();
Experiment cycle_rank_experiment();
Experiment exponential_network_experiment();
Experiment adversarial_training_experiment();
Experiment checked_gradient_experiment();
Experiment graph_network_experiment();

}  // namespace attnreg::app
