#pragma once

#include <cstdint>
#include <ctime>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace attnreg::app {

/// 17 significant digits, "1.6421832100000000e-03": read back, the same bits. Independent of the locale.
std::string exact(double value);
/// `digits` significant digits in exponent form, for people.
std::string scientific(double value, int digits);
/// `decimals` digits behind the point, for people.
std::string fixed(double value, int decimals);

/// `digits` significant digits, with an exponent only where that is shorter, for people.
std::string plain(double value, int digits);
/// "1 rank", "2 ranks".
std::string counted(std::int64_t count, const std::string& noun);

/// One labelled line of a summary.
std::string summary_line(std::string label, const std::string& text);

/// "2024-06-07T12:00:00Z".
std::string utc_time(std::time_t time);

/// Indented JSON with a newline at the end. NaN and infinities become null, bytes that are not UTF-8 U+FFFD.
std::string json_text(const nlohmann::ordered_json& json);

}  // namespace attnreg::app
