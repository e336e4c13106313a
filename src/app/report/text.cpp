#include "app/report/text.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

namespace attnreg::app {

namespace {

std::string formatted(double value, std::chars_format format, int precision) {
  std::array<char, 400> text{};  // the largest double has 309 digits before the point
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value, format, precision).ptr};
}

}  // namespace

std::string exact(double value) { return formatted(value, std::chars_format::scientific, 16); }
std::string scientific(double value, int digits) {
  return std::isnan(value) ? "undefined" : formatted(value, std::chars_format::scientific, digits - 1);
}
std::string fixed(double value, int decimals) { return formatted(value, std::chars_format::fixed, decimals); }
std::string plain(double value, int digits) {
  return std::isnan(value) ? "undefined" : formatted(value, std::chars_format::general, digits);
}
std::string counted(std::int64_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

std::string utc_time(std::time_t time) {
  std::tm parts{};
  gmtime_r(&time, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

std::string json_text(const nlohmann::ordered_json& json) {
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::string summary_line(std::string label, const std::string& text) {
  label.resize(20, ' ');
  return "  " + label + text + "\n";
}

}  // namespace attnreg::app
