#include "app/report/targets_report.hpp"

#include <algorithm>
#include <map>
#include <tuple>

#include "losses/losses.hpp"
#include "app/report/path_report.hpp"
#include "app/options/solver_options.hpp"
#include "app/report/summary.hpp"
#include "app/report/text.hpp"

namespace attnreg::app {

namespace {

/// The notes or warnings of all targets, each once, with the targets that have it.
std::vector<std::string> collected(const std::vector<RegressionResult>& results,
                                   std::vector<std::string> RegressionResult::*list) {
  std::vector<std::string> order;
  std::map<std::string, std::vector<std::size_t>> of;
  for (std::size_t k = 0; k < results.size(); ++k)
    for (const auto& text : results[k].*list) {
      if (of[text].empty()) order.push_back(text);
      of[text].push_back(k);
    }
  std::vector<std::string> lines;
  for (const auto& text : order) {
    const auto& targets = of[text];
    const std::string who = targets.size() == results.size() ? "all targets"
                            : targets.size() == 1            ? "target " + std::to_string(targets[0])
                                                             : counted(targets.size(), "target");
    lines.push_back(who + ": " + text);
  }
  return lines;
}

}  // namespace

const RegressionResult& worst_result(const std::vector<RegressionResult>& results) {
  const auto failed = std::find_if(results.begin(), results.end(), [](const auto& result) {
    return exit_code(result.summary.termination) != ExitCode::converged;
  });
  return failed == results.end() ? results.front() : *failed;
}

std::string targets_text(const TargetsReport& report, const std::vector<std::string>& files) {
  const auto& results = report.results;
  const bool parts = make_loss(report.arguments.text("loss"))->fits_distribution();
  const auto converged = std::count_if(results.begin(), results.end(), [](const auto& result) {
    return exit_code(result.summary.termination) == ExitCode::converged;
  });
  double reads = 0, seconds = 0;
  std::string text = std::to_string(converged) + " of " + counted(results.size(), "target") + " converged\n\n" +
                     "  target  L                relative |g|  " + (parts ? "total variation" : "|f - b| / |b|  ") +
                     "  R^2       iterations  reads  termination\n";
  for (std::size_t k = 0; k < results.size(); ++k) {
    const auto& [summary, fit] = std::tie(results[k].summary, results[k].fit);
    text += "  " + padded(std::to_string(k), 8) + padded(scientific(summary.value, 9), 17) +
            padded(scientific(summary.relative_gradient, 3), 14) +
            padded(plain(parts ? fit.total_variation : fit.relative_residual, 4), 17) +
            padded(plain(fit.r_squared, 4), 10) + padded(std::to_string(summary.iterations), 12) +
            padded(fixed(summary.reads_of_a, 1), 7) + std::string(termination_name(summary.termination)) + "\n";
    reads += summary.reads_of_a;
    seconds = std::max(seconds, summary.seconds);
  }
  text += "\n" +
          summary_line("problem", std::to_string(report.rows) + " x " + std::to_string(report.columns) + ", " +
                                      report.arguments.text("loss") + " loss, w = " + weight_text(report.arguments)) +
          summary_line("reads of A", fixed(reads, 1) + " in all; a read that several targets share is counted once") +
          summary_line("seconds", fixed(seconds, 3) + " on " + counted(report.ranks, "rank") + " with " +
                                      counted(report.threads, "thread") + " each");
  return text + list_text("Notes", collected(results, &RegressionResult::notes)) +
         list_text("Warnings", collected(results, &RegressionResult::warnings)) + list_text("Files", files);
}

std::string targets_csv(const std::vector<RegressionResult>& results) {
  std::string text =
      "target,value,gradient_norm,relative_gradient,relative_residual,total_variation,r_squared,iterations,"
      "reads_of_a,termination\n";
  for (std::size_t k = 0; k < results.size(); ++k) {
    const auto& [summary, fit] = std::tie(results[k].summary, results[k].fit);
    text += std::to_string(k);
    for (const double value : {summary.value, summary.gradient_norm, summary.relative_gradient, fit.relative_residual,
                               fit.total_variation, fit.r_squared})
      text += "," + exact(value);
    text += "," + std::to_string(summary.iterations) + "," + exact(summary.reads_of_a) + "," +
            std::string(termination_name(summary.termination)) + "\n";
  }
  return text;
}

}  // namespace attnreg::app
