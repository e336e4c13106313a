#include "app/charts/report_json.hpp"

#include <cmath>

#include "app/charts/report_data.hpp"
#include "app/report/text.hpp"

namespace attnreg::app {

namespace {

using nlohmann::ordered_json;

std::string shell_word(const std::string& word) {
  if (!word.empty() &&
      word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=,+@%") == word.npos)
    return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? "'\\''" : std::string(1, c);
  return quoted + "'";
}

}  // namespace

std::string value_text(const ordered_json& value) {
  if (value.is_null()) return "none";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_number_float()) return plain(value.get<double>(), 6);
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

double number_at(const ordered_json& json, const char* name) {
  return json.is_object() && json.contains(name) && json[name].is_number() ? json[name].get<double>() : NAN;
}

std::string string_at(const ordered_json& json, const char* name) {
  return json.is_object() && json.contains(name) && json[name].is_string() ? json[name].get<std::string>() : "";
}

const ordered_json& member(const ordered_json& json, const char* name) {
  static const ordered_json none;
  return json.is_object() && json.contains(name) ? json[name] : none;
}

std::string command_line(const ordered_json& run) {
  std::string line = "attnreg";
  for (const auto& word : words_of(run)) line += " " + shell_word(word);
  const auto ranks = number_at(member(run, "layout"), "ranks");
  return ranks > 1 ? "mpirun -n " + fixed(ranks, 0) + " " + line : line;
}

}  // namespace attnreg::app
