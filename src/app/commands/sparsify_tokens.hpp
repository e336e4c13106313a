#pragma once

#include "app/options/options.hpp"

namespace attnreg::app {

// The part of `sparsify` that chooses keys of attention heads: docs/sparsification.md, "Fewer keys".

/// The options that only keys have.
OptionGroup token_options();

/// Throws `UsageError` for options of --tokens without it, and for those of columns with it.
void check_token_options(const Arguments& arguments);

/// Collective. Loads, chooses, measures and writes.
ExitCode sparsify_tokens(const Communicator& communicator, const Arguments& arguments);

}  // namespace attnreg::app
