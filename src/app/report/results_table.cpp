#include "app/report/results_table.hpp"

#include <algorithm>
#include <map>

#include "app/report/summary.hpp"
#include "app/report/text.hpp"

namespace attnreg::app {

namespace {

/// The text filled up with blanks: a column of a table.
std::string padded(std::string text, std::size_t width) {
  text.resize(std::max(width, text.size() + 1), ' ');
  return text;
}

}  // namespace

const RegressionResult& worst_result(const std::vector<RegressionResult>& results) {
  const auto failed = std::ranges::find_if(results, [](const RegressionResult& result) {
    return exit_code(result.summary.termination) != ExitCode::converged;
  });
  return failed == results.end() ? results.front() : *failed;
}

std::string results_table(const std::string& name, const std::vector<std::string>& names,
                          const std::vector<RegressionResult>& results, bool parts) {
  std::string text = "  " + name + "L                relative |g|  " + (parts ? "total variation" : "|f - b| / |b|  ") +
                     "  R^2       iterations  reads  termination\n";
  for (std::size_t k = 0; k < results.size(); ++k) {
    const NewtonSummary& summary = results[k].summary;
    const FitQuality& fit = results[k].fit;
    text += "  " + padded(names[k], name.size()) + padded(scientific(summary.value, 9), 17) +
            padded(scientific(summary.relative_gradient, 3), 14) +
            padded(plain(parts ? fit.total_variation : fit.relative_residual, 4), 17) +
            padded(plain(fit.r_squared, 4), 10) + padded(std::to_string(summary.iterations), 12) +
            padded(fixed(summary.reads_of_a, 1), 7) + std::string(termination_name(summary.termination)) + "\n";
  }
  return text;
}

std::string results_csv(const std::string& name, const std::vector<std::string>& names,
                        const std::vector<RegressionResult>& results, bool residuals) {
  std::string text = name + ",value,gradient_norm,relative_gradient," + (residuals ? "relative_residual," : "") +
                     "total_variation,r_squared,iterations,reads_of_a,termination\n";
  for (std::size_t k = 0; k < results.size(); ++k) {
    const NewtonSummary& summary = results[k].summary;
    const FitQuality& fit = results[k].fit;
    text += names[k];
    for (const double value : {summary.value, summary.gradient_norm, summary.relative_gradient})
      text += "," + exact(value);
    if (residuals) text += "," + exact(fit.relative_residual);
    text += "," + exact(fit.total_variation) + "," + exact(fit.r_squared) + "," + std::to_string(summary.iterations) +
            "," + exact(summary.reads_of_a) + "," + std::string(termination_name(summary.termination)) + "\n";
  }
  return text;
}

std::vector<std::string> of_all_targets(const std::vector<RegressionResult>& results,
                                        std::vector<std::string> SolveResult::*list) {
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

}  // namespace attnreg::app
