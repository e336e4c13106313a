#include "app/report/verdict.hpp"

#include <algorithm>
#include <cmath>

#include "app/report/text.hpp"
#include "errors/printable.hpp"

namespace attnreg::app {

namespace {

/// The run directory, or what stands for it in advice.
std::string run_name(const Arguments& arguments) {
  const std::string directory = arguments.text("output");
  return directory.empty() ? "DIR" : printable(directory);
}

/// "; go on from it with --start run/x.npy": of a result that is there.
std::string go_on_text(const Arguments& arguments) {
  std::string name = run_name(arguments);
  if (arguments.syntax().name == "solve")
    name += "/x.npy";
  else if (name.find_first_of("./") == std::string::npos)
    name = "./" + name;  // a directory, no name of a start
  return arguments.text("output").empty()
             ? "; with -o DIR it is kept, and a later run goes on from it with --start " + name
             : ", or go on from it with --start " + name;
}

/// "`attnreg resume run` goes on": of a run that was cut off.
std::string resume_advice(const Arguments& arguments) {
  return arguments.text("output").empty() ? "; with -o DIR `attnreg resume DIR` goes on with such a run"
                                          : ", or go on with `attnreg resume " + run_name(arguments) + "`";
}

/// What to do after an end that is no solution. Each reason has its own.
std::string next_step(const Arguments& arguments, Termination termination) {
  const bool is_regression = arguments.syntax().name == "solve";
  const std::string x = is_regression ? "x" : "X";
  switch (termination) {
    case Termination::iteration_limit:
      return x + " is not a solution yet; raise --max-iterations, now " + arguments.text("max-iterations") +
             go_on_text(arguments);
    case Termination::time_limit:
      return x + " is not a solution yet; raise --time-limit, now " + arguments.text("time-limit") + " s" +
             resume_advice(arguments);
    case Termination::stopped: return "the best " + x + " so far" + resume_advice(arguments);
    case Termination::stagnated:
      return x + " may serve for a looser --rtol; " +
             (is_regression ? "try --start cross-entropy or --storage double"
                            : "try another --start, a lower --rank, or --model dense");
    case Termination::saddle:
      return x + " is a saddle point of L, not a minimum; start elsewhere: another --start, or --starts 5";
    case Termination::no_minimiser: return "raise --weight: then there is a minimiser";
    case Termination::diverged:
      return "do not use " + x + "; try --start zero, or " +
             (is_regression ? "raise --weight" : "--weights, which keep X small");
    case Termination::breakdown:
      return "do not use " + x +
             (is_regression ? "; look for huge values in A and w, or raise --weight"
                            : "; look for huge values in queries, keys and weights");
    case Termination::uncertified:
      return "x is as good as |g| says; the certificate says what is missing: try --certificate full without "
             "--epsilon, "
             "a larger --epsilon, or raise --weight";
    case Termination::converged:
    case Termination::converged_rounding: return "";
  }
  return "";
}

bool has_converged(Termination termination) { return exit_code(termination) == ExitCode::converged; }

/// "x is a local minimum of L; ...", by what the certificate found.
std::string minimum_text(const std::string& x, StationaryKind kind) {
  if (kind == StationaryKind::local_minimum)
    return x + " is a local minimum of L; there may be others: --starts K looks for them";
  if (kind == StationaryKind::degenerate)
    return x + " is a stationary point of L; along some direction its curvature is 0 to rounding";
  return x + " is a stationary point of L, --certificate full says which kind; there may be others: --starts K";
}

constexpr double kSumSlack = 0.01;  // of sums for which shares of a mass make sense

std::string degree_of_fit(double mismatch, const std::string& f, const std::string& b) {
  if (mismatch <= 0.01) return f + " reproduces " + b + " almost exactly: ";
  if (mismatch <= 0.1) return f + " reproduces " + b + " well: ";
  return f + (mismatch <= 0.5 ? " reproduces " + b + " roughly: " : " reproduces little of " + b + ": ");
}

}  // namespace

ExitCode exit_code(Termination termination) {
  switch (termination) {
    case Termination::converged:
    case Termination::converged_rounding: return ExitCode::converged;
    case Termination::breakdown: return ExitCode::breakdown;
    default: return ExitCode::limit;
  }
}

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

std::string verdict_text(const Arguments& arguments, const RegressionResult& result) {
  const Certificate& certificate = result.certificate;
  if (!has_converged(result.summary.termination)) return next_step(arguments, result.summary.termination);
  if (!certificate.no_minimiser.empty()) return certificate.no_minimiser;
  if (arguments.text("loss") != "cross-entropy") return minimum_text("x", certificate.kind);
  return certificate.minimiser_exists || certificate.distance_bound
             ? "x is a minimiser: this loss is convex"
             : "x is a minimiser if one exists: this loss is convex; --certificate full looks whether it does";
}

std::string verdict_text(const Arguments& arguments, const AttentionResult& result) {
  if (!has_converged(result.summary.termination)) return next_step(arguments, result.summary.termination);
  const bool with_values = result.unknowns.Y.size() > 0;
  if (arguments.text("form") == "cross-entropy" && !with_values && result.P.size() == 0)
    return "X is a minimiser: this loss is convex in X";
  return minimum_text(with_values ? "(X, Y)" : result.P.size() > 0 ? "(P, Q)" : "X", result.certificate.kind);
}

std::vector<std::string> failures_text(const Arguments& arguments, const std::vector<RegressionResult>& results,
                                       const std::string& noun) {
  std::vector<std::string> lines;
  std::vector<Termination> seen;
  for (const auto& result : results) {
    const Termination termination = result.summary.termination;
    if (has_converged(termination) || std::ranges::find(seen, termination) != seen.end()) continue;
    seen.push_back(termination);
    const auto same =
        std::ranges::count_if(results, [&](const auto& other) { return other.summary.termination == termination; });
    lines.push_back(counted(same, noun) + " of " + std::to_string(results.size()) + ", " +
                    std::string(termination_name(termination)) + ": " + next_step(arguments, termination));
  }
  return lines;
}

std::string cut_off_text(const Arguments& arguments, bool is_stopped) {
  const std::string resume = resume_advice(arguments);
  return is_stopped ? resume : "; raise --time-limit, now " + arguments.text("time-limit") + " s" + resume;
}

std::string verdict_text(bool converged, std::optional<HeadVerdict> predicts) {
  if (!converged)
    return "X is where the steps ended, and no minimum yet; give more sequences or a lower --rank, or iterate on X: "
           "--start cross-entropy";
  if (!predicts) return "X reproduces its sequences as the reading says; --holdout shows whether it predicts others";
  switch (*predicts) {
    case HeadVerdict::predicts: return "predicts: held-out attention is reproduced as well as that of the fit";
    case HeadVerdict::roughly: return "predicts roughly: held-out attention is much better than uniform attention";
    case HeadVerdict::fits_only: return "fits, but does not predict: give more sequences, or a lower rank";
    default: return "neither fits nor predicts: this is no attention of the form softmax(A1 X A2^T)";
  }
}

std::string verdict_text(const Arguments& arguments, const LayerResult& layer) {
  if (!layer.converged)
    return "(X, Y) is where the steps ended, and not a minimum yet; try more --starts or a lower --rank" +
           (arguments.text("output").empty() ? std::string() : go_on_text(arguments));
  if (layer.is_exact) return "(X, Y) reproduces B up to rounding";
  return "(X, Y) is the best end of " + counted(std::ssize(layer.ends), "start") +
         "; there may be better ones: more --starts";
}

std::string fit_reading(const FitQuality& fit, std::int64_t rows) {
  const double mismatch = fit.total_variation;
  if (!std::isfinite(mismatch)) return "f is not finite";
  if (std::abs(fit.target_sum - 1) > kSumSlack)
    return "b sums to " + plain(fit.target_sum, 6) + " and f to 1: f cannot reproduce b" +
           (fit.target_sum > 0 ? "; --normalise-b divides b by its sum" : "");
  const bool flat =
      fit.support_fitted > 0.9 * static_cast<double>(rows) && fit.support_target < 0.7 * fit.support_fitted;
  if (mismatch > 0.1 && flat)
    return "f is nearly uniform and hardly follows b: the weight w is too large for these data; try a smaller one";
  const std::string share = fixed(100 * mismatch, mismatch < 0.1 ? 2 : 0) + " % of the mass of f is not where b has it";
  if (mismatch <= 0.5) return degree_of_fit(mismatch, "f", "b") + share;
  return degree_of_fit(mismatch, "f", "b") + share +
         (fit.r_squared > 0.9 ? "; the largest values are right (R^2), the many small ones are not"
                              : "; try a smaller weight");
}

std::string residual_reading(double residual, const std::string& fitted, const std::string& target) {
  if (!std::isfinite(residual)) return "there is nothing to reproduce, or " + fitted + " is not finite";
  return degree_of_fit(residual, fitted, target) + "|" + fitted + " - " + target + "| is " + plain(100 * residual, 3) +
         " % of |" + target + "|";
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

}  // namespace attnreg::app
