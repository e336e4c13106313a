#include <algorithm>
#include <cmath>
#include <map>

#include "app/charts/charts.hpp"
#include "app/charts/report_json.hpp"
#include "app/charts/report_page.hpp"
#include "app/charts/run_report.hpp"
#include "app/report/text.hpp"

namespace attnreg::app {

namespace {

constexpr std::size_t kMostCompared = 6;  // lines of a chart

}  // namespace

std::string comparison_html(const std::vector<ReportedRun>& runs) {
  ReportPage page("attnreg: " + counted(std::ssize(runs), "run"), "a comparison");
  std::vector<Series> over_reads, over_seconds;
  std::vector<std::vector<std::string>> rows;
  Bars times{"Wall clock", "seconds", {}, {{"seconds", {}, {}}}};
  for (const auto& run : runs) {
    const auto& summary = member(run.run, "summary");
    const auto& fit = member(summary, "fit");
    rows.push_back({run.directory, string_at(run.run, "command"), string_at(summary, "termination"),
                    string_at(summary, "method"), plain(number_at(summary, "value"), 6),
                    plain(number_at(summary, "relative_gradient"), 3), plain(number_at(fit, "total_variation"), 4),
                    value_text(member(summary, "iterations")), plain(number_at(summary, "reads_of_a"), 4),
                    plain(number_at(summary, "seconds"), 4)});
    times.labels.push_back(run.directory);
    times.series[0].y.push_back(number_at(run.timing, "wall_seconds"));
    if (over_reads.size() == kMostCompared || run.history.lines() == 0) continue;
    const auto gradient = run.history.numbers("relative_gradient");
    over_reads.push_back({run.directory, run.history.numbers("reads_of_a"), gradient});
    over_seconds.push_back({run.directory, run.history.numbers("seconds"), gradient});
  }
  page.begin_section("Results");
  page.add_table({"run", "command", "termination", "method", "L", "|g| / reference", "total variation", "iterations",
                  "reads", "seconds"},
                 rows);
  page.begin_section("Convergence");
  page.add_charts({line_chart({"Gradient over reads", "reads of A", "|g| / reference", false, true}, over_reads),
                   line_chart({"Gradient over seconds", "seconds", "|g| / reference", false, true}, over_seconds)});
  page.begin_section("Time");
  page.add_chart(bar_chart(times));
  page.begin_section("What differs", "Options that are not the same in all runs.");
  std::map<std::string, std::vector<std::string>> options;
  for (std::size_t k = 0; k < runs.size(); ++k)
    if (const auto& configuration = member(runs[k].run, "configuration"); configuration.is_object())
      for (const auto& [name, entry] : configuration.items()) {
        auto& values = options[name];
        values.resize(runs.size(), "-");
        values[k] = value_text(member(entry, "value"));
      }
  std::vector<std::vector<std::string>> different;
  std::vector<std::string> heading{"option"};
  for (const auto& run : runs) heading.push_back(run.directory);
  for (const auto& [name, values] : options)
    if (std::ranges::any_of(values, [&](const auto& value) { return value != values[0]; })) {
      different.push_back({name});
      different.back().insert(different.back().end(), values.begin(), values.end());
    }
  page.add_table(heading, different);
  page.begin_section("How to repeat them");
  for (const auto& run : runs) page.add_preformatted(command_line(run.run));
  return page.html();
}

}  // namespace attnreg::app
