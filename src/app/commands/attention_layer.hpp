#pragma once

#include <vector>

#include "app/options/options.hpp"
#include "app/run/problem.hpp"

namespace attnreg::app {

// The part of `attention` that recovers layers, whose outputs are known in place of their attention: docs/attention.md,
// "Layers".

/// The options that only layers have.
OptionGroup layer_options();

/// Local. Whether there are values, and no option belongs to the iteration on X. Throws `UsageError` for an option of
/// layers where that is not so.
bool is_layer(const Arguments& arguments, const std::vector<SequenceFiles>& files);

/// Collective. Loads, recovers and writes X and Y.
ExitCode recover_layer(const Communicator& communicator, const Arguments& arguments, std::vector<SequenceFiles> files);

}  // namespace attnreg::app
