#include "app/report/text.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>

#include "build_info.hpp"

namespace attnreg::app {

namespace {

std::string formatted(double value, std::chars_format format, int precision) {
  std::array<char, 400> text{};  // the largest double has 309 digits before the point
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value, format, precision).ptr};
}

/// Columns of a text in UTF-8.
std::size_t columns_of(std::string_view text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

/// Where a line goes on below itself: behind its label, which ends with two blanks, else so many columns in.
std::size_t hanging_indent(std::string_view line, std::size_t width, std::size_t hanging) {
  const std::size_t begin = std::min(line.find_first_not_of(' '), line.size());
  const std::size_t label_end = line.find("  ", begin);
  const std::size_t text = label_end == line.npos ? line.npos : line.find_first_not_of(' ', label_end);
  return text != line.npos && text <= width / 2 ? text : std::min(begin + hanging, width / 2);
}

/// One line of a page, in as many as it takes.
void add_line(std::string& page, std::string_view line, std::size_t width, std::size_t hanging) {
  const std::size_t indent = hanging_indent(line, width, hanging);
  bool is_first = true;
  while (columns_of(line) > (is_first ? width : width - indent)) {
    const std::size_t room = is_first ? width : width - indent;
    std::size_t from = is_first ? indent : 0, cut = line.npos;
    for (std::size_t blank = line.find(' ', from); blank != line.npos; blank = line.find(' ', blank + 1)) {
      if (cut != line.npos && columns_of(line.substr(0, blank)) > room) break;
      cut = blank;
    }
    const std::size_t next = cut == line.npos ? line.npos : line.find_first_not_of(' ', cut);
    if (next == line.npos) break;
    page += (is_first ? "" : std::string(indent, ' ')) + std::string(line.substr(0, cut)) + "\n";
    line.remove_prefix(next);
    is_first = false;
  }
  page += (is_first ? "" : std::string(indent, ' ')) + std::string(line);
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

std::size_t page_width() {
  constexpr std::size_t kUsual = 80, kLeast = 20, kMost = 10000;
  std::size_t width = 0;
  if (const char* const variable = std::getenv("COLUMNS"); variable != nullptr) {
    const std::string_view text(variable);
    if (std::from_chars(text.data(), text.data() + text.size(), width).ec != std::errc()) width = 0;
  }
  winsize size{};
  if (width == 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) width = size.ws_col;
  return width == 0 ? kUsual : std::clamp(width, kLeast, kMost);
}

std::string to_width(std::string_view page, std::size_t width, std::size_t hanging) {
  std::string result;
  while (!page.empty()) {
    const std::size_t end = std::min(page.find('\n'), page.size());
    add_line(result, page.substr(0, end), width, hanging);
    if (end < page.size()) result += '\n';
    page.remove_prefix(std::min(end + 1, page.size()));
  }
  return result;
}

std::string storage_name(Storage storage) {
  return (storage == Storage::bfloat16 ? "bfloat" : "float") + std::to_string(8 * item_bytes(storage));
}

std::string utc_time(std::time_t time) {
  std::tm parts{};
  gmtime_r(&time, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), kUtcFormat, &parts);
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
          {"openblas", build_info::openblas_version},
          {"hdf5", build_info::hdf5_version}};
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
         line("Eigen", build_info::eigen_version) + line("OpenBLAS", build_info::openblas_version) +
         line("HDF5", build_info::hdf5_version);
}

}  // namespace attnreg::app
