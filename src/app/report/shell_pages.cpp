#include <algorithm>
#include <string>

#include "app/options/settings.hpp"
#include "app/report/option_pages.hpp"

namespace attnreg::app {

namespace {

/// A text for troff: dashes that can be copied, and no line that is a request.
std::string roff(std::string_view text) {
  std::string result;
  bool at_begin = true;
  for (const char c : text) {
    if (at_begin && (c == '.' || c == '\'')) result += "\\&";
    at_begin = c == '\n';
    if (c == '\\')
      result += "\\e";
    else if (c == '-')
      result += "\\-";
    else
      result += c;
  }
  return result;
}

std::string upper(std::string_view text) {
  std::string result(text);
  for (char& c : result)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return result;
}

std::string choices_of(const Option& option) {
  const auto* choice = std::get_if<Choice>(&option.kind);
  std::string text;
  if (choice != nullptr)
    for (const auto name : choice->names) text += (text.empty() ? "" : " ") + std::string(name);
  return text;
}

/// For a word between single quotes.
std::string single_quoted(std::string_view text) {
  std::string result;
  for (const char c : text) result += c == '\'' ? "'\\''" : std::string(1, c);
  return result;
}

/// For the text of an option of zsh, also between single quotes.
std::string zsh_text(std::string_view text) {
  std::string result;
  for (const char c : text.substr(0, text.find_first_of(".;:"))) {
    if (c == '[' || c == ']' || c == '\\') result += '\\';
    result += c == '\'' ? "'\\''" : std::string(1, c);
  }
  return result;
}

}  // namespace

std::string man_page(const Syntax& syntax) {
  const std::string name = "attnreg-" + std::string(syntax.name);
  std::string text = ".TH " + upper(name) + " 1 \"\" \"attnreg\" \"attnreg\"\n.SH NAME\n" + roff(name) + " \\- " +
                     roff(syntax.summary) + "\n.SH SYNOPSIS\n.B attnreg " + roff(syntax.name) + "\n";
  for (const auto& positional : syntax.positionals)
    text +=
        "."
        "I " +
        roff(positional.name) + "\n";
  if (!syntax.more.empty()) text += ".RI [ " + roff(syntax.more) + " ...]\n";
  text += "[options]\n.SH DESCRIPTION\n";
  for (const auto& positional : syntax.positionals)
    text += ".TP\n.I " + roff(positional.name) + "\n" + roff(positional.help) + "\n";
  for (const auto& group : groups_of(syntax)) {
    text += ".SH " + roff(upper(group.title)) + "\n";
    for (const auto& option : group.options) {
      std::string help = roff(option.help);
      if (const std::string choices = choices_of(option); !choices.empty()) help += ". One of: " + roff(choices);
      if (!option.fallback.empty()) help += ". Default: " + roff(option.fallback);
      text += ".TP\n" + std::string(option.letter != 0 ? "\\fB\\-" + std::string(1, option.letter) + "\\fR, " : "") +
              "\\fB\\-\\-" + roff(option.name) + "\\fR" +
              (option.value_name.empty() ? "" : " \\fI" + roff(option.value_name) + "\\fR") + "\n" + help + "\n";
    }
  }
  if (!syntax.epilogue.empty()) text += ".SH NOTES\n.nf\n" + roff(syntax.epilogue) + ".fi\n";
  return text +
         ".SH ENVIRONMENT\nEach option has a variable: ATTNREG_WEIGHT is that of \\-\\-weight. The command line "
         "comes first, then variables, then the file of \\-\\-config.\n.SH SEE ALSO\n.BR attnreg (1)\n";
}

std::string man_page(const std::vector<const Syntax*>& commands) {
  std::string text =
      ".TH ATTNREG 1 \"\" \"attnreg\" \"attnreg\"\n.SH NAME\nattnreg \\- attention regression on many cores and many "
      "nodes\n.SH SYNOPSIS\n.B [mpirun \\-n RANKS] attnreg\n.I COMMAND\n\\&...\n.SH COMMANDS\n";
  for (const Syntax* const syntax : commands)
    text += ".TP\n.BR attnreg\\-" + roff(syntax->name) + " (1)\n" + roff(syntax->summary) + "\n";
  return text;
}

std::string bash_completion(const std::vector<const Syntax*>& commands) {
  std::string names, options, values;
  for (const Syntax* const syntax : commands) {
    const std::string command(syntax->name);
    names += (names.empty() ? "" : " ") + command;
    std::string all;
    for (const auto& group : groups_of(*syntax))
      for (const auto& option : group.options) {
        all += (all.empty() ? "--" : " --") + std::string(option.name);
        if (const std::string choices = choices_of(option); !choices.empty())
          values +=
              "    '" + command + " --" + std::string(option.name) + "') words='" + single_quoted(choices) + "' ;;\n";
      }
    std::string positional;
    for (const auto& one : syntax->positionals)
      if (const auto* choice = std::get_if<Choice>(&one.kind))
        for (const auto name : choice->names) positional += " " + std::string(name);
    options += "    " + command + ") words='" + single_quoted(all + positional) + "' ;;\n";
  }
  return "# bash completion of attnreg\n_attnreg() {\n"
         "  local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command='' words='' k\n"
         "  for ((k = 1; k < COMP_CWORD; ++k)); do\n"
         "    if [ \"${COMP_WORDS[k-1]##*/}\" = attnreg ]; then command=${COMP_WORDS[k]}; fi\n"
         "  done\n"
         "  if [ -z \"$command\" ]; then\n"
         "    words='" +
         names +
         " help --help --version'\n"
         "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n    return\n  fi\n"
         "  case \"$command $before\" in\n" +
         values + "    help\\ *) words='" + names +
         "' ;;\n  esac\n"
         "  if [ -z \"$words\" ]; then case $command in\n" +
         options +
         "  esac; fi\n"
         "  case $current in\n"
         "    -*) mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\") ;;\n"
         "    *)\n"
         "      case $before in --*) ;; *) mapfile -t COMPREPLY < <(compgen -f -- \"$current\") ;; esac\n"
         "      mapfile -t -O \"${#COMPREPLY[@]}\" COMPREPLY < <(compgen -W \"$words\" -- \"$current\" | grep -v "
         "'^-')\n"
         "      if [ ${#COMPREPLY[@]} -eq 0 ]; then mapfile -t COMPREPLY < <(compgen -f -- \"$current\"); fi\n"
         "      ;;\n"
         "  esac\n}\ncomplete -o filenames -F _attnreg attnreg\n";
}

std::string zsh_completion(const std::vector<const Syntax*>& commands) {
  std::string names, cases;
  for (const Syntax* const syntax : commands) {
    names += "    '" + std::string(syntax->name) + ":" + zsh_text(syntax->summary) + "'\n";
    cases += "    " + std::string(syntax->name) + ")\n      _arguments -s";
    for (const auto& group : groups_of(*syntax))
      for (const auto& option : group.options) {
        const std::string choices = choices_of(option);
        std::string argument;
        if (!option.value_name.empty())
          argument = ":" + zsh_text(option.value_name) + ":" +
                     (choices.empty() ? "_files" : "(" + single_quoted(choices) + ")");
        cases += " \\\n        '--" + std::string(option.name) + "[" + zsh_text(option.help) + "]" + argument + "'";
      }
    cases += " \\\n        '*:file:_files'\n      ;;\n";
  }
  return "#compdef attnreg\n_attnreg() {\n  local -a commands=(\n" + names +
         "    'help:the options of a command'\n  )\n"
         "  if (( CURRENT == 2 )); then\n    _describe command commands\n    return\n  fi\n"
         "  local command=$words[2]\n  shift words\n  (( CURRENT-- ))\n  case $command in\n" +
         cases + "    help) _describe command commands ;;\n  esac\n}\n_attnreg \"$@\"\n";
}

}  // namespace attnreg::app
