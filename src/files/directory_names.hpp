#pragma once

#include <string>
#include <system_error>
#include <vector>

namespace attnreg {

/// Local. The names in a directory, but for "." and "..", in no order. On an error: those found so far. In place of
/// std::filesystem::directory_iterator, with which libstdc++ ends the program where memory is short.
std::vector<std::string> names_in(const std::string& directory, std::error_code& error);

}  // namespace attnreg
