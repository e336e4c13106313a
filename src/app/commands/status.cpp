#include <sys/stat.h>

#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "app/options/commands.hpp"
#include "app/report/text.hpp"
#include "app/run/run_lock.hpp"
#include "errors/printable.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kStatusEpilogue = R"(Examples:
  attnreg status run
  attnreg status run --json | jq -r .state

States: running; stale, the process is gone and did not say how it ended; stopped, by a signal; done; failed. Whether a
process of another host is gone is told by the lock of DIR, or else by the age of status.json.

Exit code: that of a run which ended; 10: running; 11: stale. 3: DIR holds no run.
)";

const Syntax kStatusSyntax{
    "status",
    "Say whether the run in a directory is running, stale, stopped, done or failed.",
    {{"DIR", "run directory, the -o of solve or attention"}},
    {{"Output",
      {{"stale-after", 0, "SECONDS", Number{0, true}, "600",
        "on another host, where its lock cannot be seen: gone, if status.json was not renewed for so long"},
       {"json", 0, "", Switch{}, "", "print JSON: status.json, with the state that was found, and age_seconds"},
       help_option()}}},
    kStatusEpilogue};

constexpr ExitCode kRunning{10}, kStale{11};

/// What status.json says, and how old it is.
struct SavedStatus {
  nlohmann::ordered_json json;
  double age_seconds = 0;
};

SavedStatus read_status(const std::string& directory) {
  const std::string path = directory + "/status.json";
  std::ifstream file(path);
  SavedStatus status{nlohmann::ordered_json::parse(file, nullptr, false)};
  struct stat facts {};
  if (!file.is_open() || ::stat(path.c_str(), &facts) != 0)
    throw InvalidArgument(printable(directory) + " holds no run: there is no status.json");
  const auto& json = status.json;
  if (!json.is_object() || !json.contains("state") || !json["state"].is_string())
    throw InvalidArgument(printable(path) + ": expected JSON with a state");
  status.age_seconds = std::difftime(std::time(nullptr), facts.st_mtime);
  return status;
}

/// Whether the process that says that it runs is gone.
bool is_stale(const std::string& directory, const SavedStatus& status, double stale_after) {
  const auto owner = owner_in(status.json);
  if (owner && owner->is_here()) return owner->is_gone();
  const auto held = RunLock::is_held(directory);
  if (held && *held) return false;
  return status.age_seconds > stale_after;
}

std::string status_line(const SavedStatus& status) {
  const auto& json = status.json;
  const std::string state = json["state"];
  std::string text = printable(state);
  const auto add = [&](const std::string& more) { text += ", " + more; };
  if (json.contains("exit_code") && json["exit_code"].is_number_integer())
    add("exit code " + std::to_string(json["exit_code"].get<int>()));
  if (json.contains("iteration") && json["iteration"].is_number_integer())
    add("iteration " + std::to_string(json["iteration"].get<std::int64_t>()));
  if (json.contains("relative_gradient") && json["relative_gradient"].is_number())
    add("|g|/|g_ref| " + scientific(json["relative_gradient"], 3));
  if (const auto owner = owner_in(json)) add((state == "running" ? "" : "was ") + owner->text());
  return text + ", renewed " + plain(status.age_seconds, 6) + " s ago\n";
}

ExitCode run_status(const Communicator& communicator, const Arguments& arguments) {
  SavedStatus status;
  std::int64_t code = 0;
  communicator.agree_on_root([&] {
    const std::string directory = arguments.text("DIR");
    status = read_status(directory);
    auto& state = status.json["state"];
    if (state == "running" && is_stale(directory, status, arguments.number("stale-after"))) state = "stale";
    const bool is_over = status.json.contains("exit_code") && status.json["exit_code"].is_number_integer();
    code = state == "running" ? static_cast<int>(kRunning)
           : state == "stale" ? static_cast<int>(kStale)
           : is_over          ? status.json["exit_code"].get<int>()
                              : static_cast<int>(ExitCode::bad_input);
    status.json["age_seconds"] = status.age_seconds;
  });
  code = communicator.max(code);
  print_result(communicator, !communicator.is_root() ? ""
                             : arguments.on("json")  ? json_text(status.json)
                                                     : status_line(status));
  return static_cast<ExitCode>(code);
}

}  // namespace

Command status_command() { return {kStatusSyntax, run_status}; }

}  // namespace attnreg::app
