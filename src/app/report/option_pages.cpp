#include "app/report/option_pages.hpp"

#include <algorithm>

namespace attnreg::app {

namespace {

constexpr std::size_t kTextColumn = 10;  // of the paragraph of an option

std::string term(const Option& option) {
  std::string text = option.letter != 0 ? std::string("-") + option.letter + ", " : std::string("    ");
  text += "--" + std::string(option.name);
  if (!option.value_name.empty()) text += " " + std::string(option.value_name);
  return text;
}

std::string listed(const std::vector<std::string_view>& names) {
  std::string text;
  for (const auto name : names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

std::string description(const Option& option) {
  std::string text(option.help);
  if (const auto* choice = std::get_if<Choice>(&option.kind)) text += ". One of " + listed(choice->names);
  if (!option.fallback.empty()) text += ". Default: " + std::string(option.fallback);
  return text;
}

/// `term`, and a paragraph of `text` below it.
std::string entry(const std::string& term, const std::string& text, std::size_t width) {
  const std::string indent(kTextColumn, ' ');
  const std::string paragraph = to_width(text, width - kTextColumn, 0);
  std::string page = "  " + term + "\n";
  for (const auto line : parts_of(paragraph, '\n')) page += indent + std::string(line) + "\n";
  return page;
}

/// A text with the lines of each paragraph joined; lines that are indented stay.
std::string paragraphs(std::string_view text) {
  std::string result;
  bool joins = false;
  for (const auto line : parts_of(text, '\n')) {
    const bool is_plain = !line.empty() && line[0] != ' ' && !line.ends_with(":");
    if (!result.empty() && !(joins && is_plain)) result += '\n';
    if (joins && is_plain) result += ' ';
    result += line;
    joins = is_plain;
  }
  return result;
}

/// Examples, whose lines end with a backslash where they go on, and paragraphs.
std::string epilogue_text(std::string_view epilogue, std::size_t width) {
  std::string text;
  const std::string joined = paragraphs(epilogue);
  for (const auto line : parts_of(std::string_view(joined).substr(0, joined.size() - 1), '\n')) {
    const bool is_example = line.starts_with("  attnreg ") || line.starts_with("  mpirun ");
    if (is_example && line.size() > width) {
      const std::string broken = to_width(line, width - 2);
      for (const auto part : parts_of(broken, '\n')) text += std::string(part) + " \\\n";
      text.replace(text.size() - 3, 3, "\n");
    } else {
      text += to_width(line, width, 0) + "\n";
    }
  }
  return text;
}

}  // namespace

std::string help_text(const Syntax& syntax, bool all, std::size_t width) {
  std::string text = "Usage: attnreg " + std::string(syntax.name);
  for (const auto& positional : syntax.positionals) text += " " + std::string(positional.name);
  if (!syntax.instead_of_last.empty()) text += "|--" + std::string(syntax.instead_of_last) + " FILE";
  if (!syntax.more.empty()) text += " [" + std::string(syntax.more) + "...]";
  text += " [options]\n\n" + std::string(syntax.summary) + "\n\n";
  for (const auto& positional : syntax.positionals)
    text += "  " + std::string(positional.name) + "  " + std::string(positional.help) + "\n";
  std::string page = to_width(text, width), left_out;
  for (const auto& group : groups_of(syntax)) {
    std::string entries;
    for (const auto& option : group.options)
      if (all || !option.is_expert)
        entries += entry(term(option), description(option), width);
      else
        left_out += (left_out.empty() ? "--" : ", --") + std::string(option.name);
    if (!entries.empty()) page += "\n" + to_width(std::string(group.title) + ":", width, 0) + "\n" + entries;
  }
  if (!left_out.empty())
    page += "\n" + to_width("For experts: " + left_out + "; `attnreg " + std::string(syntax.name) +
                                "` with --help-all explains them.\n",
                            width);
  if (!syntax.epilogue.empty()) page += "\n" + epilogue_text(syntax.epilogue, width);
  return page;
}

}  // namespace attnreg::app
