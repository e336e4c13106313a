#pragma once

#include <optional>
#include <string>
#include <vector>

#include "app/options/options.hpp"
#include "app/run/problem.hpp"
#include "attnreg/attention_regression.hpp"

namespace attnreg::app {

/// --queries, --keys, --values, --target, --weights or --sequences, --form: the data of an attention regression.
/// `weights_too`: with --weights, which other commands have for themselves.
OptionGroup attention_options(bool weights_too);

/// Throws `UsageError` for options that do not go together.
void check_attention_options(const Arguments& arguments);

/// The loss that --form names.
std::string form_loss(const Arguments& arguments);

/// Local. The files of all sequences, looked at: role "queries 0" and so on for the first. Throws `InvalidArgument`
/// (this rank).
struct SequenceFiles {
  InputFile queries, keys, target;
  std::optional<InputFile> values, weights;
};
std::vector<SequenceFiles> examine_sequences(const Arguments& arguments);

/// The same files in one list. Local.
std::vector<InputFile> list_of(const std::vector<SequenceFiles>& sequences);

/// Local. Bytes that a rank takes at least: the data, blocks of rows of Z and, up to `dense_limit` unknowns, the model.
double attention_bytes(const std::vector<SequenceFiles>& sequences, int ranks, int threads, std::int64_t dense_limit);

/// Collective. Loads them; rows spread evenly over the ranks. Throws on all ranks.
std::vector<AttentionSequence> load_sequences(const Communicator& communicator,
                                              const std::vector<SequenceFiles>& files);

}  // namespace attnreg::app
