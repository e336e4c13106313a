#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "app/options/options.hpp"
#include "app/report/text.hpp"

namespace attnreg::app {

/// Local. The help page of one command. all: with the options for experts.
std::string help_text(const Syntax& syntax, bool all, std::size_t width = page_width());

/// Local. attnreg-COMMAND.1, in the language of man; of the whole program where there is no command.
std::string man_page(const Syntax& syntax);
std::string man_page(const std::vector<const Syntax*>& commands);
/// Local. What bash and zsh complete: commands, options, values that are one of some, and files.
std::string bash_completion(const std::vector<const Syntax*>& commands);
std::string zsh_completion(const std::vector<const Syntax*>& commands);

}  // namespace attnreg::app
