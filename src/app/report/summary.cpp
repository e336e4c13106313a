#include "app/report/summary.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "app/options/solver_options.hpp"
#include "app/report/json.hpp"
#include "app/report/text.hpp"
#include "app/report/verdict.hpp"
#include "errors/printable.hpp"
#include "losses/losses.hpp"

namespace attnreg {

template <class Json>
void to_json(Json& json, Termination termination) {
  json = termination_name(termination);
}
ATTNREG_JSON(NewtonSummary, termination, value, gradient_norm, scaled_gradient, gradient_reference, relative_gradient,
             gradient_floor, iterations, reads_of_a, collectives, seconds)
ATTNREG_JSON(DistanceFigures, eta, hessian_rounding, row_distance, ball, third_derivative, condition, radius)
ATTNREG_JSON(Assumption, name, statement, value, required, holds)
ATTNREG_JSON(FitQuality, relative_residual, total_variation, kullback_leibler, r_squared, support_fitted,
             support_target, target_sum)
ATTNREG_JSON(AuditReport, rate, evaluations, rows, reads, repeated, misjudged)
ATTNREG_JSON(SketchedStep, iteration, draws, rows, sampling_error, distance_bound)
ATTNREG_JSON(Minimum, value, termination, starts, from)

}  // namespace attnreg

namespace attnreg::app {

namespace {

std::string reference_name(const Arguments& arguments) {
  if (arguments.text("rtol-of") == "max") return "|g| max";
  return make_loss(arguments.text("loss"))->form() == HessianForm::centred ? "|g(0)|" : "|g| ref";
}

std::string start_text(const SolveReport& report) {
  if (report.result.start == Start::given && !report.path.empty()) return "the solution for the weight before";
  if (report.result.start == Start::given) return printable(report.arguments.text("start"));
  if (report.result.start == Start::random) return "a random point";
  return report.result.start == Start::zero ? "x = 0" : "the cross-entropy minimiser";
}

std::string reading(const Arguments& arguments, const RegressionResult& result, std::int64_t rows) {
  return make_loss(arguments.text("loss"))->fits_distribution() ? fit_reading(result.fit, rows)
                                                                : residual_reading(result.fit.relative_residual);
}

std::string reading(const SolveReport& report) {
  return reading(report.arguments, report.result, report.A.rows_global());
}

std::string fit_text(const SolveReport& report) {
  const FitQuality& fit = report.result.fit;
  const auto loss = make_loss(report.arguments.text("loss"));
  if (report.arguments.has("offset")) loss->see_offsets();
  const std::string title = "\nFit of f = " + loss->fitted_text() + " to b\n";
  const std::string r_squared =
      summary_line("R^2", plain(fit.r_squared, 4) + "  (1: equal, 0: no better than the mean of b)");
  if (!loss->fits_distribution())
    return title + summary_line("residual", plain(fit.relative_residual, 4) + "  (|f - b| / |b|)") + r_squared +
           summary_line("reading", reading(report));
  return title +
         summary_line("total variation", plain(fit.total_variation, 4) + "  (1/2 sum |f - b|; 0: equal, 1: disjoint)") +
         summary_line("KL(b | f)", plain(fit.kullback_leibler, 4) + " nats  (sum b ln(b / f) - b + f; 0: equal)") +
         r_squared +
         summary_line("effective support", "f " + plain(fit.support_fitted, 6) + ", b " + plain(fit.support_target, 6) +
                                               " of " + std::to_string(report.A.rows_global()) +
                                               " rows  (1 / sum of squares)") +
         summary_line("reading", reading(report));
}

std::string assumption_text(const Assumption& assumption) {
  const auto number = [](double value) { return std::isnan(value) ? std::string("-") : plain(value, 4); };
  std::string text = "  " + std::string(assumption.holds ? "yes" : "no ") + "  " + assumption.name + ": " +
                     assumption.statement + "; value " + number(assumption.value);
  if (!std::isnan(assumption.required)) text += ", needed " + number(assumption.required);
  return text + "\n";
}

/// The certificate on stdout; empty for the level none.
std::string certificate_text(const Certificate& certificate) {
  if (certificate.level == CertificateLevel::none) return "";
  std::string text = "\nCertificate (" + fixed(certificate.reads, 1) + " more reads of A)\n" +
                     summary_line("|g|, A x made anew", scientific(certificate.gradient_norm, 4) + ", relative " +
                                                            scientific(certificate.relative_gradient, 4));
  if (certificate.level != CertificateLevel::full) return text;
  text += summary_line("stationary point", kind_text(certificate.kind)) +
          summary_line("eigenvalues of H", scientific(certificate.smallest_eigenvalue, 4) + " to " +
                                               scientific(certificate.largest_eigenvalue, 4) + ", rounding " +
                                               scientific(certificate.eigenvalue_rounding, 2)) +
          summary_line("Newton decrement", scientific(certificate.newton_decrement, 4)) +
          summary_line("|x - x*|", (certificate.distance_bound ? "<= " + scientific(*certificate.distance_bound, 4)
                                                               : std::string("no bound")) +
                                       ": " + printable(certificate.distance_reason));
  if (!certificate.no_minimiser.empty()) text += summary_line("minimiser", certificate.no_minimiser);
  if (!certificate.assumptions.empty()) text += "\nAssumptions of the papers\n";
  for (const auto& assumption : certificate.assumptions) text += assumption_text(assumption);
  return text;
}

/// What the steps of sketched-newton rested on; empty without any.
std::string sketched_text(const std::vector<SketchedStep>& steps) {
  if (steps.empty()) return "";
  std::string text = "\nSamples: step, rows drawn, distinct rows, error on probes, certified |x - x*|\n";
  for (const auto& step : steps)
    text += "  " + std::to_string(step.iteration) + "  " + (step.draws == 0 ? "all" : std::to_string(step.draws)) +
            "  " + std::to_string(step.rows) + "  " + scientific(step.sampling_error, 3) + "  " +
            scientific(step.distance_bound, 3) + "\n";
  return text;
}

constexpr std::size_t kShown = 5;  // of a list that is folded

/// "... and 7 more: run/run.json has all"
std::string more_text(std::size_t count, const Arguments& arguments) {
  const std::string directory = arguments.text("output");
  return "... and " + std::to_string(count) + " more: -v shows all" +
         (directory.empty() ? ", with -o DIR run.json has them" : ", " + printable(directory) + "/run.json has them");
}

/// Where several starts ended; empty without any.
std::string minima_text(const std::vector<Minimum>& minima, const Arguments& arguments) {
  std::vector<std::string> lines;
  for (const auto& minimum : minima) {
    const std::size_t shown = arguments.on("verbose") ? minimum.from.size() : std::min(kShown, minimum.from.size());
    std::string line = scientific(minimum.value, 9) + "  " + std::string(termination_name(minimum.termination)) + "  " +
                       std::to_string(minimum.starts) + "  ";
    for (std::size_t k = 0; k < shown; ++k) line += (k > 0 ? ", " : "") + minimum.from[k];
    if (shown < minimum.from.size()) line += " and " + std::to_string(minimum.from.size() - shown) + " more";
    lines.push_back(line);
  }
  return folded_text("Ends: L, how, number of starts, which", std::move(lines), arguments);
}

}  // namespace

std::string seconds_text(const Timing& timing, int ranks, int threads) {
  return fixed(timing.solve, 3) + " on " + counted(ranks, "rank") + " with " + counted(threads, "thread") + " each" +
         (timing.certificate > 0 ? "; certificate " + fixed(timing.certificate, 3) : "") + "; loading " +
         fixed(timing.loading, 3);
}

nlohmann::ordered_json timing_json(const Timing& timing) {
  return {{"seconds", timing.solve}, {"certificate_seconds", timing.certificate}, {"loading_seconds", timing.loading}};
}

nlohmann::ordered_json certificate_json(const Certificate& certificate) {
  nlohmann::ordered_json json{{"level", certificate_level_name(certificate.level)},
                              {"gradient_norm", certificate.gradient_norm},
                              {"relative_gradient", certificate.relative_gradient},
                              {"certificate_reads", certificate.reads}};
  if (certificate.level != CertificateLevel::full) return json;
  json.update({{"gradient_floor", certificate.gradient_floor},
               {"newton_decrement", certificate.newton_decrement},
               {"smallest_eigenvalue", certificate.smallest_eigenvalue},
               {"largest_eigenvalue", certificate.largest_eigenvalue},
               {"eigenvalue_rounding", certificate.eigenvalue_rounding},
               {"kind", stationary_kind_name(certificate.kind)},
               {"no_minimiser", certificate.no_minimiser.empty() ? nlohmann::ordered_json(nullptr)
                                                                 : nlohmann::ordered_json(certificate.no_minimiser)},
               {"convexity", certificate.convexity},
               {"distance_bound", certificate.distance_bound.value_or(NAN)},
               {"distance_reason", certificate.distance_reason},
               {"figures", certificate.figures},
               {"assumptions", certificate.assumptions}});
  return json;
}

std::string list_text(std::string_view title, const std::vector<std::string>& lines) {
  if (lines.empty()) return "";
  std::string text = "\n" + std::string(title) + "\n";
  for (const auto& text_line : lines) text += "  " + printable(text_line) + "\n";
  return text;
}

std::string folded_text(std::string_view title, std::vector<std::string> lines, const Arguments& arguments) {
  if (lines.size() > kShown && !arguments.on("verbose")) {
    const std::string more = more_text(lines.size() - kShown, arguments);
    lines.resize(kShown);
    lines.push_back(more);
  }
  return list_text(title, lines);
}

std::string page_text(const SummaryPage& page, const std::vector<std::string>& files) {
  const NewtonSummary& summary = page.result.summary;
  std::string text = termination_text(page.arguments, summary, page.reference) + "\n";
  if (!page.verdict.empty()) text += summary_line("verdict", page.verdict);
  text += summary_line("problem", page.problem) + summary_line("method", page.method) +
          summary_line("L", scientific(summary.value, 9)) + summary_line("|g|", scientific(summary.gradient_norm, 4)) +
          summary_line("|g|_s / " + page.reference, scientific(summary.relative_gradient, 4));
  if (summary.gradient_floor > 0) text += summary_line("rounding floor", scientific(summary.gradient_floor, 4));
  const int start = page.result.start_iterations;
  return text +
         summary_line("iterations", std::to_string(summary.iterations) +
                                        (start > 0 ? " + " + std::to_string(start) + " for the start" : "")) +
         page.cost + summary_line("collectives", std::to_string(summary.collectives)) +
         summary_line("seconds", seconds_text(page.timing, page.ranks, page.threads)) + page.sections +
         minima_text(page.result.minima, page.arguments) + folded_text("Notes", page.result.notes, page.arguments) +
         folded_text("Warnings", page.result.warnings, page.arguments) + list_text("Files", files);
}

std::string summary_text(const SolveReport& report, const std::vector<std::string>& files) {
  const RegressionResult& result = report.result;
  const Arguments& arguments = report.arguments;
  const std::string page = page_text(
      {arguments, result, report.A.communicator().processes(), report.threads, reference_name(arguments),
       verdict_text(arguments, result),
       std::to_string(report.A.rows_global()) + " x " + std::to_string(report.A.columns()) + " as " +
           storage_name(report.A.storage()) + ", " + arguments.text("loss") + " loss, w = " + weight_text(arguments),
       std::string(method_name(result.method)) + " from " + start_text(report),
       summary_line(
           "reads of A",
           fixed(result.summary.reads_of_a, 1) +
               (result.sample_reads > 0 ? ", and work on samples worth " + fixed(result.sample_reads, 1) : "")) +
           audit_text({&result, 1}),
       fit_text(report) + report.names + certificate_text(result.certificate) + sketched_text(result.sketched_steps),
       report.timing},
      files);
  if (report.path.empty()) return page;
  return "Path of weights; x, fit and certificate below are those of the last\n" + report.path + "\n" + page;
}

std::string audit_text(std::span<const RegressionResult> results) {
  AuditReport all;
  for (const RegressionResult& result : results) {
    const AuditReport& audit = result.audit;
    all.rate = std::max(all.rate, audit.rate);
    all.evaluations += audit.evaluations, all.rows += audit.rows, all.reads += audit.reads;
    all.repeated += audit.repeated, all.misjudged += audit.misjudged;
  }
  if (!(all.rate > 0)) return "";
  const std::string found =
      all.repeated + all.misjudged == 0
          ? "all agree"
          : "wrong: " + counted(all.repeated, "evaluation") + ", made again, and " + counted(all.misjudged, "check");
  return summary_line("audit", counted(all.rows, "row") + " of " + counted(all.evaluations, "evaluation") +
                                   " made twice, " + plain(all.reads, 3) + " reads; " + found);
}

nlohmann::ordered_json audit_json(const AuditReport& audit) { return audit; }

const RegressionResult& worst_result(const std::vector<RegressionResult>& results) {
  const auto failed = std::ranges::find_if(results, [](const RegressionResult& result) {
    return exit_code(result.summary.termination) != ExitCode::converged;
  });
  return failed == results.end() ? results.front() : *failed;
}

namespace {

constexpr std::size_t kMostLines = 100;  // of a list on the page

/// What a table shows, in order.
std::vector<std::size_t> shown_of(const std::vector<RegressionResult>& results) {
  std::vector<std::size_t> order(results.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_partition(
      order, [&](std::size_t k) { return exit_code(results[k].summary.termination) != ExitCode::converged; });
  order.resize(std::min(order.size(), kMostLines));
  std::ranges::sort(order);
  return order;
}

}  // namespace

std::string results_table(const std::string& name, const std::vector<std::string>& names,
                          const std::vector<RegressionResult>& results, bool parts) {
  std::string text = "  " + name + padded("L", 12) + padded("|g|/|g_ref|", 12) +
                     padded(parts ? "TV" : "|f-b|/|b|", 10) + padded("R^2", 8) + padded("it", 5) + padded("reads", 7) +
                     "termination\n";
  for (const std::size_t k : shown_of(results)) {
    const NewtonSummary& summary = results[k].summary;
    const FitQuality& fit = results[k].fit;
    text += "  " + padded(names[k], name.size()) + padded(scientific(summary.value, 6), 12) +
            padded(scientific(summary.relative_gradient, 3), 12) +
            padded(plain(parts ? fit.total_variation : fit.relative_residual, 3), 10) +
            padded(plain(fit.r_squared, 3), 8) + padded(std::to_string(summary.iterations), 5) +
            padded(fixed(summary.reads_of_a, 1), 7) + std::string(termination_name(summary.termination)) + "\n";
  }
  if (results.size() > kMostLines) text += "  ... and " + std::to_string(results.size() - kMostLines) + " more\n";
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
    if (lines.size() < kMostLines || lines.size() == order.size()) continue;
    lines.push_back("... and " + std::to_string(order.size() - kMostLines) + " more");
    break;
  }
  return lines;
}

nlohmann::ordered_json result_json(const SolveResult& result) {
  nlohmann::ordered_json json = result.summary;
  json.update({{"exit_code", static_cast<int>(exit_code(result.summary.termination))},
               {"start", start_name(result.start)},
               {"start_iterations", result.start_iterations}});
  return json;
}

nlohmann::ordered_json summary_json(const Arguments& arguments, const RegressionResult& result, std::int64_t rows) {
  nlohmann::ordered_json json = result_json(result);
  json.update({{"method", method_name(result.method)},
               {"fit", result.fit},
               {"verdict", verdict_text(arguments, result)},
               {"reading", reading(arguments, result, rows)}});
  return json;
}

nlohmann::ordered_json remarks_json(const SolveResult& result) {
  return {{"minima", result.minima}, {"notes", result.notes}, {"warnings", result.warnings}};
}

nlohmann::ordered_json regression_json(const SolveReport& report) {
  const RegressionResult& result = report.result;
  nlohmann::ordered_json json{{"summary", summary_json(report.arguments, result, report.A.rows_global())},
                              {"certificate", certificate_json(result.certificate)},
                              {"sketched_steps", result.sketched_steps},
                              {"sample_reads", result.sample_reads}};
  json.update(remarks_json(result));
  if (result.audit.rate > 0) json["audit"] = audit_json(result.audit);
  return json;
}

}  // namespace attnreg::app
