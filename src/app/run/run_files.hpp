#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace attnreg::app {

// What others look at in a run directory. Local, for one rank.

/// What status.json says, and how old it is.
struct SavedStatus {
  nlohmann::ordered_json json;
  double age_seconds = 0;

  std::string state() const { return json["state"]; }  ///< "running", "stale", "stopped", "done", "failed"
  std::string line() const;                            ///< "running, iteration 7, ..., renewed 1 s ago"
  int exit_code() const;                               ///< 10: running, 11: stale; else that of the run
};

/// A run that says that it runs, and does not, is stale: where that cannot be seen, after so many seconds without news.
/// Throws `InvalidArgument` (this rank) if the directory holds no run.
SavedStatus read_status(const std::string& directory, double stale_after);

/// A table in a file: named columns, one number or text in each line.
struct CsvTable {
  std::map<std::string, std::vector<std::string>, std::less<>> columns;

  bool has(std::string_view name) const { return columns.contains(name); }
  std::vector<double> numbers(std::string_view name) const;  ///< NaN for what is no number; empty without the column
  std::size_t lines() const { return columns.empty() ? 0 : columns.begin()->second.size(); }
};
/// Whole lines only; empty if there is no such file.
CsvTable read_csv(const std::string& path);
/// The history of a run that is over, or as far as it is there.
CsvTable read_history(const std::string& directory);

}  // namespace attnreg::app
