#include "app/report/summary.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "app/options/solver_options.hpp"
#include "app/report/json.hpp"
#include "app/report/text.hpp"
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

/// What it means for the user, in one sentence.
std::string verdict(const SolveReport& report) {
  switch (report.result.summary.termination) {
    case Termination::converged:
    case Termination::converged_rounding:
      if (!report.result.certificate.no_minimiser.empty()) return report.result.certificate.no_minimiser;
      if (report.arguments.text("loss") == "cross-entropy")
        return report.result.certificate.minimiser_exists || report.result.certificate.distance_bound
                   ? "x is a minimiser: this loss is convex"
                   : "x is a minimiser if one exists: this loss is convex; --certificate full looks whether it does";
      if (report.result.certificate.kind == StationaryKind::local_minimum)
        return "x is a local minimum of L; there may be others: --starts K looks for them";
      if (report.result.certificate.kind == StationaryKind::degenerate)
        return "x is a stationary point of L; along some direction its curvature is 0 to rounding";
      return "x is a stationary point of L, --certificate full says which kind; there may be others: --starts K";
    case Termination::saddle: return "x is a saddle point of L, not a minimum; start elsewhere";
    case Termination::no_minimiser: return "raise --weight: then there is a minimiser";
    case Termination::diverged: return "do not use x; try --start zero, or raise --weight";
    case Termination::breakdown: return "do not use x; look for huge values in A and w, or raise --weight";
    case Termination::uncertified: return "x is as good as |g| says; the certificate below says what is missing";
    case Termination::stagnated:
      return "x may serve for a looser --rtol; try --start cross-entropy or --storage double";
    case Termination::stopped: return "the best x so far; go on from it with --start DIR/x.npy";
    default: return "x is not a solution yet; raise the limit, or go on from it with --start DIR/x.npy";
  }
}

constexpr double kSumSlack = 0.01;  // of sums for which shares of a mass make sense

std::string degree_of_fit(double mismatch) {
  if (mismatch <= 0.01) return "f reproduces b almost exactly: ";
  if (mismatch <= 0.1) return "f reproduces b well: ";
  return mismatch <= 0.5 ? "f reproduces b roughly: " : "f reproduces little of b: ";
}

std::string fit_reading(const SolveReport& report) {
  const FitQuality& fit = report.result.fit;
  const double mismatch = fit.total_variation;
  if (!std::isfinite(mismatch)) return "f is not finite";
  if (std::abs(fit.target_sum - 1) > kSumSlack)
    return "b sums to " + plain(fit.target_sum, 6) + " and f to 1: f cannot reproduce b" +
           (fit.target_sum > 0 ? "; --normalise-b divides b by its sum" : "");
  const bool flat = fit.support_fitted > 0.9 * static_cast<double>(report.A.rows_global()) &&
                    fit.support_target < 0.7 * fit.support_fitted;
  if (mismatch > 0.1 && flat)
    return "f is nearly uniform and hardly follows b: the weight w is too large for these data; try a smaller one";
  const std::string share = fixed(100 * mismatch, mismatch < 0.1 ? 2 : 0) + " % of the mass of f is not where b has it";
  if (mismatch <= 0.5) return degree_of_fit(mismatch) + share;
  return degree_of_fit(mismatch) + share +
         (fit.r_squared > 0.9 ? "; the largest values are right (R^2), the many small ones are not"
                              : "; try a smaller weight");
}

/// For losses whose f is no distribution.
std::string residual_reading(double residual) {
  if (!std::isfinite(residual)) return "there is nothing to reproduce, or f is not finite";
  return degree_of_fit(residual) + "|f - b| is " + plain(100 * residual, 3) + " % of |b|";
}

std::string fit_text(const SolveReport& report) {
  const FitQuality& fit = report.result.fit;
  const auto loss = make_loss(report.arguments.text("loss"));
  const std::string title = "\nFit of f = " + std::string(loss->fitted_expression()) + " to b\n";
  const std::string r_squared =
      summary_line("R^2", plain(fit.r_squared, 4) + "  (1: equal, 0: no better than the mean of b)");
  if (!loss->fits_distribution())
    return title + summary_line("residual", plain(fit.relative_residual, 4) + "  (|f - b| / |b|)") + r_squared +
           summary_line("reading", residual_reading(fit.relative_residual));
  return title +
         summary_line("total variation", plain(fit.total_variation, 4) + "  (1/2 sum |f - b|; 0: equal, 1: disjoint)") +
         summary_line("KL(b | f)", plain(fit.kullback_leibler, 4) + " nats  (sum b ln(b / f) - b + f; 0: equal)") +
         r_squared +
         summary_line("effective support", "f " + plain(fit.support_fitted, 6) + ", b " + plain(fit.support_target, 6) +
                                               " of " + std::to_string(report.A.rows_global()) +
                                               " rows  (1 / sum of squares)") +
         summary_line("reading", fit_reading(report));
}

/// Why an iteration stopped, in words and numbers.
std::string termination_text(const Arguments& arguments, const NewtonSummary& summary, const std::string& reference) {
  const double tolerance = arguments.number("rtol") * summary.gradient_reference;
  const std::string g = "|g|_s = " + scientific(summary.scaled_gradient, 3);
  const std::string bound = arguments.text("rtol") + " " + reference + " = " + scientific(tolerance, 3);
  const std::string missed = g + " > " + bound;
  const std::string floor = scientific(summary.gradient_floor, 3);
  switch (summary.termination) {
    case Termination::converged: return "converged: " + g + " <= " + bound;
    case Termination::converged_rounding:
      return "converged to rounding: " + g + " <= " + floor + ", the rounding error of g; the tolerance " + bound +
             " is out of reach";
    case Termination::stagnated:
      return "NOT converged, stagnated: no step lowers L any more, but " + missed +
             (summary.scaled_gradient > summary.gradient_floor
                  ? " and > " + floor + ", the rounding error of g"
                  : ", and " + floor + ", the rounding error of g, is too large to speak of a minimum");
    case Termination::iteration_limit:
      return "NOT converged, iteration limit: " + counted(summary.iterations, "iteration") + ", " + missed;
    case Termination::time_limit:
      return "NOT converged, time limit: " + fixed(summary.seconds, 1) + " s >= " + arguments.text("time-limit") +
             " s, " + missed;
    case Termination::stopped: return "NOT finished, stopped by a signal: " + g + ", the tolerance is " + bound;
    case Termination::breakdown:
      return "NOT converged, breakdown: a value, gradient or Hessian is not finite; x is the last good iterate";
    case Termination::saddle: return "NOT a minimum, saddle: " + g + ", but the Hessian has negative curvature at x";
    case Termination::no_minimiser:
      return "NO MINIMISER exists: " + g + ", but L goes on falling along a direction, and x runs away along it";
    case Termination::diverged: return "NOT converged, diverged: " + g + ", but L is larger than at x = 0";
    case Termination::uncertified:
      return "NOT certified: " + g + ", but |x - x*| <= " + arguments.text("epsilon") + " could not be shown";
  }
  return missed;
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

std::string kind_text(StationaryKind kind) {
  switch (kind) {
    case StationaryKind::local_minimum: return "local minimum: the smallest eigenvalue of the Hessian is positive";
    case StationaryKind::saddle: return "NOT a minimum: the Hessian has a negative eigenvalue";
    case StationaryKind::degenerate: return "degenerate: the smallest eigenvalue of the Hessian is 0 to rounding";
    case StationaryKind::unknown: return "unknown: the eigenvalues were not found";
  }
  return "";
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

ExitCode exit_code(Termination termination) {
  switch (termination) {
    case Termination::converged:
    case Termination::converged_rounding: return ExitCode::converged;
    case Termination::breakdown: return ExitCode::breakdown;
    default: return ExitCode::limit;
  }
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
       verdict(report),
       std::to_string(report.A.rows_global()) + " x " + std::to_string(report.A.columns()) + " as " +
           storage_name(report.A.storage()) + ", " + arguments.text("loss") + " loss, w = " + weight_text(arguments),
       std::string(method_name(result.method)) + " from " + start_text(report),
       summary_line(
           "reads of A",
           fixed(result.summary.reads_of_a, 1) +
               (result.sample_reads > 0 ? ", and work on samples worth " + fixed(result.sample_reads, 1) : "")),
       fit_text(report) + report.names + certificate_text(result.certificate) + sketched_text(result.sketched_steps),
       report.timing},
      files);
  if (report.path.empty()) return page;
  return "Path of weights; x, fit and certificate below are those of the last\n" + report.path + "\n" + page;
}

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

nlohmann::ordered_json summary_json(const RegressionResult& result) {
  nlohmann::ordered_json json = result_json(result);
  json.update({{"method", method_name(result.method)}, {"fit", result.fit}});
  return json;
}

nlohmann::ordered_json remarks_json(const SolveResult& result) {
  return {{"minima", result.minima}, {"notes", result.notes}, {"warnings", result.warnings}};
}

nlohmann::ordered_json regression_json(const RegressionResult& result) {
  nlohmann::ordered_json json{{"summary", summary_json(result)},
                              {"certificate", certificate_json(result.certificate)},
                              {"sketched_steps", result.sketched_steps},
                              {"sample_reads", result.sample_reads}};
  json.update(remarks_json(result));
  return json;
}

}  // namespace attnreg::app
