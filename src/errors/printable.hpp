#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace attnreg {

/// `text` for a message on a terminal or in a log: control characters, characters that change the direction of writing
/// and bytes that are not UTF-8 become \xNN. Names of files and texts found in files go through it.
std::string printable(std::string_view text);

/// The same, cut after `limit` bytes of `text` with "..." in place of the rest.
std::string printable(std::string_view text, std::size_t limit);

/// What separators divide a text into; one part, the text, without any.
std::vector<std::string_view> parts_of(std::string_view text, char separator);

/// A number for a message: six significant digits, independent of the locale.
std::string text_of(double value);

/// The name of this node.
std::string host_name();

}  // namespace attnreg
