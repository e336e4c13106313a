#include "app/report/path_report.hpp"

#include <algorithm>

#include "app/report/summary.hpp"
#include "app/report/text.hpp"

namespace attnreg::app {

std::string padded(std::string text, std::size_t width) {
  text.resize(std::max(width, text.size() + 1), ' ');
  return text;
}

ExitCode worst_code(const std::vector<RegressionResult>& results) {
  for (const auto& result : results)
    if (exit_code(result.summary.termination) != ExitCode::converged) return exit_code(result.summary.termination);
  return ExitCode::converged;
}

std::string path_table(const std::vector<double>& weights, const std::vector<RegressionResult>& results) {
  std::string text =
      "  w          L                relative |g|  total variation  R^2       iterations  reads  termination\n";
  for (std::size_t k = 0; k < weights.size(); ++k) {
    const NewtonSummary& summary = results[k].summary;
    const FitQuality& fit = results[k].fit;
    text += "  " + padded(scientific(weights[k], 3), 11) + padded(scientific(summary.value, 9), 17) +
            padded(scientific(summary.relative_gradient, 3), 14) + padded(plain(fit.total_variation, 4), 17) +
            padded(plain(fit.r_squared, 4), 10) + padded(std::to_string(summary.iterations), 12) +
            padded(fixed(summary.reads_of_a, 1), 7) + std::string(termination_name(summary.termination)) + "\n";
  }
  return text;
}

std::string path_csv(const std::vector<double>& weights, const std::vector<RegressionResult>& results) {
  std::string text =
      "weight,value,gradient_norm,relative_gradient,total_variation,r_squared,iterations,reads_of_a,termination\n";
  for (std::size_t k = 0; k < weights.size(); ++k) {
    const NewtonSummary& summary = results[k].summary;
    const FitQuality& fit = results[k].fit;
    text += exact(weights[k]) + "," + exact(summary.value) + "," + exact(summary.gradient_norm) + "," +
            exact(summary.relative_gradient) + "," + exact(fit.total_variation) + "," + exact(fit.r_squared) + "," +
            std::to_string(summary.iterations) + "," + exact(summary.reads_of_a) + "," +
            std::string(termination_name(summary.termination)) + "\n";
  }
  return text;
}

}  // namespace attnreg::app
