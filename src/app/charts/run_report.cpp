#include "app/charts/run_report.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "app/charts/charts.hpp"
#include "app/charts/report_json.hpp"
#include "app/charts/report_page.hpp"
#include "app/report/text.hpp"

namespace attnreg::app {

namespace {

using nlohmann::ordered_json;
using Facts = std::vector<std::pair<std::string, std::string>>;

constexpr std::size_t kRowsOfTable = 12, kLinesOfChart = 6, kMinimaOfTable = 12;

/// The summary that was printed, as sections of labelled lines and sentences.
struct PageSection {
  std::string title;
  Facts facts;
};

std::vector<PageSection> sections_of(const std::string& page) {
  std::vector<PageSection> sections{{"", {}}};
  for (const auto line : parts_of(page, '\n')) {
    if (line.empty()) continue;
    if (line[0] != ' ') {
      sections.push_back({std::string(line), {}});
      continue;
    }
    const std::size_t begin = line.find_first_not_of(' '), gap = line.find("  ", begin);
    if (begin == line.npos) continue;
    const std::size_t text = gap == line.npos ? line.npos : line.find_first_not_of(' ', gap);
    if (text == line.npos || begin > 2)
      sections.back().facts.emplace_back("", line.substr(begin));
    else
      sections.back().facts.emplace_back(line.substr(begin, gap - begin), line.substr(text));
  }
  return sections;
}

void add_words(ReportPage& page, const ordered_json& run) {
  const auto sections = sections_of(string_at(run, "page"));
  page.begin_section("Result");
  bool is_first = true;
  for (const auto& section : sections) {
    if (section.title.empty() || section.title == "Files" || section.title.starts_with("Ends:")) continue;
    if (section.title.starts_with("Path of weights")) continue;  // it has a section of its own
    if (is_first) {
      page.add_paragraph(section.title + ".");
    } else {
      if (section.facts.empty()) continue;
      page.add_heading(section.title);
    }
    is_first = false;
    const bool labelled = std::ranges::none_of(section.facts, [](const auto& fact) { return fact.first.empty(); });
    if (labelled) {
      page.add_facts(section.facts);
      continue;
    }
    for (const auto& [label, text] : section.facts) page.add_paragraph((label.empty() ? "" : label + ": ") + text);
  }
  if (is_first) page.add_paragraph(string_at(run, "verdict"));
}

/// The solves of a history, by what tells them apart: target, weight, start.
std::vector<std::pair<std::string, std::vector<std::size_t>>> solves_of(const CsvTable& history) {
  std::vector<std::pair<std::string, std::vector<std::size_t>>> solves;
  std::string last;
  for (std::size_t k = 0; k < history.lines(); ++k) {
    std::string name;
    for (const char* const column : {"target", "weight", "start"}) {
      if (!history.has(column)) continue;
      const std::string& text = history.columns.find(column)->second[k];
      const auto weight = number_in<double>(text);
      if (text.empty() || (text == "file" && !name.empty())) continue;
      name +=
          (name.empty() ? "" : ", ") + (std::string_view(column) == "start"              ? text
                                        : std::string_view(column) == "weight" && weight ? "w " + scientific(*weight, 3)
                                                                                         : "target " + text);
    }
    const auto known = std::ranges::find(solves, name, &std::pair<std::string, std::vector<std::size_t>>::first);
    if (known == solves.end())
      solves.push_back({name, {k}});
    else
      known->second.push_back(k);
  }
  return solves;
}

std::vector<Series> series_of(const CsvTable& history, const char* x, const char* y) {
  const auto xs = history.numbers(x), ys = history.numbers(y);
  std::vector<Series> all;
  if (xs.empty() || ys.empty()) return all;
  for (const auto& [name, lines] : solves_of(history)) {
    if (all.size() == kLinesOfChart) break;
    Series series{name.empty() ? y : name, {}, {}};
    for (const std::size_t k : lines) {
      series.x.push_back(xs[k]);
      series.y.push_back(ys[k]);
    }
    all.push_back(std::move(series));
  }
  return all;
}

void add_convergence(ReportPage& page, const CsvTable& history) {
  if (history.lines() == 0) return;
  const auto solves = solves_of(history).size();
  page.begin_section("Convergence",
                     "|g| is the norm of the gradient, the reference that of the stopping test. A read is "
                     "one pass over all rows of A." +
                         (solves > kLinesOfChart ? " The first " + std::to_string(kLinesOfChart) + " of " +
                                                       std::to_string(solves) + " solves are drawn."
                                                 : std::string()));
  auto above_least = series_of(history, "reads_of_a", "value");
  double least = std::numeric_limits<double>::infinity();
  for (const auto& series : above_least)
    for (const double value : series.y) least = std::min(least, value);
  for (auto& series : above_least)
    for (double& value : series.y) value -= least;
  std::vector<std::string> charts;
  const auto add = [&](const Axes& axes, const std::vector<Series>& series) {
    const bool has_numbers = std::ranges::any_of(series, [&](const Series& one) {
      return std::ranges::any_of(one.y, [&](double y) { return std::isfinite(y) && (y > 0 || !axes.log_y); });
    });
    if (has_numbers) charts.push_back(line_chart(axes, series));
  };
  add({"Gradient over reads", "reads of A", "|g| / reference", false, true},
      series_of(history, "reads_of_a", "relative_gradient"));
  add({"Gradient over seconds", "seconds", "|g| / reference", false, true},
      series_of(history, "seconds", "relative_gradient"));
  add({"Objective above the least that was met", "reads of A", "L - " + plain(least, 6), false, true}, above_least);
  add({"Trust radius", "iteration", "radius", false, true}, series_of(history, "iteration", "radius"));
  add({"Products with the Hessian", "iteration", "products of the step"},
      series_of(history, "iteration", "cg_iterations"));
  page.add_charts(charts);
}

/// 1, 2, ..., and the numbers.
Series ranked(const std::string& name, const Eigen::VectorXd& values, bool dots = false) {
  Series series{name, {}, {}, dots};
  for (Eigen::Index k = 0; k < values.size(); ++k) {
    series.x.push_back(static_cast<double>(k + 1));
    series.y.push_back(values[k]);
  }
  return series;
}

/// The places at which a chart of ranks has a point: all of few, else every so many on a logarithmic scale.
std::vector<Eigen::Index> places_of(Eigen::Index count) {
  std::vector<Eigen::Index> places;
  double next = 0;
  for (Eigen::Index k = 0; k < count; ++k)
    if (static_cast<double>(k) >= next) {
      places.push_back(k);
      next = std::max(next + 1, 1.02 * next);
    }
  return places;
}

void add_fit(ReportPage& page, const ReportData& data, const std::vector<std::string>& labels) {
  const Eigen::VectorXd &b = data.b, &f = data.fitted;
  if (b.size() == 0 || b.size() != f.size()) return;
  std::vector<Eigen::Index> order(static_cast<std::size_t>(b.size()));
  std::iota(order.begin(), order.end(), Eigen::Index{0});
  std::ranges::stable_sort(order, [&](auto i, auto j) { return b[i] > b[j]; });
  Series target{"b", {}, {}}, fitted{"f", {}, {}, true}, ratio{"f / b", {}, {}, true};
  for (const Eigen::Index k : places_of(b.size())) {
    const Eigen::Index i = order[static_cast<std::size_t>(k)];
    const auto rank = static_cast<double>(k + 1);
    for (Series* const series : {&target, &fitted, &ratio}) series->x.push_back(rank);
    target.y.push_back(b[i]);
    fitted.y.push_back(f[i]);
    ratio.y.push_back(b[i] != 0 ? f[i] / b[i] : NAN);
  }
  page.begin_section("Fit", "The rows of A in the order of b, the largest first. f is what x makes of a row.");
  page.add_charts({line_chart({"b, and f of the same rows", "rank by b", "b, f", true, true}, {target, fitted}),
                   line_chart({"f / b by rank", "rank by b", "f / b", true, true}, {ratio})});
  std::vector<std::vector<std::string>> rows;
  for (std::size_t k = 0; k < std::min(kRowsOfTable, order.size()); ++k) {
    const Eigen::Index i = order[k];
    std::vector<std::string> row{std::to_string(k + 1), std::to_string(i)};
    if (!labels.empty())
      row.push_back(static_cast<std::size_t>(i) < labels.size() ? labels[static_cast<std::size_t>(i)] : "");
    row.insert(row.end(), {plain(b[i], 4), plain(f[i], 4), b[i] != 0 ? plain(f[i] / b[i], 3) : "-"});
    rows.push_back(std::move(row));
  }
  std::vector<std::string> heading{"rank", "row"};
  if (!labels.empty()) heading.push_back("label");
  heading.insert(heading.end(), {"b", "f", "f / b"});
  page.add_table(heading, rows);
}

void add_spectra(ReportPage& page, const ReportData& data) {
  std::vector<std::string> charts;
  if (data.scores.size() > 0) {
    Series scores{"score", {}, {}};
    for (const Eigen::Index k : places_of(data.scores.size())) {
      scores.x.push_back(static_cast<double>(k + 1));
      scores.y.push_back(data.scores[k]);
    }
    charts.push_back(line_chart({"Leverage scores of the rows of A", "rank", "score", true, true}, {scores}));
  }
  if (data.singular_values.size() > 0)
    charts.push_back(
        line_chart({"Singular values of A", "number", "value", false, true}, {ranked("value", data.singular_values)}));
  if (data.hessian_eigenvalues.size() > 0)
    charts.push_back(line_chart(
        {"Eigenvalues of the Hessian at x", "number", "value", false, true},
        {ranked("positive", data.hessian_eigenvalues), ranked("negative, -value", -data.hessian_eigenvalues, true)}));
  if (data.spectrum_of_X.size() > 0)
    charts.push_back(
        line_chart({"Singular values of X", "number", "value", false, true}, {ranked("value", data.spectrum_of_X)}));
  if (charts.empty()) return;
  page.begin_section(
      "Spectra",
      "Made anew from the data for this page. Scores are approximate, right to a factor of about 2; singular "
      "values come from a Gram matrix, and below 1e-8 of the largest are rounding.");
  page.add_charts(charts);
}

void add_path(ReportPage& page, const CsvTable& path) {
  if (path.lines() == 0) return;
  const auto chart = [&](const char* title, const char* column, bool log_y) {
    return line_chart({title, "weight w", column, true, log_y},
                      {{column, path.numbers("weight"), path.numbers(column)}});
  };
  page.begin_section("Path of weights", "One solve for each weight, each from the solution before.");
  page.add_charts({chart("Total variation between f and b", "total_variation", false), chart("R^2", "r_squared", false),
                   chart("Objective", "value", true), chart("Reads of A", "reads_of_a", false)});
}

void add_targets(ReportPage& page, const CsvTable& targets) {
  if (targets.lines() == 0) return;
  page.begin_section("Targets",
                     counted(static_cast<std::int64_t>(targets.lines()), "regression") + " with the same A.");
  page.add_charts({line_chart({"Total variation", "target", "total variation"},
                              {{"", targets.numbers("target"), targets.numbers("total_variation"), true}}),
                   line_chart({"Reads of A", "target", "reads"},
                              {{"", targets.numbers("target"), targets.numbers("reads_of_a"), true}})});
}

void add_minima(ReportPage& page, const ordered_json& run) {
  const auto& minima = member(run, "minima");
  if (!minima.is_array() || minima.empty()) return;
  Bars bars{"Where the starts ended", "L", {}, {{"L", {}, {}}}};
  std::vector<std::vector<std::string>> rows;
  for (const auto& minimum : minima) {
    if (rows.size() == kMinimaOfTable) break;
    const auto& from = member(minimum, "from");
    std::string names;
    for (const auto& name : from) names += (names.empty() ? "" : ", ") + value_text(name);
    bars.labels.push_back("end " + std::to_string(rows.size() + 1) + ", " + value_text(member(minimum, "starts")) +
                          " starts");
    bars.series[0].y.push_back(number_at(minimum, "value"));
    rows.push_back({std::to_string(rows.size() + 1), scientific(number_at(minimum, "value"), 9),
                    string_at(minimum, "termination"), names});
  }
  page.begin_section("Minima",
                     counted(std::ssize(minima), "end") + " of the solves from several starts, lowest first.");
  page.add_chart(bar_chart(bars));
  page.add_table({"end", "L", "termination", "starts"}, rows);
}

void add_maps(ReportPage& page, const ReportData& data) {
  if (data.maps.empty()) return;
  page.begin_section("Attention",
                     "F is what X makes of queries and keys, B what was observed. Rows are queries, columns "
                     "keys. F and B of a sequence share a scale; that of F - B is its own.");
  for (const auto& map : data.maps) {
    const double largest = std::max(map.fitted.cwiseAbs().maxCoeff(), map.target.cwiseAbs().maxCoeff());
    const Eigen::MatrixXd difference = map.fitted - map.target;
    const bool is_signed = map.target.minCoeff() < 0;
    page.add_charts({heat_map("F, " + map.name, map.fitted, largest, is_signed),
                     heat_map("B, " + map.name, map.target, largest, is_signed),
                     heat_map("F - B, " + map.name, difference, difference.cwiseAbs().maxCoeff(), true)});
  }
}

void add_sparsify(ReportPage& page, const ordered_json& run) {
  const auto& errors = member(run, "errors");
  if (!errors.is_object() || errors.empty()) return;
  const std::array<std::pair<const char*, const char*>, 4> kinds{{{"gram", "Gram matrix"},
                                                                  {"spectral", "spectral"},
                                                                  {"entry", "attention weight"},
                                                                  {"output", "attention output"}}};
  Bars bars{"Errors of Y beside those of Y = 0 and of as many uniform columns", "relative error", {}, {}, true};
  for (const auto& [whose, values] : errors.items()) bars.series.push_back({whose == "zero" ? "Y = 0" : whose, {}, {}});
  for (const auto& [key, name] : kinds) {
    bars.labels.emplace_back(name);
    std::size_t k = 0;
    for (const auto& [whose, values] : errors.items()) bars.series[k++].y.push_back(number_at(values, key));
  }
  page.begin_section("Errors", "What Y does to the Gram matrix and the attention matrix of X.");
  page.add_facts({{"columns", value_text(member(run, "columns")) + " of " + value_text(member(run, "d"))},
                  {"asked for", value_text(member(run, "columns_asked"))},
                  {"spectral error e", value_text(member(run, "epsilon"))},
                  {"reads of X", value_text(member(run, "reads_of_x"))}});
  page.add_chart(bar_chart(bars));
}

void add_tables(ReportPage& page, const ordered_json& run) {
  const auto& tables = member(run, "tables");
  if (!tables.is_array()) return;
  page.begin_section("Tables");
  for (const auto& table : tables) {
    std::vector<std::string> heading;
    std::vector<std::vector<std::string>> rows;
    for (const auto& column : member(table, "columns")) heading.push_back(value_text(column));
    for (const auto& line : member(table, "rows")) {
      auto& row = rows.emplace_back();
      for (const auto& cell : line) row.push_back(cell.is_number() ? plain(cell.get<double>(), 4) : value_text(cell));
    }
    page.add_heading(string_at(table, "title"));
    page.add_table(heading, rows);
    for (const auto& sentence : member(table, "reading")) page.add_paragraph(value_text(sentence));
  }
}

void add_timing(ReportPage& page, const ordered_json& timing) {
  const auto& phases = member(timing, "phases");
  if (!phases.is_array()) return;
  std::vector<std::string> labels;
  std::vector<double> shares;
  Bars bars{
      "Work of the ranks, without messages", "seconds", {}, {{"least", {}, {}}, {"mean", {}, {}}, {"largest", {}, {}}}};
  std::vector<std::vector<std::string>> rows;
  for (const auto& phase : phases) {
    if (!(number_at(phase, "seconds") > 0)) continue;
    const std::string name = string_at(phase, "phase");
    shares.push_back(number_at(phase, "share"));
    labels.push_back(name + " " + fixed(number_at(phase, "seconds"), 3) + " s, " + fixed(100 * shares.back(), 0) +
                     " %");
    bars.labels.push_back(name);
    std::size_t k = 0;
    for (const char* const which : {"least", "mean", "largest"}) bars.series[k++].y.push_back(number_at(phase, which));
    rows.push_back({name, fixed(number_at(phase, "seconds"), 3), fixed(100 * shares.back(), 1) + " %",
                    value_text(member(phase, "messages")), fixed(100 * number_at(phase, "message_share"), 1) + " %"});
  }
  page.begin_section("Time", "Wall clock " + fixed(number_at(timing, "wall_seconds"), 3) + " s on " +
                                 counted(static_cast<std::int64_t>(number_at(timing, "ranks")), "rank") +
                                 ". Where least and largest differ much, ranks wait for each other.");
  page.add_charts({shares_chart("Phases", labels, shares), bar_chart(bars)});
  page.add_table({"phase", "seconds", "share", "messages", "time in messages"}, rows);
}

void add_repetition(ReportPage& page, const ReportedRun& run, const ReportData& data) {
  page.begin_section("How to repeat it");
  page.add_preformatted(command_line(run.run));
  Facts facts;
  for (const char* const name : {"directory", "seed", "resumed"})
    if (run.run.contains(name)) facts.emplace_back(name, value_text(run.run[name]));
  const auto& inputs = member(run.run, "inputs");
  if (inputs.is_object())
    for (const auto& [role, input] : inputs.items())
      if (facts.size() < 24)
        facts.emplace_back(role, string_at(input, "path") + ", " + value_text(member(input, "bytes")) + " bytes, " +
                                     string_at(input, "modified"));
  for (const char* const part : {"layout", "build"})
    if (member(run.run, part).is_object())
      for (const auto& [name, value] : run.run[part].items()) facts.emplace_back(name, value_text(value));
  page.add_facts(facts);
  page.add_heading("Configuration");
  std::vector<std::vector<std::string>> rows;
  if (member(run.run, "configuration").is_object())
    for (const auto& [name, entry] : run.run["configuration"].items())
      rows.push_back({name, value_text(member(entry, "value")), string_at(entry, "source")});
  page.add_table({"option", "value", "source"}, rows);
  for (const auto& note : data.notes) page.add_paragraph("This page: " + note + ".");
}

std::string asked(const ReportedRun& run) {
  std::string text = words_of(run.run)[0];
  const auto& configuration = member(run.run, "configuration");
  for (const char* const name : {"loss", "method", "form", "NAME"})
    if (const auto& entry = member(configuration, name); entry.is_object())
      text += ", " + std::string(name) + " " + value_text(member(entry, "value"));
  return text + "; directory " + run.directory;
}

}  // namespace

std::string report_html(const ReportedRun& run, const ReportData& data, const std::vector<std::string>& labels) {
  const std::string name = run.directory.substr(run.directory.find_last_of('/') + 1);
  ReportPage page("attnreg: " + (name.empty() ? run.directory : name), asked(run));
  add_words(page, run.run);
  add_sparsify(page, run.run);
  add_tables(page, run.run);
  add_convergence(page, run.history);
  add_fit(page, data, labels);
  add_path(page, run.path);
  add_targets(page, run.targets);
  add_minima(page, run.run);
  add_maps(page, data);
  add_spectra(page, data);
  add_timing(page, run.timing);
  add_repetition(page, run, data);
  return page.html();
}

}  // namespace attnreg::app
