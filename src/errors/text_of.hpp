#pragma once

#include <array>
#include <charconv>
#include <string>

namespace attnreg {

/// A number for a message, six significant digits, independent of the locale.
inline std::string text_of(double value) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::general, 6).ptr;
  return {text.data(), end};
}

}  // namespace attnreg
