#pragma once

#include <optional>
#include <string>
#include <vector>

#include "app/options/options.hpp"
#include "attnreg/regression.hpp"

namespace attnreg::app {

/// The options of `solve` that say how to solve: --method, --start, tolerances, sampling, certificate.
std::vector<OptionGroup> solver_options();

/// The options about sketches and samples, --seed among them, behind `first`; jl_columns: the default, "64" where the
/// scores themselves are wanted, or a bound rests on them.
std::vector<Option> sketch_options(std::vector<Option> first = {}, std::string_view jl_columns = "16");

/// Puts what they say into options of samples or scores.
template <class Options>
void take_sketch_options(const Arguments& arguments, Options& options) {
  options.sketch_rows = arguments.integer("sketch-rows");
  options.nonzeros = arguments.count("nonzeros");
  options.jl_columns = arguments.count("jl-columns");
  options.seed = arguments.seed();
}

/// --linear-solver, --block-size, --grid, and what they say. Throws `UsageError` for a --grid that is no grid, or one
/// of more processes than ranks.
OptionGroup linear_solver_group();
LinearSolverOptions linear_solver_options(const Arguments& arguments, int ranks);

/// Throws `UsageError` for options that do not go together.
void check_solver_options(const Arguments& arguments, int ranks);

/// The file (of attention the directory) that --start names, if it names one. Decided by the text alone, so that all
/// ranks agree. Throws `UsageError` for what is neither a start nor looks like `expected`.
std::optional<std::string> start_file(const Arguments& arguments,
                                      std::string_view expected = "the name of a .npy file");
Start start_option(const Arguments& arguments);

/// --reproducible and --blocks, and what they say: the blocks of `Communicator::in_blocks`; 0: none. Throws
/// `UsageError` for what does not go together with them.
OptionGroup reproducible_group();
int reproducible_blocks(const Arguments& arguments);

Option time_limit_option();

/// --rtol, --max-iterations and --time-limit.
NewtonOptions newton_options(const Arguments& arguments);

/// The weights of --weights-path, from the first to the last in equal ratios; none without it.
std::vector<double> weights_path(const Arguments& arguments);

/// --loss and the ridge.
RegressionModel regression_model(const Arguments& arguments);

/// All but x0, the offset and the callbacks.
RegressionOptions regression_options(const Arguments& arguments, int ranks);

/// "1e-4", "1e-4 (default)" or the file's name; with the offset and the ridge, if there are any.
std::string weight_text(const Arguments& arguments);

}  // namespace attnreg::app
