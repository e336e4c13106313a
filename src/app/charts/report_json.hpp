#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace attnreg::app {

// Members of JSON that may be missing, or of another kind: nothing here throws. Local.

std::string value_text(const nlohmann::ordered_json& value);                                 ///< as people read it
double number_at(const nlohmann::ordered_json& json, const char* name);                      ///< else NaN
std::string string_at(const nlohmann::ordered_json& json, const char* name);                 ///< else empty
const nlohmann::ordered_json& member(const nlohmann::ordered_json& json, const char* name);  ///< else null

/// The line for a shell that repeats a run: run.json, or report.json.
std::string command_line(const nlohmann::ordered_json& run);

}  // namespace attnreg::app
