#include <nlohmann/json.hpp>

#include "app/options/commands.hpp"
#include "app/report/text.hpp"
#include "app/run/run_files.hpp"

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
       json_option("print JSON: status.json, with the state that was found, and age_seconds")}}},
    kStatusEpilogue};

ExitCode run_status(const Communicator& communicator, const Arguments& arguments) {
  SavedStatus status;
  std::int64_t code = 0;
  communicator.agree_on_root([&] {
    status = read_status(arguments.text("DIR"), arguments.number("stale-after"));
    code = status.exit_code();
    status.json["age_seconds"] = status.age_seconds;
  });
  code = communicator.max(code);
  print_result(communicator, !communicator.is_root() ? ""
                             : arguments.on("json")  ? json_text(status.json)
                                                     : to_width(status.line() + "\n"));
  return static_cast<ExitCode>(code);
}

}  // namespace

Command status_command() { return {kStatusSyntax, run_status}; }

}  // namespace attnreg::app
