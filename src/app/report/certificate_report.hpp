#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "attnreg/attention_regression.hpp"

namespace attnreg::app {

/// The certificate on stdout; empty for the level none.
std::string certificate_text(const Certificate& certificate);
std::string certificate_text(const AttentionCertificate& certificate);
nlohmann::ordered_json certificate_json(const Certificate& certificate);
nlohmann::ordered_json certificate_json(const AttentionCertificate& certificate);

/// What the steps of sketched-newton rested on; empty without any.
std::string sketched_text(const std::vector<SketchedStep>& steps);

/// The minima that several starts led to; empty without any.
std::string minima_text(const std::vector<Minimum>& minima);

// The same for run.json, lists.
nlohmann::ordered_json sketched_json(const std::vector<SketchedStep>& steps);
nlohmann::ordered_json minima_json(const std::vector<Minimum>& minima);

}  // namespace attnreg::app
