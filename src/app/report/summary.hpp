#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "attnreg/regression.hpp"
#include "app/options/options.hpp"

namespace attnreg::app {

/// What the summary of a solve is made of.
struct SolveReport {
  const Arguments& arguments;
  const RegressionResult& result;
  std::int64_t rows, columns;
  std::string storage;  ///< "float32"
  int ranks, threads;
  std::vector<std::string> files;  ///< written; empty without -o
  std::string path;                ///< the table of a path; empty for a single solve
};

ExitCode exit_code(Termination termination);

/// Why an iteration stopped, in words and numbers. `reference`: "|g(0)|", what |g| is compared with.
std::string termination_text(const Arguments& arguments, const NewtonSummary& summary, const std::string& reference);
/// "\nNotes\n  ..." with one line each; nothing without any.
std::string list_text(std::string_view title, const std::vector<std::string>& lines);
/// The part of `summary_json` that every iteration has.
nlohmann::ordered_json newton_json(const NewtonSummary& summary);

/// The page on stdout: why it stopped, as an inequality with its numbers; what was found; what it cost; how well f
/// reproduces b; what to think of it.
std::string summary_text(const SolveReport& report);

/// The same for run.json.
nlohmann::ordered_json summary_json(const RegressionResult& result);

}  // namespace attnreg::app
