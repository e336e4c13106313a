#include "regression/start_point.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "errors/printable.hpp"
#include "losses/losses.hpp"
#include "newton/minimise.hpp"
#include "newton/progress.hpp"
#include "objective/random_point.hpp"

namespace attnreg {

namespace {

constexpr double kStartWeight = 1e-4;     // of the cross-entropy start, every row
constexpr double kStartTolerance = 1e-2;  // of its own |g(0)|
constexpr double kSmallMove = 0.1;        // logits that move less leave softmax(A x) nearly uniform: x = 0 is near
constexpr double kMostOfRandom = 1e3;     // L(x0) / L(0) of one of several random starts

/// A rough minimiser of the cross-entropy of b's positive part, from x = 0.
StartPoint cross_entropy_start(const RegressionObjective& objective, double positive_sum, double elapsed_seconds,
                               const RegressionOptions& options, Method method, std::vector<std::string>& notes) {
  const RowMatrix& A = objective.A();
  const VectorXd b_plus = objective.b().cwiseMax(0) / positive_sum;
  RegressionObjective cross_entropy(objective.shared_columns(), b_plus, kStartWeight, make_loss("cross-entropy"),
                                    options.sampling, options.linear_solver);
  cross_entropy.adopt_scores(objective, true);
  NewtonOptions newton_options;
  newton_options.relative_tolerance = kStartTolerance;
  newton_options.time_limit_seconds =
      std::max(options.newton.time_limit_seconds - elapsed_seconds, std::numeric_limits<double>::min());
  newton_options.on_iteration = options.on_start_iteration;
  newton_options.journal = options.newton.journal;
  Point point = cross_entropy.evaluate(VectorXd::Zero(A.columns()));
  const auto summary = minimise(method, cross_entropy, point, newton_options);
  const StartPoint start{point.x, Start::cross_entropy, "cross-entropy", summary.iterations};
  note_cut_off("the cross-entropy start", summary, notes);
  return start;
}

/// Enters the end of a solve into the list.
void remember(const NewtonSummary& end, const StartPoint& start, double same, std::vector<Minimum>& minima) {
  const auto known = std::find_if(minima.begin(), minima.end(), [&](const Minimum& other) {
    return other.termination == end.termination && std::abs(other.value - end.value) <= same;
  });
  Minimum& minimum = known != minima.end() ? *known : minima.emplace_back(Minimum{end.value, end.termination, 0, {}});
  minimum.from.push_back(start.name);
  minimum.from.insert(minimum.from.end(), start.others.begin(), start.others.end());
  minimum.starts = static_cast<int>(minimum.from.size());
  std::sort(minima.begin(), minima.end(), [](const auto& a, const auto& b) { return a.value < b.value; });
}

/// The largest |a_i^T s| for the first model step s from the point at x = 0. One read and a model.
double first_move(RegressionObjective& objective, const Point& zero) {
  if (objective.preconditioner().empty() && !objective.refresh_preconditioner(zero, false)) return 0;
  return objective.largest_move(objective.direction(-objective.preconditioner().solve(zero.gradient)));
}

/// A Gram matrix of all rows, in reads of A.
double gram_reads_of(Eigen::Index columns) { return 1 + gram_price * static_cast<double>(columns); }

}  // namespace

Method cheaper_method(std::int64_t rows, Eigen::Index columns, const SamplingOptions& sampling) {
  const double n = static_cast<double>(rows), d = static_cast<double>(columns);
  const double gram = gram_reads_of(columns);
  const double c = sampling.oversampling > 0 ? sampling.oversampling : automatic_oversampling(rows, columns);
  const double kept = std::min(1.0, c * d / n);  // share of the rows in a sampled model
  const double newton_step = 3 + gram, newton_cg_step = 2 + 2.5 + kept * gram;
  return newton_step <= newton_cg_step ? Method::newton : Method::newton_cg;
}

bool gram_pays(Eigen::Index columns, int targets) {
  constexpr double kSaved = 3;  // reads of a target, and its work on rows that stand for the regulariser
  return targets > 1 && gram_reads_of(columns) <= kSaved * targets;
}

Method method_near_zero(Eigen::Index columns) {
  constexpr double kNewton = 8, kGrams = 1.5, kNewtonCg = 18;  // reads; Gram matrices with their factors
  return kNewton + kGrams * gram_reads_of(columns) <= kNewtonCg ? Method::newton : Method::newton_cg;
}

NewtonSummary minimise(Method method, Objective& objective, Point& point, const NewtonOptions& options) {
  return method == Method::newton ? newton(objective, point, options) : newton_cg(objective, point, options);
}

double deviation_of_start(const Loss& loss) { return loss.vanishes_at_zero() ? 1 : loss.is_even() ? 0.1 : 0; }

StartPoint solve_from_starts(Objective& objective, Point& point, StartPoint first, bool others, double same,
                             const std::function<NewtonSummary(StartPoint&)>& solve,
                             const std::function<std::optional<StartPoint>(int k)>& other, SolveResult& result) {
  NewtonSummary& summary = result.summary = solve(first);
  result.start_iterations = first.iterations;
  result.start = first.kind;
  if (!others) return first;
  remember(summary, first, same, result.minima);
  StartPoint best = std::move(first);
  VectorXd best_x = point.x;
  int k = 1;
  for (auto start = other(k); start; start = other(++k)) {
    const NewtonSummary found = solve(*start);
    remember(found, *start, same, result.minima);
    if (!(found.value < summary.value)) continue;
    best = *start;
    best_x = point.x;
    summary = found;
  }
  result.start = best.kind;
  point = best_x == point.x ? objective.refreshed(std::move(point)) : objective.evaluate(best_x);
  measure(objective, point, summary);
  return best;
}

void start_at(Objective& objective, Point& point, const StartPoint& start, const Loss& loss, double zero,
              std::vector<std::string>& notes) {
  constexpr int kMaxHalvings = 12;
  const auto move_to = [&](const VectorXd& x) {
    if (point.x.size() == 0 || point.x != x) point = objective.evaluate(x);
  };
  move_to(start.x);
  const auto is_low = [&] { return point.value <= start.most * zero; };
  if (start.kind == Start::given || loss.is_shift_invariant() || loss.vanishes_at_zero() || is_low()) return;
  VectorXd x = start.x;
  for (int k = 1; k <= kMaxHalvings && !is_low(); ++k)
    if (k == kMaxHalvings)
      move_to(VectorXd::Zero(x.size()));
    else
      move_to(x *= 0.5);
  notes.push_back("L at the start " + start.name + " is above that of x = 0: " +
                  (point.x.isZero(0) ? "x = 0 is taken" : "a part of it, on the way to 0, is taken"));
}

std::string over_text(bool stopped) { return stopped ? "stopped: " : "time limit: "; }

void note_cut_off(const std::string& what, const NewtonSummary& summary, std::vector<std::string>& notes) {
  const bool stopped = summary.termination == Termination::stopped;
  if (stopped || summary.termination == Termination::time_limit)
    notes.push_back(over_text(stopped) + what + " was cut off after " + std::to_string(summary.iterations) +
                    " iterations");
}

void note_starts_left_out(bool stopped, int k, int random_starts, std::vector<std::string>& notes) {
  notes.push_back(over_text(stopped) + "the random starts " + std::to_string(k) + " to " +
                  std::to_string(random_starts) + " were left out");
}

void note_stop(bool stopped, SolveResult& result) {
  if (!stopped || !is_converged(result.summary)) return;
  result.notes.push_back("stopped: the solve had converged, what was to follow was left out");
  result.summary.termination = Termination::stopped;
}

void describe_end(const Loss& loss, const std::string& x, bool at_zero, double value_at_zero, SolveResult& result) {
  constexpr double kNotLarger = 1 + 1e-9;  // rounding of either value
  if (is_converged(result.summary) && !loss.vanishes_at_zero() &&
      !(result.summary.value <= kNotLarger * std::abs(value_at_zero)))
    result.summary.termination = Termination::diverged;
  if (loss.vanishes_at_zero() && at_zero)
    result.warnings.push_back("the solve ended at " + x + " = 0, the minimiser that means nothing; try --starts K");
  if (loss.is_even()) result.notes.push_back("-" + x + " is a minimiser as good as " + x + ": this loss is even");
}

StartPoint choose_start(RegressionObjective& objective, const Point& point, const RegressionOptions& options,
                        Method method, std::vector<std::string>& notes) {
  const RowMatrix& A = objective.A();
  const StartPoint zero{VectorXd::Zero(A.columns()), Start::zero, "zero", 0};
  const Loss& loss = objective.loss();
  if (options.start == Start::given) return {options.x0, Start::given, "file", 0};
  if (options.start == Start::zero) return zero;
  const double deviation = deviation_of_start(loss);
  if (options.start == Start::automatic && deviation > 0) {
    notes.push_back("start random: x = 0 is stationary for the loss " + std::string(loss.name()) +
                    "; logits of standard deviation " + text_of(deviation));
    const VectorXd x = with_logits_of(A, random_direction(A.columns(), options.sampling.seed, 0), deviation,
                                      loss.is_shift_invariant());
    return {x, Start::random, "random 0", 0};
  }
  const double positive_sum = A.communicator().sum(objective.b().cwiseMax(0).sum());
  if (!(positive_sum > 0)) {
    notes.push_back("no value of b is positive: there is no cross-entropy start, x = 0 is used");
    return zero;
  }
  const auto from_cross_entropy = [&] {
    return cross_entropy_start(objective, positive_sum, point.seconds, options, method, notes);
  };
  if (options.start == Start::automatic) {
    if (options.loss == "rescaled-exp") return from_cross_entropy();
    if (options.loss != "softmax") return zero;
    const double move = first_move(objective, point);
    const bool near = move <= kSmallMove;
    notes.push_back("start " + std::string(near ? "zero" : "cross-entropy") +
                    ": the first model step from x = 0 moves the logits by up to " + text_of(move) +
                    (near ? " <= " : " > ") + text_of(kSmallMove));
    if (near) return zero;
  }
  return from_cross_entropy();
}

StartPoint start_from(const SampledEnd& end) {
  const std::string& name = end.starts.front();
  const Start kind = name == "zero" ? Start::zero : name.starts_with("random") ? Start::random : Start::cross_entropy;
  return {end.x, kind, name, 0, std::numeric_limits<double>::infinity(), {end.starts.begin() + 1, end.starts.end()}};
}

std::optional<StartPoint> random_start(RegressionObjective& objective, const Point& point, std::uint64_t seed, int k) {
  if (objective.preconditioner().empty()) objective.refresh_preconditioner(point, false);
  const auto x = random_point(objective, seed, k);
  if (!x) return std::nullopt;
  return StartPoint{*x, Start::random, "random " + std::to_string(k), 0, kMostOfRandom};
}

std::function<void(const IterationRecord&)> with_start(const std::function<void(const IterationRecord&)>& report,
                                                       const std::string& name) {
  if (!report) return {};
  return [report, &name](IterationRecord record) {
    record.start = name;
    report(record);
  };
}

}  // namespace attnreg
