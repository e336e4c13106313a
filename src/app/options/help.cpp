#include <sstream>

#include "app/options/options.hpp"

namespace attnreg::app {

namespace {

constexpr std::size_t kWidth = 100;
constexpr std::size_t kTextColumn = 28;

/// `term` in the left column and `text` wrapped in the right one.
std::string entry(const std::string& term, std::string_view text) {
  std::string result = "  " + term;
  std::size_t column = result.size();
  if (column + 2 > kTextColumn) {
    result += '\n';
    column = 0;
  }
  result.append(kTextColumn - column, ' ');
  column = kTextColumn;
  std::istringstream words{std::string(text)};
  for (std::string word; words >> word;) {
    if (column > kTextColumn && column + 1 + word.size() > kWidth) {
      result += '\n' + std::string(kTextColumn, ' ');
      column = kTextColumn;
    } else if (column > kTextColumn) {
      result += ' ';
      ++column;
    }
    result += word;
    column += word.size();
  }
  return result + '\n';
}

std::string term(const Option& option) {
  std::string text = option.letter != 0 ? std::string("-") + option.letter + ", " : std::string("    ");
  text += "--" + std::string(option.name);
  if (!option.value_name.empty()) text += " " + std::string(option.value_name);
  return text;
}

std::string description(const Option& option) {
  std::string text(option.help);
  if (const auto* choice = std::get_if<Choice>(&option.kind)) {
    text += ":";
    for (const auto name : choice->names) text += (name == choice->names.front() ? " " : " | ") + std::string(name);
  }
  if (!option.fallback.empty()) text += " [" + std::string(option.fallback) + "]";
  return text;
}

}  // namespace

Option help_option() { return {"help", 'h', "", Switch{}, "", "show this page"}; }

OptionGroup report_options(std::string_view help) {
  return {"Output",
          {{"output", 'o', "DIR", Text{}, "", help},
           {"force", 0, "", Switch{}, "", "replace the files of an earlier run"},
           {"json", 0, "", Switch{}, "", "print report.json"},
           help_option()}};
}

OptionGroup computing_options() {
  return {"Computing",
          {{"storage", 0, "TYPE", Choice{{"file", "float", "double"}}, "file",
            "type in which the matrix is held in memory; sums are always in double. file: the type of the file"},
           {"threads", 0, "N", Integer{1, 4096}, "",
            "threads per rank; default: OMP_NUM_THREADS if set, else the cores that this rank may use, divided by the "
            "ranks that share them"}}};
}

std::string help_text(const Syntax& syntax) {
  std::string text = "Usage: attnreg " + std::string(syntax.name);
  for (const auto& positional : syntax.positionals) text += " " + std::string(positional.name);
  if (!syntax.instead_of_last.empty()) text += "|--" + std::string(syntax.instead_of_last) + " FILE";
  text += " [options]\n\n" + std::string(syntax.summary) + "\n\n";
  for (const auto& positional : syntax.positionals) text += entry(std::string(positional.name), positional.help);
  for (const auto& group : syntax.groups) {
    text += "\n" + std::string(group.title) + ":\n";
    for (const auto& option : group.options) text += entry(term(option), description(option));
  }
  if (!syntax.epilogue.empty()) text += "\n" + std::string(syntax.epilogue);
  return text;
}

}  // namespace attnreg::app
