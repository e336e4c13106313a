#include <algorithm>

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

constexpr std::string_view kExperimentEpilogue = R"(Examples:
  attnreg experiment polynomial
  mpirun -n 4 attnreg experiment cycle-rank -o results

  polynomial        attention by powers separates two data sets from degree 3 on (arXiv 2310.20051)
  cycle-rank        tensor ring by alternating, sampled least squares (arXiv 2304.06594)
  exp-network       over-parameterised exponential regression (arXiv 2303.16504)
  active-sets       neurons of a shifted ReLU that fire (arXiv 2208.05395)
  checked-gradient  gradient descent whose contributions are checked (after arXiv 2308.10502)

docs/experiments.md says what the sources claim, what is shown, and what is theory only.
)";

const Syntax kExperimentSyntax{
    "experiment",
    "Run a small experiment of the papers and print its tables.",
    {{"NAME", "which; see below",
      Choice{{"polynomial", "cycle-rank", "exp-network", "active-sets", "checked-gradient"}}}},
    {{"Computing",
      {{"seed", 0, "S", Integer{0}, "1", "of all random numbers"},
       {"threads", 0, "N", Integer{1, 4096}, "", "threads per rank; default: as for solve"},
       watchdog_option(),
       progress_option()}},
     report_options("for a .csv file a table and report.json; default: print only")},
    kExperimentEpilogue};

/// Collective.
std::vector<Table> tables(const Communicator& communicator, const std::string& name, std::uint64_t seed) {
  using namespace experiments;
  if (name == "polynomial")
    return {polynomial_attention(communicator, {.seed = seed}),
            polynomial_attention(communicator,
                                 {.columns = 66, .copies = 64, .a1 = 0.7, .c = 0.05, .degrees = {1, 2}, .seed = seed}),
            polynomial_vector(communicator, {.seed = seed})};
  if (name == "cycle-rank")
    return {cycle_rank(communicator, {.seed = seed}), cycle_rank(communicator, {.noise = 0.01, .seed = seed}),
            cycle_rank(communicator, {.noise = 0.01, .sampled_rows = 40, .seed = seed})};
  if (name == "exp-network") return {exponential_network(communicator, {.seed = seed})};
  if (name == "active-sets") return {active_sets(communicator, {.seed = seed})};
  return {checked_gradient(communicator, {.seed = seed})};
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
  set_threads(communicator, arguments);
  const ReportDirectory directory(communicator, arguments);
  const InPhase working(Phase::solve);
  const auto all = tables(communicator, arguments.text("NAME"), arguments.seed());
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

Command experiment_command() { return {kExperimentSyntax, run_experiment}; }

}  // namespace attnreg::app
