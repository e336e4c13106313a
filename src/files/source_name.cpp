#include "files/source_name.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>

#include "errors/printable.hpp"
#include "files/directory_names.hpp"
#include "files/input_file.hpp"

namespace attnreg {
namespace {

bool is_there(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

/// Takes "[3,7]" off the end of a name; nothing, if what stands there is no list of places.
std::vector<std::int64_t> take_places(std::string& text) {
  const std::size_t open = text.rfind('[');
  if (open == std::string::npos || !text.ends_with(']')) return {};
  std::vector<std::int64_t> places;
  const char *next = text.data() + open + 1, *const end = text.data() + text.size() - 1;
  while (true) {
    std::int64_t place = 0;
    const auto [last, failure] = std::from_chars(next, end, place);
    if (failure != std::errc{} || place < 0 || (last != end && *last != ',')) return {};
    places.push_back(place);
    if (last == end) break;
    next = last + 1;
  }
  text.resize(open);
  return places;
}

/// Takes ":keys" off the end of a name, if what is before it is there.
std::string take_member(std::string& text) {
  for (std::size_t colon = text.rfind(':'); colon != std::string::npos && colon > 0;
       colon = text.rfind(':', colon - 1)) {
    if (colon + 1 == text.size() || !is_there(text.substr(0, colon))) continue;
    std::string member = text.substr(colon + 1);
    text.resize(colon);
    return member;
  }
  return {};
}

/// A name with one part that varies: a number of at least `digits` digits, with zeros before it, or (-1) anything.
struct Pattern {
  std::string directory, before, after;
  std::int64_t digits = -1;
};

std::optional<Pattern> pattern_of(const std::string& text) {
  const std::filesystem::path path(text);
  const std::string name = path.filename().string();
  const std::string directory = path.parent_path().string();
  if (const std::size_t star = name.find('*'); star != std::string::npos) {
    if (name.find('*', star + 1) != std::string::npos) return std::nullopt;
    return Pattern{directory, name.substr(0, star), name.substr(star + 1), -1};
  }
  const std::size_t percent = name.find('%');
  if (percent == std::string::npos) return std::nullopt;
  std::size_t end = percent + 1;
  while (end < name.size() && std::isdigit(static_cast<unsigned char>(name[end]))) ++end;
  const std::string width = name.substr(percent + 1, end - percent - 1);
  if (end == name.size() || name[end] != 'd' || width.size() > 3 ||
      (!width.empty() && (width[0] != '0' || width == "0")))
    return std::nullopt;
  return Pattern{directory, name.substr(0, percent), name.substr(end + 1), width.empty() ? 1 : std::stoi(width)};
}

/// What stands in a name for the part that varies.
std::optional<std::string> varying(const Pattern& pattern, const std::string& name) {
  if (name.size() < pattern.before.size() + pattern.after.size() || !name.starts_with(pattern.before) ||
      !name.ends_with(pattern.after))
    return std::nullopt;
  std::string text = name.substr(pattern.before.size(), name.size() - pattern.before.size() - pattern.after.size());
  if (pattern.digits < 0) return text;
  const bool digits = !text.empty() && std::ranges::all_of(text, [](unsigned char c) { return std::isdigit(c) != 0; });
  const auto size = std::ssize(text);
  if (!digits || size < pattern.digits || size > 18 || (size > pattern.digits && text[0] == '0')) return std::nullopt;
  return text;
}

/// Compares texts in which runs of digits are numbers: -1, 0 or 1. "2" is before "10"; "1" and "01" are alike.
int compare_naturally(std::string_view a, std::string_view b) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto take_run = [&](std::string_view& text) {
    const std::size_t end = std::min(text.find_first_not_of("0123456789"), text.size());
    std::string_view run = text.substr(0, end);
    text.remove_prefix(end);
    run.remove_prefix(std::min(run.find_first_not_of('0'), run.size()));
    return run;
  };
  while (!a.empty() && !b.empty()) {
    if (is_digit(a[0]) && is_digit(b[0])) {
      const std::string_view left = take_run(a), right = take_run(b);
      if (left.size() != right.size()) return left.size() < right.size() ? -1 : 1;
      if (const int order = left.compare(right); order != 0) return order < 0 ? -1 : 1;
    } else {
      if (a[0] != b[0]) return a[0] < b[0] ? -1 : 1;
      a.remove_prefix(1);
      b.remove_prefix(1);
    }
  }
  return a.empty() ? (b.empty() ? 0 : -1) : 1;
}

std::vector<std::pair<std::string, std::string>> matches(const std::string& text, const Pattern& pattern) {
  std::vector<std::pair<std::string, std::string>> found;  // what varies, the path
  std::error_code error;
  for (const std::string& name : names_in(pattern.directory.empty() ? "." : pattern.directory, error))
    if (auto part = varying(pattern, name))
      found.emplace_back(std::move(*part), (std::filesystem::path(pattern.directory) / name).string());
  if (error) refuse_file(text, "cannot list its directory: " + error.message());
  std::ranges::sort(found, [](const auto& a, const auto& b) {
    const int order = compare_naturally(a.first, b.first);
    return order != 0 ? order < 0 : a.first < b.first;
  });
  return found;
}

}  // namespace

SourceName::SourceName(const std::string& text) : file(text) {
  if (text == "-" || is_there(text)) return;
  places = take_places(file);
  if (file == "-" || is_there(file)) return;
  member = take_member(file);
  is_pattern = member.empty() && pattern_of(file).has_value();
}

std::vector<std::string> shards_of(const std::string& text) {
  const auto pattern = pattern_of(text);
  if (!pattern) refuse_file(text, "expected one * or %05d in the name of the file");
  const auto found = matches(text, *pattern);
  if (found.empty())
    refuse_file(text, "no file has such a name; check the directory, and quote the name for the shell");
  std::vector<std::string> files;
  for (std::size_t k = 0; k < found.size(); ++k) {
    const auto& [part, path] = found[k];
    if (k > 0 && compare_naturally(found[k - 1].first, part) == 0)
      refuse_file(text, "the order of " + printable(found[k - 1].second) + " and " + printable(path) +
                            " is not clear; rename one");
    const auto expected = std::stoll(pattern->digits < 0 ? "0" : found[0].first) + static_cast<std::int64_t>(k);
    if (pattern->digits >= 0 && std::stoll(part) != expected)
      refuse_file(text, "number " + std::to_string(expected) + " is missing, between those of " +
                            printable(found[k - 1].second) + " and " + printable(path));
    files.push_back(path);
  }
  return files;
}

bool is_numbered(const std::string& text) {
  const auto pattern = pattern_of(text);
  return pattern && pattern->digits >= 0;
}

std::vector<std::string> numbered(const std::string& text, std::int64_t count) {
  const auto pattern = pattern_of(text);
  std::vector<std::string> names;
  for (std::int64_t k = 0; k < count; ++k) {
    std::string number = std::to_string(k);
    const auto digits = static_cast<std::size_t>(pattern->digits);
    if (number.size() < digits) number.insert(0, digits - number.size(), '0');
    names.push_back((std::filesystem::path(pattern->directory) / (pattern->before + number + pattern->after)).string());
  }
  return names;
}

std::vector<std::string> files_of(const std::string& text) {
  const SourceName name(text);
  if (!name.is_pattern) return {name.file};
  try {
    return shards_of(name.file);
  } catch (const InvalidArgument&) {
    return {};  // said when it is read
  }
}

std::string part_of(const std::string& text, std::int64_t place) {
  if (SourceName(text).places.empty()) return text + "[" + std::to_string(place) + "]";
  return text.substr(0, text.size() - 1) + "," + std::to_string(place) + "]";
}

}  // namespace attnreg
