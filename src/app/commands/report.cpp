#include <string>
#include <vector>

#include "app/charts/run_report.hpp"
#include "app/options/commands.hpp"
#include "app/report/json.hpp"
#include "app/report/row_names.hpp"
#include "app/report/text.hpp"
#include "errors/printable.hpp"
#include "files/output_file.hpp"
#include "ranks/activity.hpp"
#include "ranks/stop.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kReportEpilogue = R"(Examples:
  attnreg report run
  attnreg report run --labels words.txt -o words.html
  attnreg report run other third -o comparison.html

One file of HTML that needs no other: it can be opened, sent and printed. Curves, tables and figures of the run come from its directory; f beside b, leverage scores, spectra and attention matrices are made anew from the data, unless these have changed or --no-data is given.
)";

const Syntax kReportSyntax{
    "report",
    "Make one page of HTML on a run, or one that compares several.",
    {{"DIR", "directory of a run of solve or attention, or of sparsify, private or experiment"}},
    {{"Report",
      {{"labels", 0, "FILE", Text{}, "", "a text file with the name of each row of A, one a line"},
       {"no-data", 0, "", Switch{}, "", "only what the directory holds: the data are not read"}}},
     {"Computing", {threads_option(), watchdog_option(), progress_option(), trust_option()}},
     {"Output",
      {{"output", 'o', "FILE", Text{}, "", "where the page goes; default: report.html in DIR"},
       json_option("print where the page is as JSON"),
       force_option()}}},
    kReportEpilogue,
    {},
    {},
    "DIR"};

/// A page that was written; of rank 0, empty elsewhere.
struct WrittenPage {
  std::string path;
  std::size_t bytes = 0;
  std::vector<std::string> notes{};

  std::string text() const {
    std::string text = printable(path) + ": " + std::to_string((bytes + 1023) / 1024) + " KiB\n";
    for (const auto& note : notes) text += "  " + printable(note) + "\n";
    return to_width(text);
  }
};

/// Collective.
WrittenPage write_page(const Communicator& communicator, const std::vector<std::string>& directories,
                       const std::string& path, const std::string& labels_file, bool with_data) {
  const InPhase working(Phase::solve);
  std::vector<ReportedRun> runs;
  std::vector<std::string> labels;
  communicator.agree_on_root([&] {
    for (const auto& directory : directories) runs.push_back(read_run(directory));
    if (!labels_file.empty()) labels = read_labels(labels_file);
  });
  ReportData data;
  if (directories.size() == 1 && with_data)
    data = report_data(communicator, communicator.is_root() ? runs[0] : ReportedRun{}, command_syntax);
  StopsEndPhases::end();
  WrittenPage page{path};
  communicator.agree_on_root([&] {
    const std::string html = runs.size() > 1 ? comparison_html(runs) : report_html(runs[0], data, labels);
    write_file(path, html);
    page.bytes = html.size();
    page.notes = data.notes;
  });
  return page;
}

ExitCode report(const Communicator& communicator, const Arguments& arguments) {
  set_threads(communicator, arguments);
  std::vector<std::string> directories{arguments.text("DIR")};
  directories.insert(directories.end(), arguments.rest().begin(), arguments.rest().end());
  const std::string given = arguments.text("output");
  const std::string path = given.empty() ? directories[0] + "/report.html" : given;
  communicator.agree_on_root([&] { check_output(path, arguments.on("force")); });
  const WrittenPage page =
      write_page(communicator, directories, path, arguments.text("labels"), !arguments.on("no-data"));
  auto json = document_of("report", arguments);
  json.update({{"output", page.path}, {"bytes", page.bytes}, {"notes", page.notes}});
  print_result(communicator, arguments.on("json") ? json_text(json) : page.text());
  return ExitCode::converged;
}

}  // namespace

void report_on_run(const Communicator& communicator, const Arguments& run) {
  const std::string directory = run.text("output");
  const WrittenPage page = write_page(communicator, {directory}, directory + "/report.html",
                                      run.knows("labels") ? run.text("labels") : "", true);
  if (!run.on("json")) return print_result(communicator, "\n" + page.text());
  if (communicator.is_root()) print_line("attnreg: " + page.text());
}

Command report_command() { return {kReportSyntax, report}; }

}  // namespace attnreg::app
