#include "app/report/summary.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "app/options/solver_options.hpp"
#include "app/report/certificate_report.hpp"
#include "app/report/text.hpp"
#include "errors/printable.hpp"
#include "losses/losses.hpp"

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
      if (report.result.certificate.kind == StationaryKind::saddle)
        return "x is a saddle point of L, not a minimum; start elsewhere";
      if (report.result.certificate.kind == StationaryKind::degenerate)
        return "x is a stationary point of L; along some direction its curvature is 0 to rounding";
      return "x is a stationary point of L, --certificate full says which kind; there may be others: --starts K";
    case Termination::breakdown: return "do not use x; look for huge values in A and w, or raise --weight";
    case Termination::uncertified: return "x is as good as |g| says; the certificate below says what is missing";
    case Termination::stagnated:
      return "x may serve for a looser --rtol; try --start cross-entropy or --storage double";
    default: return "x is not a solution yet; raise the limit, or go on from it with --start DIR/x.npy";
  }
}

std::string degree_of_fit(double mismatch) {
  if (mismatch <= 0.01) return "f reproduces b almost exactly: ";
  if (mismatch <= 0.1) return "f reproduces b well: ";
  return mismatch <= 0.5 ? "f reproduces b roughly: " : "f reproduces little of b: ";
}

std::string fit_reading(const SolveReport& report) {
  const FitQuality& fit = report.result.fit;
  const double mismatch = fit.total_variation;
  if (!std::isfinite(mismatch)) return "f is not finite";
  const bool flat =
      fit.support_fitted > 0.9 * static_cast<double>(report.rows) && fit.support_target < 0.7 * fit.support_fitted;
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
         summary_line("KL(b | f)", plain(fit.kullback_leibler, 4) + " nats  (0: equal)") + r_squared +
         summary_line("effective support", "f " + plain(fit.support_fitted, 6) + ", b " + plain(fit.support_target, 6) +
                                               " of " + std::to_string(report.rows) + " rows  (1 / sum of squares)") +
         summary_line("reading", fit_reading(report));
}

/// Why an iteration stopped, in words and numbers.
std::string termination_text(const Arguments& arguments, const NewtonSummary& summary, const std::string& reference) {
  const double tolerance = arguments.number("rtol") * summary.gradient_reference;
  const std::string g = "|g| = " + scientific(summary.gradient_norm, 3);
  const std::string bound = arguments.text("rtol") + " " + reference + " = " + scientific(tolerance, 3);
  const std::string missed = g + " > " + bound;
  const std::string floor = scientific(summary.gradient_floor, 3);
  switch (summary.termination) {
    case Termination::converged: return "converged: " + g + " <= " + bound;
    case Termination::converged_rounding:
      return "converged to rounding: " + g + " <= " + floor + ", the rounding error of g; the tolerance " + bound +
             " is out of reach";
    case Termination::stagnated:
      return "NOT converged, stagnated: no step lowers L any more, but " + missed + " and > " + floor +
             ", the rounding error of g";
    case Termination::iteration_limit:
      return "NOT converged, iteration limit: " + counted(summary.iterations, "iteration") + ", " + missed;
    case Termination::time_limit:
      return "NOT converged, time limit: " + fixed(summary.seconds, 1) + " s >= " + arguments.text("time-limit") +
             " s, " + missed;
    case Termination::breakdown:
      return "NOT converged, breakdown: a value, gradient or Hessian is not finite; x is the last good iterate";
    case Termination::uncertified:
      return "NOT certified: " + g + ", but |x - x*| <= " + arguments.text("epsilon") + " could not be shown";
  }
  return missed;
}

}  // namespace

std::string seconds_text(double seconds, int ranks, int threads) {
  return fixed(seconds, 3) + " on " + counted(ranks, "rank") + " with " + counted(threads, "thread") + " each";
}

std::string list_text(std::string_view title, const std::vector<std::string>& lines) {
  if (lines.empty()) return "";
  std::string text = "\n" + std::string(title) + "\n";
  for (const auto& text_line : lines) text += "  " + printable(text_line) + "\n";
  return text;
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
          summary_line("|g| / " + page.reference, scientific(summary.relative_gradient, 4));
  if (summary.gradient_floor > 0) text += summary_line("rounding floor", scientific(summary.gradient_floor, 4));
  const int start = page.result.start_iterations;
  return text +
         summary_line("iterations", std::to_string(summary.iterations) +
                                        (start > 0 ? " + " + std::to_string(start) + " for the start" : "")) +
         page.cost + summary_line("collectives", std::to_string(summary.collectives)) +
         summary_line("seconds", seconds_text(summary.seconds, page.ranks, page.threads)) + page.sections +
         minima_text(page.result.minima) + list_text("Notes", page.result.notes) +
         list_text("Warnings", page.result.warnings) + list_text("Files", files);
}

std::string summary_text(const SolveReport& report, const std::vector<std::string>& files) {
  const RegressionResult& result = report.result;
  const Arguments& arguments = report.arguments;
  const std::string page =
      page_text({arguments, result, report.ranks, report.threads, reference_name(arguments), verdict(report),
                 std::to_string(report.rows) + " x " + std::to_string(report.columns) + " as " + report.storage + ", " +
                     arguments.text("loss") + " loss, w = " + weight_text(arguments),
                 std::string(method_name(result.method)) + " from " + start_text(report),
                 summary_line("reads of A", fixed(result.summary.reads_of_a, 1)),
                 fit_text(report) + certificate_text(result.certificate) + sketched_text(result.sketched_steps)},
                files);
  if (report.path.empty()) return page;
  return "Path of weights; x, fit and certificate below are those of the last\n" + report.path + "\n" + page;
}

nlohmann::ordered_json result_json(const SolveResult& result) {
  const NewtonSummary& summary = result.summary;
  return {{"termination", termination_name(summary.termination)},
          {"value", summary.value},
          {"gradient_norm", summary.gradient_norm},
          {"gradient_reference", summary.gradient_reference},
          {"relative_gradient", summary.relative_gradient},
          {"gradient_floor", summary.gradient_floor},
          {"iterations", summary.iterations},
          {"reads_of_a", summary.reads_of_a},
          {"collectives", summary.collectives},
          {"seconds", summary.seconds},
          {"exit_code", static_cast<int>(exit_code(summary.termination))},
          {"start", start_name(result.start)},
          {"start_iterations", result.start_iterations}};
}

nlohmann::ordered_json summary_json(const RegressionResult& result) {
  nlohmann::ordered_json json = result_json(result);
  json.update({{"method", method_name(result.method)},
               {"fit",
                {{"relative_residual", result.fit.relative_residual},
                 {"total_variation", result.fit.total_variation},
                 {"kullback_leibler", result.fit.kullback_leibler},
                 {"r_squared", result.fit.r_squared},
                 {"support_fitted", result.fit.support_fitted},
                 {"support_target", result.fit.support_target}}}});
  return json;
}

nlohmann::ordered_json remarks_json(const SolveResult& result) {
  return {{"minima", minima_json(result.minima)}, {"notes", result.notes}, {"warnings", result.warnings}};
}

}  // namespace attnreg::app
