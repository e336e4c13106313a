#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "attnreg/attention_regression.hpp"

namespace attnreg::app {

/// What `attention` found out about a head: the recovery, how well it reproduces what it was made of, and what not.
struct HeadReport {
  const HeadResult& result;
  HeadQuality fit;
  std::optional<HeadQuality> held_out;
};

/// The lines of the summary between the method and the notes.
std::string head_text(const HeadReport& report);
/// The same of several heads: a table.
std::string heads_text(const std::vector<HeadReport>& reports);
/// What the heads are worth: the verdict of all, or each with the number of heads that it is of.
std::string heads_verdict_text(const std::vector<HeadReport>& reports);
/// The notes, or warnings, of all heads, each once, with the heads that it is of if these are not all.
std::vector<std::string> remarks(const std::vector<HeadResult>& heads, std::vector<std::string> HeadResult::*of);
/// Members for run.json.
nlohmann::ordered_json head_json(const HeadReport& report);

}  // namespace attnreg::app
