#pragma once

#include <vector>

#include "app/run/problem.hpp"

namespace attnreg::app {

/// Local. The files of all sequences, looked at: those of the options, or those that --sequences lists, one sequence a
/// line, with roles "queries 0" and so on for the first. A line has queries, keys and target by position, or names
/// (values=FILE), or the columns of a header line of names (docs/program.md, "Lists of sequences"); what could mean two
/// things is refused. Throws `InvalidArgument` (this rank) with file, line and how to write it.
std::vector<SequenceFiles> examine_sequences(const Arguments& arguments);
/// The same of another list.
std::vector<SequenceFiles> examine_list(const std::string& path, const std::string& mask);

/// Local. "3 sequences, masked, the first 31 queries x 17 keys, X 3 x 4".
std::string sequences_text(const std::vector<AttentionSequence>& sequences, Index d1, Index d2);

}  // namespace attnreg::app
