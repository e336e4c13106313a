#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "app/options/options.hpp"
#include "attnreg/communicator.hpp"

namespace attnreg::app {

/// "ATTNREG_TIME_LIMIT" of "time-limit".
std::string variable_of(std::string_view option);

/// Collective; rank 0 looks, as the variables of other ranks may be others. What the environment and the file of
/// --config have for this command line, the environment first: the first of a name counts. Throws `UsageError` on all
/// ranks: a file that is neither TOML nor JSON, a table or list where a value is expected, names that no option has,
/// a table of none of `commands`, the configuration of another command; `InvalidArgument`: a file that cannot be read.
std::vector<Setting> settings_of(const Communicator& communicator, const Syntax& syntax,
                                 const std::vector<std::string>& words, const std::vector<std::string_view>& commands);

/// Local. The values of a command line as a file for --config, each with its source.
std::string config_text(const Arguments& arguments);

}  // namespace attnreg::app
