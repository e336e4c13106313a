#include "app/report/text.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "build_info.hpp"

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

std::string storage_name(Storage storage) {
  return (storage == Storage::bfloat16 ? "bfloat" : "float") + std::to_string(8 * item_bytes(storage));
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

std::string padded(std::string text, std::size_t width) {
  const std::size_t blanks = text.size() < width ? width - text.size() : 1;
  return std::move(text) + std::string(blanks, ' ');
}

std::string summary_line(std::string label, const std::string& text) {
  return "  " + padded(std::move(label), 20) + text + "\n";
}

nlohmann::ordered_json build_facts() {
  return {{"version", build_info::version},
          {"git_revision", build_info::git_revision},
          {"compiler", build_info::compiler},
          {"build_type", build_info::build_type},
          {"flags", build_info::flags},
          {"native", build_info::native},
          {"mpi", build_info::mpi_version},
          {"eigen", build_info::eigen_version},
          {"openblas", build_info::openblas_version}};
}

std::string version_text(const std::string& mpi_library) {
  using std::string;
  const auto line = [](const char* label, std::string_view fact) { return padded(label, 14) + string(fact) + "\n"; };
  return "attnreg " + string(build_info::version) + "\n" + line("git", build_info::git_revision) +
         line("compiler", build_info::compiler) +
         line("build",
              string(build_info::build_type) + (build_info::native ? ", for the CPU of the build machine" : "")) +
         line("flags", build_info::flags) + line("MPI", build_info::mpi_version) +
         line("MPI, running", mpi_library.substr(0, mpi_library.find_first_of(",\n"))) +
         line("Eigen", build_info::eigen_version) + line("OpenBLAS", build_info::openblas_version);
}

}  // namespace attnreg::app
