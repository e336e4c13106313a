#pragma once

#include <cstddef>
#include <string>

#include "app/options/options.hpp"
#include "app/report/text.hpp"

namespace attnreg::app {

/// Local. The help page of one command. all: with the options for experts.
std::string help_text(const Syntax& syntax, bool all, std::size_t width = page_width());

}  // namespace attnreg::app
