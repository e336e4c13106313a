#include "app/run/run_files.hpp"

#include <sys/stat.h>

#include <cmath>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "app/options/options.hpp"
#include "app/options/parsed_json.hpp"
#include "app/report/text.hpp"
#include "app/run/run_lock.hpp"
#include "attnreg/error.hpp"
#include "errors/printable.hpp"

namespace attnreg::app {

namespace {

constexpr int kRunning = 10, kStale = 11;

/// Whether the process that says that it runs is gone.
bool is_stale(const std::string& directory, const SavedStatus& status, double stale_after) {
  const auto owner = owner_in(status.json);
  if (owner && owner->is_here()) return owner->is_gone();
  const auto held = RunLock::is_held(directory);
  if (held && *held) return false;
  return status.age_seconds > stale_after;
}

}  // namespace

SavedStatus read_status(const std::string& directory, double stale_after) {
  const std::string path = directory + "/status.json";
  std::ifstream file(path);
  SavedStatus status{parsed_json(file)};
  struct stat facts {};
  if (!file.is_open() || ::stat(path.c_str(), &facts) != 0)
    throw InvalidArgument(printable(directory) + " holds no run: there is no status.json");
  const auto& json = status.json;
  if (!json.is_object() || !json.contains("state") || !json["state"].is_string())
    throw InvalidArgument(printable(path) + ": expected JSON with a state");
  status.age_seconds = std::difftime(std::time(nullptr), facts.st_mtime);
  if (status.state() == "running" && is_stale(directory, status, stale_after)) status.json["state"] = "stale";
  return status;
}

std::string SavedStatus::line() const {
  const std::string state = this->state();
  std::string text = printable(state);
  const auto add = [&](const std::string& more) { text += ", " + more; };
  if (json.contains("exit_code") && json["exit_code"].is_number_integer())
    add("exit code " + std::to_string(json["exit_code"].get<int>()));
  if (json.contains("iteration") && json["iteration"].is_number_integer())
    add("iteration " + std::to_string(json["iteration"].get<std::int64_t>()));
  if (json.contains("relative_gradient") && json["relative_gradient"].is_number())
    add("|g|/|g_ref| " + scientific(json["relative_gradient"], 3));
  if (const auto owner = owner_in(json)) add((state == "running" ? "" : "was ") + owner->text());
  return text + ", renewed " + plain(age_seconds, 6) + " s ago";
}

int SavedStatus::exit_code() const {
  const bool is_over = json.contains("exit_code") && json["exit_code"].is_number_integer();
  return state() == "running" ? kRunning
         : state() == "stale" ? kStale
         : is_over            ? json["exit_code"].get<int>()
                              : static_cast<int>(ExitCode::bad_input);
}

std::vector<double> CsvTable::numbers(std::string_view name) const {
  std::vector<double> found;
  const auto column = columns.find(name);
  if (column == columns.end()) return found;
  for (const auto& text : column->second) found.push_back(number_in<double>(text).value_or(NAN));
  return found;
}

CsvTable read_csv(const std::string& path) {
  CsvTable table;
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return table;
  const std::string heading = line;
  const auto names = parts_of(heading, ',');
  for (const auto name : names) table.columns[std::string(name)];
  while (std::getline(file, line) && !file.eof()) {
    const auto cells = parts_of(line, ',');
    if (cells.size() != names.size()) continue;
    for (std::size_t k = 0; k < names.size(); ++k) table.columns[std::string(names[k])].emplace_back(cells[k]);
  }
  return table;
}

CsvTable read_history(const std::string& directory) {
  std::error_code ignored;
  const std::string partial = directory + "/history.partial.csv";
  return read_csv(std::filesystem::exists(partial, ignored) ? partial : directory + "/history.csv");
}

}  // namespace attnreg::app
