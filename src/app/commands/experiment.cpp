#include <algorithm>

#include "app/experiments/all_experiments.hpp"
#include "app/options/commands.hpp"
#include "app/report/json.hpp"
#include "app/report/text.hpp"
#include "app/run/run_directory.hpp"
#include "experiments/experiments.hpp"
#include "files/output_file.hpp"
#include "ranks/activity.hpp"
#include "ranks/stop.hpp"

namespace attnreg::experiments {

ATTNREG_JSON(Table, name, title, columns, rows, reading)

}  // namespace attnreg::experiments

namespace attnreg::app {

namespace {

using experiments::Table;

const std::vector<Experiment>& all_experiments() {
  static const std::vector<Experiment> all{polynomial_experiment(),          cycle_rank_experiment(),
                                           exponential_network_experiment(), active_sets_experiment(),
                                           checked_gradient_experiment(),    graph_network_experiment()};
  return all;
}

/// Examples, and a line or two for each experiment: its name, files, and what it is about.
const std::string& experiment_epilogue() {
  static const std::string text = [] {
    std::string page = R"(Examples:
  attnreg experiment polynomial
  mpirun -n 4 attnreg experiment cycle-rank -o results

)";
    for (const auto& experiment : all_experiments()) {
      page += "  " + std::string(experiment.name);
      if (!experiment.files.empty()) page += " [" + std::string(experiment.files) + "]";
      page += "\n      " + std::string(experiment.summary) + "\n";
    }
    return page + R"(
docs/experiments.md says what the sources claim, what is shown, and what is theory only.
)";
  }();
  return text;
}

std::vector<OptionGroup> experiment_groups() {
  std::vector<OptionGroup> groups{
      {"Computing",
       {{"seed", 0, "S", Integer{0}, "1", "of all random numbers"},
        {"threads", 0, "N", Integer{1, 4096}, "", "threads per rank; default: as for solve"},
        watchdog_option(),
        progress_option()}}};
  for (const auto& experiment : all_experiments())
    if (!experiment.options.empty()) groups.push_back({experiment.name, experiment.options});
  groups.push_back(report_options("for a .csv file a table and report.json; default: print only"));
  return groups;
}

const Syntax& experiment_syntax() {
  static const Syntax syntax = [] {
    Choice names;
    for (const auto& experiment : all_experiments()) names.names.push_back(experiment.name);
    return Syntax{.name = "experiment",
                  .summary = "Run an experiment of the papers and print its tables.",
                  .positionals = {{"NAME", "which, and its files; see below", names}},
                  .groups = experiment_groups(),
                  .epilogue = experiment_epilogue(),
                  .more = "FILE"};
  }();
  return syntax;
}

/// The experiment that was asked for. Throws `UsageError`: files that it does not take, or options of another one.
const Experiment& chosen_experiment(const Arguments& arguments) {
  const Experiment& chosen = all_experiments()[arguments.choice("NAME")];
  const std::size_t files = arguments.rest().size();
  if (files < chosen.least_files || files > chosen.most_files)
    throw UsageError("experiment " + std::string(chosen.name) + " takes " +
                     (chosen.most_files == 0 ? std::string("no file") : std::string(chosen.files)) + ", not " +
                     counted(static_cast<std::int64_t>(files), "file"));
  for (const auto& other : all_experiments())
    for (const auto& option : other.options)
      if (&other != &chosen && std::ranges::find(chosen.shared, option.name) == chosen.shared.end())
        arguments.refuse({option.name}, "is not an option of " + std::string(chosen.name));
  return chosen;
}

std::string table_text(const Table& table) {
  std::vector<std::vector<std::string>> lines{table.columns};
  for (const auto& row : table.rows) {
    auto& line = lines.emplace_back();
    for (const double value : row) line.push_back(plain(value, 4));
  }
  std::vector<std::size_t> widths(table.columns.size());
  for (const auto& line : lines)
    for (std::size_t column = 0; column < line.size(); ++column)
      widths[column] = std::max(widths[column], 2 + line[column].size());
  std::string text = table.title + "\n\n";
  for (std::size_t first = 1, last = 1; first < widths.size() || first == 1; first = last) {  // as many as fit the page
    std::size_t width = widths[0];
    while (last < widths.size() && (last == first || width + widths[last] <= page_width())) width += widths[last++];
    for (const auto& line : lines) {
      text += std::string(widths[0] - line[0].size(), ' ') + line[0];
      for (std::size_t column = first; column < last; ++column)
        text += std::string(widths[column] - line[column].size(), ' ') + line[column];
      text += "\n";
    }
    text += "\n";
    if (last >= widths.size()) break;
  }
  for (const auto& sentence : table.reading) text += "  " + sentence + "\n";
  return text;
}

std::string table_csv(const Table& table) {
  std::string text;
  for (const auto& column : table.columns) text += (text.empty() ? "" : ",") + column;
  for (const auto& row : table.rows) {
    text += "\n";
    for (std::size_t k = 0; k < row.size(); ++k) text += (k == 0 ? "" : ",") + exact(row[k]);
  }
  return text + "\n";
}

/// "cycle-rank", or "cycle-rank-2" for the second table of this name.
std::string file_name(const std::vector<Table>& all, std::size_t index) {
  const auto same = [&](const Table& table) { return table.name == all[index].name; };
  const auto before = std::count_if(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(index), same);
  return all[index].name + (before == 0 ? "" : "-" + std::to_string(before + 1)) + ".csv";
}

ExitCode run_experiment(const Communicator& communicator, const Arguments& arguments) {
  const Experiment& experiment = chosen_experiment(arguments);
  set_threads(communicator, arguments);
  const ReportDirectory directory(communicator, arguments);
  const InPhase working(Phase::solve);
  const auto all = experiment.run(communicator, arguments, directory);
  StopsEndPhases::end();
  communicator.agree_on_root([&] {
    if (!directory.is_used()) return;
    for (std::size_t k = 0; k < all.size(); ++k) write_file(directory.file(file_name(all, k)), table_csv(all[k]));
  });
  std::string text;
  for (const auto& table : all) text += (text.empty() ? "" : "\n") + table_text(table);
  auto report = document_of("experiment", arguments);
  report["tables"] = all;
  directory.finish(report, text);
  return ExitCode::converged;
}

}  // namespace

Command experiment_command() { return {experiment_syntax(), run_experiment}; }

}  // namespace attnreg::app
