#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "app/options/commands.hpp"
#include "app/report/text.hpp"
#include "app/run/run_files.hpp"
#include "errors/printable.hpp"
#include "ranks/stop.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kWatchEpilogue = R"(Example:
  attnreg watch run

In a terminal the page is drawn again until the run is over; else it is printed once. The blocks are |g|/|g_ref|, or L, of the iterations so far, on a logarithmic scale, the last one at the right.

Exit code: as of `attnreg status`.
)";

const Syntax kWatchSyntax{
    "watch",
    "Look at the run in a directory while it goes on, or after: state, phase, time left, convergence.",
    {{"DIR", "run directory, the -o of solve or attention"}},
    {{"Output",
      {{"interval", 0, "SECONDS", Number{0.1, false, 3600}, "1", "between two looks"},
       {"once", 0, "", Switch{}, "", "one look, also in a terminal"},
       json_option("one look, as JSON: status.json and the iterations so far")}}},
    kWatchEpilogue};

/// Numbers as blocks of eight heights, on a logarithmic scale; of more than `most`, the last of each stretch.
std::string blocks_of(const std::vector<double>& values, std::size_t most) {
  constexpr std::array<const char*, 8> kBlocks{"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::vector<double> logs;
  const std::size_t count = std::min(values.size(), most);
  for (std::size_t k = 1; k <= count; ++k) {
    const double value = values[values.size() * k / count - 1];
    if (std::isfinite(value) && value > 0) logs.push_back(std::log10(value));
  }
  if (logs.empty()) return "";
  const auto [least, largest] = std::ranges::minmax(logs);
  std::string text;
  for (const double value : logs) {
    const double height = largest > least ? (value - least) / (largest - least) : 1;
    text += kBlocks.at(static_cast<std::size_t>(std::lround(7 * height)));
  }
  return text;
}

std::string convergence_line(const char* name, const std::vector<double>& values) {
  const std::string blocks = blocks_of(values, page_width() - 40);
  if (blocks.empty()) return "";
  return padded(name, 12) + blocks + "  " + scientific(values.front(), 2) + " to " + scientific(values.back(), 2) +
         "\n";
}

/// status.json and the history so far.
std::string watch_json(const std::string& directory, const SavedStatus& status) {
  const CsvTable history = read_history(directory);
  nlohmann::ordered_json columns = nlohmann::ordered_json::object();
  for (const char* const name : {"iteration", "value", "relative_gradient", "reads_of_a", "seconds"})
    columns[name] = history.numbers(name);
  nlohmann::ordered_json json{{"schema", "attnreg-watch-1"}, {"status", status.json}, {"history", columns}};
  json["status"]["age_seconds"] = status.age_seconds;
  return json_text(json);
}

std::string watch_page(const std::string& directory, const SavedStatus& status) {
  std::string text = printable(directory) + ": " + status.line() + "\n";
  if (status.state() == "running" && status.json.contains("work")) {
    const auto& work = status.json["work"];
    const auto word = [&](const char* name) {
      return work.is_object() && work.contains(name) && work[name].is_string() ? work[name].get<std::string>() : "";
    };
    const auto number = [&](const char* name) {
      return work.is_object() && work.contains(name) && work[name].is_number() ? work[name].get<double>() : NAN;
    };
    const std::string what = word("what"), unit = word("unit");
    std::string line = word("phase") + (what.empty() ? "" : ": " + what);
    if (!unit.empty())
      line += ", " + fixed(100 * number("share"), 0) + " %, " + plain(number("rate"), 3) + " " + unit + "/s";
    if (std::isfinite(number("seconds_left"))) line += ", " + fixed(std::ceil(number("seconds_left")), 0) + " s left";
    text += printable(line) + "\n";
  }
  const CsvTable history = read_history(directory);
  if (history.lines() > 0)
    text += convergence_line("|g|/|g_ref|", history.numbers("relative_gradient")) +
            convergence_line("L", history.numbers("value"));
  return to_width(text);
}

ExitCode watch(const Communicator& communicator, const Arguments& arguments) {
  constexpr double kStaleAfter = 600;
  const std::string directory = arguments.text("DIR");
  std::int64_t code = 0;
  std::string page;
  communicator.agree_on_root([&] {
    const bool draws = isatty(STDOUT_FILENO) != 0 && !arguments.on("once") && !arguments.on("json");
    SavedStatus status = read_status(directory, kStaleAfter);
    while (draws && status.state() == "running") {
      page = watch_page(directory, status);
      const std::string drawn = "\x1b[H\x1b[2J" + page;
      std::fwrite(drawn.data(), 1, drawn.size(), stdout);
      std::fflush(stdout);
      std::this_thread::sleep_for(std::chrono::duration<double>(arguments.number("interval")));
      throw_if_stopped();
      status = read_status(directory, kStaleAfter);
    }
    page = arguments.on("json") ? watch_json(directory, status)
                                : (draws ? "\x1b[H\x1b[2J" : "") + watch_page(directory, status);
    code = status.exit_code();
  });
  code = communicator.max(code);
  print_result(communicator, page);
  return static_cast<ExitCode>(code);
}

}  // namespace

Command watch_command() { return {kWatchSyntax, watch}; }

}  // namespace attnreg::app
