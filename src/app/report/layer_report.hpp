#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "attnreg/attention_regression.hpp"

namespace attnreg::app {

/// The lines of the summary between the method and the notes.
std::string layer_text(const LayerResult& layer);
/// Members for run.json.
nlohmann::ordered_json layer_json(const LayerResult& layer);

}  // namespace attnreg::app
