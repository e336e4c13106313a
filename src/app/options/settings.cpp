#include "app/options/settings.hpp"

#include <toml++/toml.h>
#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "errors/printable.hpp"

namespace attnreg::app {

namespace {

using nlohmann::ordered_json;

/// Of rank 0 alone: `Communicator::agree` makes it one of all.
Error usage_error(const std::string& message) { return Error(ExitCode::usage, message); }

/// A TOML table as JSON.
ordered_json json_of(const toml::node& node) {
  if (const auto* table = node.as_table()) {
    ordered_json json = ordered_json::object();
    for (const auto& [key, value] : *table) json[std::string(key.str())] = json_of(value);
    return json;
  }
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_integer()) return number->get();
  if (const auto* real = node.as_floating_point()) return real->get();
  if (const auto* flag = node.as_boolean()) return flag->get();
  return ordered_json::array();  // lists and times: no option has such
}

ordered_json read_config(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file.is_open()) throw InvalidArgument(printable(path) + ": cannot open the configuration file");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first != text.npos && text[first] == '{') {
    auto json = ordered_json::parse(text, nullptr, false);
    if (!json.is_object()) throw usage_error(printable(path) + ": expected a JSON object, or TOML");
    return json;
  }
  try {
    return json_of(toml::parse(text, path));
  } catch (const toml::parse_error& error) {
    throw usage_error(printable(path) + ", line " + std::to_string(error.source().begin.line) + ": " +
                      printable(std::string(error.description())));
  }
}

std::string value_of(const ordered_json& value, const std::string& shown) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "true" : "false";
  if (value.is_number_integer()) return std::to_string(value.get<std::int64_t>());
  if (value.is_number()) return value.dump();
  throw usage_error(shown + ": expected a text, a number, true or false");
}

/// The names that a command has: positionals and options.
std::vector<std::string_view> names_of(const Syntax& syntax) {
  std::vector<std::string_view> names;
  for (const auto& positional : syntax.positionals) names.push_back(positional.name);
  for (const auto& group : groups_of(syntax))
    for (const auto& option : group.options) names.push_back(option.name);
  return names;
}

/// The values in a file: of run.json those that were given, of other files all. A table has those of one command.
std::vector<Setting> settings_in(const std::string& path, const Syntax& syntax) {
  const ordered_json file = read_config(path);
  const std::string command(syntax.name);
  const auto names = names_of(syntax);
  std::vector<Setting> settings;
  const auto add = [&](const std::string& name, const ordered_json& value) {
    const std::string shown = path + ": " + name;
    if (std::ranges::find(names, name) == names.end())
      throw usage_error(printable(shown) + " is no option of " + command + suggestion(name, names));
    settings.push_back({name, value_of(value, printable(shown)), "configuration file", printable(shown)});
  };
  if (file.contains("configuration") && file["configuration"].is_object()) {  // of a run
    if (file.contains("command") && file["command"] != command)
      throw usage_error(printable(path) + " is of attnreg " + printable(file["command"].dump()) + ", not of " +
                        command);
    for (const auto& [name, entry] : file["configuration"].items())
      if (entry.is_object() && entry.contains("value") && entry.contains("source") && entry["source"] != "default")
        add(name, entry["value"]);
    return settings;
  }
  for (const auto& [name, value] : file.items())
    if (value.is_object() && name == command)
      for (const auto& [inner, of_command] : value.items()) add(inner, of_command);
  for (const auto& [name, value] : file.items())
    if (!value.is_object()) add(name, value);
  return settings;
}

/// What no variable says; ATTNREG_PROGRAM is one of the scripts.
constexpr std::array<std::string_view, 4> kWithoutVariable{"help", "help-all", "print-config", "program"};

/// The file of --config, if there is one.
std::string config_of(const std::vector<std::string>& words) {
  for (std::size_t k = 0; k < words.size(); ++k) {
    if (words[k] == "--config" && k + 1 < words.size()) return words[k + 1];
    if (words[k].starts_with("--config=")) return words[k].substr(9);
  }
  return "";
}

}  // namespace

std::string variable_of(std::string_view option) {
  std::string name = "ATTNREG_";
  for (const char c : option) name += c == '-' ? '_' : static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  return name;
}

std::vector<Setting> settings_of(const Communicator& communicator, const Syntax& syntax,
                                 const std::vector<std::string>& words) {
  ordered_json message = ordered_json::array();
  communicator.agree_on_root([&] {
    std::vector<Setting> found;
    std::string config = config_of(words);
    for (const auto& group : groups_of(syntax))
      for (const auto& option : group.options) {
        const bool is_no_value = std::ranges::find(kWithoutVariable, option.name) != kWithoutVariable.end();
        const std::string variable = variable_of(option.name);
        const char* const value = is_no_value ? nullptr : std::getenv(variable.c_str());
        if (value == nullptr || *value == 0) continue;
        if (option.name == "config" && config.empty()) config = value;
        found.push_back({std::string(option.name), value, "environment", variable});
      }
    if (!config.empty()) {
      const auto in_file = settings_in(config, syntax);
      found.insert(found.end(), in_file.begin(), in_file.end());
    }
    for (const auto& setting : found) message.push_back({setting.name, setting.text, setting.source, setting.shown});
  });
  std::string text = message.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  message = ordered_json::parse(communicator.broadcast(std::move(text)));
  std::vector<Setting> settings;
  for (const auto& one : message) settings.push_back({one[0], one[1], one[2], one[3]});
  return settings;
}

std::string config_text(const Arguments& arguments) {
  std::string text = "# attnreg " + std::string(arguments.syntax().name) + " --config FILE\n";
  const auto configuration = arguments.configuration();
  for (const auto& [name, entry] : configuration.items()) {
    const auto& value = entry["value"];
    const std::string line = value.is_null()
                                 ? "# " + name + " ="
                                 : name + " = " + value.dump(-1, ' ', true, ordered_json::error_handler_t::replace);
    text += line + std::string(line.size() < 40 ? 40 - line.size() : 1, ' ') + "# " +
            entry["source"].get<std::string>() + "\n";
  }
  return text;
}

}  // namespace attnreg::app
