#pragma once

#include <vector>

#include "app/options/options.hpp"
#include "app/run/sequence_list.hpp"

namespace attnreg::app {

// The part of `attention` that recovers heads from log-odds: docs/attention.md, "Real heads".

/// The options that only heads have.
OptionGroup head_options();

/// The value of --rank; -1: auto. Throws `UsageError` for what is no rank.
Index rank_option(const Arguments& arguments);

/// Throws `UsageError` for values of the options of heads that mean nothing.
void check_head_options(const Arguments& arguments);

/// Local. Whether data and options are those of heads that log-odds find: X is large, or there are several heads, or an
/// option asks for it, and no option belongs to the iteration on X. Throws `UsageError` where both is asked for, or
/// where it is asked for and there are values or weights; `InvalidArgument` (this rank) for lists that mix numbers of
/// heads.
bool are_heads(const Arguments& arguments, const std::vector<SequenceFiles>& files);

/// Collective. Loads, recovers and writes them.
ExitCode recover_heads(const Communicator& communicator, const Arguments& arguments, std::vector<SequenceFiles> files);

}  // namespace attnreg::app
