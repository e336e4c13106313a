#include "surrogate/surrogate.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "newton/line_search.hpp"
#include "newton/minimise.hpp"
#include "newton/progress.hpp"
#include "ranks/span_of.hpp"
#include "sampling/sampling.hpp"
#include "surrogate/row_sample.hpp"
#include "surrogate/row_scores.hpp"
#include "surrogate/secants.hpp"

namespace attnreg {

namespace {

constexpr double kNoise = 1e-12;      // of L: changes below it are judged by the gradient
constexpr double kSufficient = 1e-4;  // of the predicted change
constexpr double kCoarse = 1e-2;      // of |g|: the coarse solves
constexpr int kCoarseSteps = 40, kSteps = 12;
constexpr double kSmallMove = 0.1;           // logits that move less leave softmax(A x) nearly uniform: x = 0 is near
constexpr double kStartWeight = 1e-4;        // of the cross-entropy start, every row
constexpr int kProbes = 16;                  // columns of a projected factor
constexpr double kProbeReads = 1;            // their price, that of a pass of their own
constexpr std::size_t kMemory = 10;          // points met
constexpr double kNearby = 1;                // of points met: logits move by at most that
constexpr double kClose = 0.05;              // their secants are believed whatever they say
constexpr double kBelieved = 0.5;            // |B|, relative to M, of others
constexpr double kDear = 1.5;                // variance of a sample's error in units of a fresh one's
constexpr double kFresh = 0.7;               // sum of the scores over d: below, they are too small
constexpr double kServing = 0.5;             // below, they hide negative curvature
constexpr double kGood = 0.5;                // of the predicted change of L
constexpr double kFast = 0.25, kSlow = 0.5;  // |g| by a step
constexpr int kMostFailures = 5;
constexpr int kMostSlow = 4;  // steps in a row with the largest sample

/// A point met, and what the present sample says there.
struct Met {
  VectorXd x, gradient;
  VectorXd sampled_gradient{}, logits{};  // empty: not known yet; logits: of this rank's sampled rows
  bool is_known = false;
};

/// ln sum exp(A x)
double log_normaliser(const Point& point) {
  const RegressionState& state = RegressionObjective::state_of(point);
  return state.loss.reference + state.shift;
}

double dot_inverse(const Preconditioner& M, const VectorXd& g) { return g.dot(M.solve(g)); }

/// A minimiser of a sampled problem, from there on.
NewtonSummary minimise_sampled(RegressionObjective& sampled, Point& there, double reference, double tolerance,
                               int most_steps, bool has_model) {
  NewtonOptions options;
  options.relative_tolerance = tolerance;
  options.gradient_reference = reference;
  options.max_iterations = most_steps;
  return newton_cg(sampled, there, options, has_model);
}

class SurrogateSolve {
 public:
  SurrogateSolve(RegressionObjective& all, Point& point, const NewtonOptions& options, const SurrogateOptions& own)
      : all_(all), point_(point), options_(options), own_(own), draw_{own.seed, kFirstDraw} {
    const auto n = static_cast<double>(all.A().rows_global()), d = static_cast<double>(all.dimension());
    largest_c_ = n / d;
    c_ = std::clamp(0.03 * largest_c_, 30.0, 300.0);
  }

  SurrogateSummary run() {
    reference_ = options_.gradient_reference > 0 ? options_.gradient_reference : all_.norm(point_.gradient);
    record(0);
    if (options_.gradient_reference > 0 && norm() > tolerance() && std::isfinite(point_.value)) {
      solve_coarsely();
      while (goes_on()) {
        renew_sample();
        correct();
        step(next());
      }
    }
    return hand_over();
  }

 private:
  static constexpr std::uint32_t kFirstDraw = 1u << 30;  // apart from the draws of preconditioners

  double norm() const { return all_.norm(point_.gradient); }
  double tolerance() const { return options_.relative_tolerance * reference_; }
  bool goes_on() const {
    return norm() > tolerance() && !gives_up_ && iterations_ < options_.max_iterations &&
           point_.seconds < options_.time_limit_seconds;
  }

  RegressionObjective& sampled() { return problem_->objective; }
  RegressionObjective::Expected expected_at(const Point& there) const;
  void pay() {
    if (problem_) sample_reads_ += sample_->reads(sampled().models_made() + std::exchange(other_models_, 0));
  }
  void project(const Preconditioner& M);

  struct Next {
    RegressionObjective::Expected expected;
    double predicted = 0;
  };
  void solve_coarsely();
  void renew_sample();
  void use_sample(VectorXd probabilities);
  void correct();
  Next next();
  void step(const Next& next);
  void judge(Point found, const Next& next);
  std::vector<Point> read(std::span<const RegressionObjective::Expected> expected);
  void remember(const Point& point);
  void look_back();
  void record(double t);
  SurrogateSummary hand_over();

  RegressionObjective& all_;
  Point& point_;
  const NewtonOptions& options_;
  const SurrogateOptions& own_;
  RowSample::Draw draw_;
  double reference_ = 0, largest_c_, c_;

  std::unique_ptr<RowSample> sample_;
  std::unique_ptr<SampledProblem> problem_;
  VectorXd probabilities_;       // of the sample; this rank's rows
  std::optional<Point> there_;   // of the sampled problem, at point_.x or where `next` went
  double normaliser_error_ = 0;  // of the logarithm at x
  std::deque<Met> met_;          // the last first

  VectorXd t_;                               // norms of rows for the scores
  bool has_norms_ = false;                   // there are some: replicated, unlike their number
  std::optional<PackedColumns> projection_;  // that the next read will make them with
  double score_total_ = 1;

  int iterations_ = 0, failures_ = 0, slow_ = 0;
  double rate_ = 1;       // |g| / |g before|
  double largest_u_ = 0;  // of the last step, on the sampled rows
  bool near_ = false;     // the last step was good
  bool accepted_ = true;
  bool is_noise_ = false;  // the last change of L was
  bool gives_up_ = false;
  double sample_reads_ = 0;
  int other_models_ = 0;  // of the cross-entropy on this sample
  bool by_cross_entropy_ = false;
};

/// What the sample says of the point, less the error of its normaliser at x: where L is small, much of it would cancel.
RegressionObjective::Expected SurrogateSolve::expected_at(const Point& there) const {
  const RegressionState& state = RegressionObjective::state_of(there);
  RegressionObjective::Expected expected{there.x, state.centre.dot(there.x), state.loss};
  expected.loss.reference += state.shift - normaliser_error_;
  return expected;
}

void SurrogateSolve::record(double t) {
  if (options_.reference == GradientReference::largest) reference_ = std::max(reference_, norm());
  if (!options_.on_iteration) return;
  options_.on_iteration({.iteration = iterations_,
                         .value = point_.value,
                         .gradient_norm = all_.callers_norm(point_.gradient),
                         .relative_gradient = reference_ > 0 ? norm() / reference_ : 0,
                         .step = t,
                         .reads_of_a = all_.reads_of_a(),
                         .collectives = all_.collectives(),
                         .seconds = point_.seconds});
}

/// N = L^-T G / |columns|^(1/2): |a_i^T N|^2 is about a_i^T M^-1 a_i.
void SurrogateSolve::project(const Preconditioner& M) {
  MatrixXd N =
      gaussian_probes(all_.dimension(), kProbes, draw_.seed, draw_.iteration + static_cast<std::uint32_t>(iterations_));
  for (Index k = 0; k < N.cols(); ++k) N.col(k) = M.whiten(N.col(k)) / std::sqrt(static_cast<double>(kProbes));
  projection_.emplace(N);
}

/// One read of A for all of them.
std::vector<Point> SurrogateSolve::read(std::span<const RegressionObjective::Expected> expected) {
  auto points = projection_ ? all_.evaluate(expected, {&*projection_, &t_}) : all_.evaluate(expected);
  if (projection_) all_.A().passes().count_reads(kProbeReads), has_norms_ = true;
  projection_.reset();
  return points;
}

void SurrogateSolve::use_sample(VectorXd probabilities) {
  pay();
  probabilities_ = std::move(probabilities);
  there_.reset();
  problem_.reset();
  sample_ = std::make_unique<RowSample>(all_, point_, probabilities_, draw_);
  problem_ = sample_->problem(all_.loss().name(), all_.b(), all_.weights_squared());
  for (Met& met : met_) met.is_known = false;
}

/// On rows that are chosen by what is known before a model: from x, and from a coarse minimiser of the cross-entropy.
/// The better start of the two counts; it and the end are evaluated in one read.
void SurrogateSolve::solve_coarsely() {
  remember(point_);
  use_sample(first_probabilities(all_, point_));
  correct();
  if (!sampled().refresh_preconditioner(*there_, false)) {
    gives_up_ = true;
    return;
  }
  Point& there = *there_;
  const VectorXd s = sampled().preconditioner().solve(there.gradient);
  const bool near_start = sampled().largest_move(sampled().direction(s)) <= kSmallMove;
  std::vector<RegressionObjective::Expected> candidates;
  const double positive_sum = all_.A().communicator().sum(all_.b().cwiseMax(0).sum());
  const bool tries = own_.must_try_it || (own_.try_cross_entropy && !near_start);
  const double value_here = there.value, gradient = norm();
  bool has_model = true;
  if (tries && all_.loss().name() == "softmax" && positive_sum > 0) {
    const auto entropy = sample_->problem("cross-entropy", all_.b().cwiseMax(0) / positive_sum,
                                          VectorXd::Constant(all_.b().size(), kStartWeight * kStartWeight));
    Point start = entropy->objective.evaluate(point_.x);
    minimise_sampled(entropy->objective, start, entropy->objective.norm(start.gradient), kCoarse, kCoarseSteps, false);
    other_models_ = entropy->objective.models_made();
    Point from_there = sampled().evaluate(start.x);
    if (std::isfinite(from_there.value)) candidates.push_back(expected_at(from_there));
    by_cross_entropy_ = from_there.value < value_here;
    if (by_cross_entropy_) there_ = std::move(from_there), has_model = false;
  }
  minimise_sampled(sampled(), *there_, gradient, kCoarse, kCoarseSteps, has_model);
  candidates.insert(candidates.begin(), expected_at(*there_));
  sampled().refresh_preconditioner(*there_, false);
  project(sampled().preconditioner());
  const Next best{candidates[0], there_->value - value_here};
  auto points = read(candidates);
  std::size_t lowest = 0;
  for (std::size_t k = 1; k < points.size(); ++k)
    if (points[k].value < points[lowest].value) lowest = k;
  for (std::size_t k = 0; k < points.size(); ++k)
    if (k != lowest) remember(points[k]);
  judge(std::move(points[lowest]), best);
}

void SurrogateSolve::remember(const Point& point) {
  if (!point.gradient.allFinite()) return;
  met_.push_front({point.x, point.gradient});
  if (met_.size() > kMemory + 1) met_.pop_back();
}

/// A new sample where this one is dear; larger ones where they serve badly.
void SurrogateSolve::renew_sample() {
  const bool is_first = iterations_ == 1;
  const bool stalled = accepted_ && rate_ > kSlow && iterations_ > 2 && largest_u_ < kSmallMove;
  if (stalled || (!accepted_ && is_noise_)) ++draw_.iteration;
  const bool can_grow = c_ < largest_c_ && sample_->rows() < all_.A().rows_global();
  if (can_grow && ((near_ && rate_ > kFast) || failures_ > 1 || stalled)) c_ *= 2;
  const RowScores scores(all_, point_, t_);
  score_total_ = scores.total();
  VectorXd fresh = scores.probabilities(c_);
  const auto [variance, least] = scores.variances(probabilities_, fresh, all_.A().communicator());
  double moved = 0;
  if (there_ && there_->x == point_.x) {
    const Point& there = *there_;
    const VectorXd s = there.x - sample_->base();
    moved = sampled().A().communicator().max(
        sampled().A().rows_local() == 0
            ? 0.0
            : (sampled().A().multiply(s).array() - RegressionObjective::state_of(there).centre.dot(s))
                  .abs()
                  .maxCoeff());
  }
  if (!is_first && accepted_ && !stalled && variance <= kDear * least && moved <= kNearby) return;
  use_sample(std::move(fresh));
}

/// Makes the surrogate's gradient exact at x and at the points met that are near; there_ is its point at x.
void SurrogateSolve::correct() {
  const bool is_new = sampled().models_made() == 0;
  if (there_ && there_->x == point_.x) {
    there_->value -= sampled().correction().value(point_.x);
    there_->gradient -= sampled().correction().gradient(point_.x);
    sampled().correct({});
  } else {
    sampled().correct({});
    there_ = sampled().evaluate(point_.x);
  }
  Correction correction{.e = point_.gradient - there_->gradient, .at = point_.x};
  if (is_new && iterations_ > 0 && sampled().refresh_preconditioner(*there_, false))
    project(sampled().preconditioner());
  if (!is_new && score_total_ < kFresh) {
    sampled().refresh_preconditioner(*there_, false);
    project(sampled().preconditioner());
  }
  const Preconditioner& M = sampled().preconditioner();
  if (!M.empty()) {
    look_back();
    const VectorXd logits = logits_of(*there_);
    VectorXd spans(static_cast<Index>(met_.size()));
    for (std::size_t k = 0; k < met_.size(); ++k)
      spans[static_cast<Index>(k)] = sample_->span_local(met_[k].logits, logits, met_[k].x - point_.x);
    all_.A().communicator().max(span_of(spans));
    std::vector<Secant> secants;
    for (std::size_t k = 0; k < met_.size(); ++k) {
      const Met& met = met_[k];
      const double span = spans[static_cast<Index>(k)];
      if (met.x == point_.x || !(span <= kNearby)) continue;
      secants.push_back({met.x - point_.x, met.gradient - met.sampled_gradient - correction.e});
      if (span >= kClose) secants.back().largest = kBelieved;
    }
    set_secants(M, secants, correction);
  }
  sampled().correct(std::move(correction));
  there_->gradient = point_.gradient;
  normaliser_error_ = log_normaliser(*there_) - log_normaliser(point_);
}

/// What the sample says at the points met.
void SurrogateSolve::look_back() {
  for (Met& met : met_) {
    if (met.is_known) continue;
    if (met.x == point_.x) {
      met.sampled_gradient = there_->gradient;
      met.logits = logits_of(*there_);
    } else {
      const Point there = sampled().evaluate(met.x);
      met.sampled_gradient = there.gradient;
      met.logits = logits_of(there);
    }
    met.is_known = true;
  }
}

/// A minimiser of the surrogate.
SurrogateSolve::Next SurrogateSolve::next() {
  const double value = there_->value;
  const double accuracy = std::max(near_ ? 0.005 : 0.02, 0.1 * tolerance() / norm());
  minimise_sampled(sampled(), *there_, norm(), accuracy, kSteps, true);
  if (there_->x == point_.x) {  // its values are rounding: a plain step
    sampled().refresh_preconditioner(*there_, false);
    if (!sampled().preconditioner().empty())
      there_ = sampled().evaluate(point_.x - sampled().preconditioner().solve(point_.gradient));
  }
  double predicted = there_->value - value;
  if (std::abs(predicted) <= 1e-9 * std::abs(value))
    predicted = 0.5 * (point_.gradient + there_->gradient).dot(there_->x - point_.x);
  return {expected_at(*there_), predicted};
}

void SurrogateSolve::step(const Next& next) { judge(std::move(read(std::span(&next.expected, 1)).front()), next); }

/// Takes the point if L is lower there, or, at the level of rounding, |g|_M^-1 is; else the part of the way that the
/// exact line search allows.
void SurrogateSolve::judge(Point found, const Next& next) {
  const double before = norm();
  const Preconditioner& M = sampled().preconditioner();
  Direction direction = RegressionObjective::between(point_, found);
  const bool is_finite = std::isfinite(found.value) && found.gradient.allFinite();
  const double change = is_finite ? all_.try_steps(point_, direction, std::array{1.0})[0].change
                                  : std::numeric_limits<double>::infinity();
  largest_u_ = all_.A().communicator().max(
      direction.As.size() == 0
          ? 0.0
          : (direction.As.array() - RegressionObjective::state_of(point_).centre.dot(direction.s)).abs().maxCoeff());
  is_noise_ = std::abs(change) <= kNoise * std::abs(point_.value) &&
              std::abs(next.predicted) <= 1e3 * kNoise * std::abs(point_.value);
  accepted_ = is_finite && (is_noise_ ? dot_inverse(M, found.gradient) < dot_inverse(M, point_.gradient)
                                      : change <= kSufficient * std::min(next.predicted, 0.0));
  if (is_finite) {
    remember(found);
    if (there_->x == found.x) {
      Met& met = met_.front();
      met.sampled_gradient = there_->gradient - sampled().correction().gradient(found.x);
      met.logits = logits_of(*there_);
      met.is_known = true;
    }
  }
  double t = 1;
  if (accepted_) {
    point_ = std::move(found);
    failures_ = 0;
    rate_ = norm() / before;
    near_ = (is_noise_ || change <= kGood * next.predicted) && (rate_ < kSlow || is_noise_);
  } else {
    ++failures_;
    near_ = is_noise_;
    rate_ = 1;
    t = 0;
    if (!is_noise_ && point_.gradient.dot(direction.s) < 0) {
      const Trial trial = search_line(all_, point_, direction, false);
      t = trial.t;
      if (t == 1) {
        point_ = std::move(found);
      } else if (t > 0) {
        point_ = all_.step(std::move(point_), std::move(direction), trial);
        remember(point_);
      }
    }
  }
  slow_ = rate_ > kSlow && c_ >= largest_c_ / 2 ? slow_ + 1 : 0;
  gives_up_ = failures_ > kMostFailures || (is_noise_ && failures_ > 1) || slow_ > kMostSlow;
  ++iterations_;
  record(t);
}

/// newton_cg confirms the end, or goes on from it.
SurrogateSummary SurrogateSolve::hand_over() {
  pay();
  if (!RegressionObjective::state_of(point_).is_fresh()) point_ = all_.refreshed(std::move(point_));
  if (has_norms_ && RowScores(all_, point_, t_).total() >= kServing) all_.adopt_scores(std::move(t_));
  NewtonOptions last = options_;
  last.gradient_reference = options_.gradient_reference > 0 ? reference_ : 0;
  last.max_iterations = std::max(0, options_.max_iterations - iterations_);
  if (options_.on_iteration)
    last.on_iteration = [this](IterationRecord record) {
      if (record.iteration == 0) return;
      record.iteration += iterations_;
      options_.on_iteration(record);
    };
  SurrogateSummary summary{
      .newton = newton_cg(all_, point_, last), .sample_reads = sample_reads_, .by_cross_entropy = by_cross_entropy_};
  if (summary.newton.iterations > 0 && iterations_ > 0)
    summary.notes.push_back("after " + std::to_string(iterations_) + " surrogates newton-cg took " +
                            std::to_string(summary.newton.iterations) + " more steps");
  summary.newton.iterations += iterations_;
  return summary;
}

}  // namespace

bool has_surrogate(std::string_view loss) { return loss == "softmax" || loss == "cross-entropy"; }

bool sample_saves(std::int64_t rows, Eigen::Index columns) {
  constexpr double kRows = 50, kMost = 0.25;  // of a sample, times d; their share of all rows
  return kRows * static_cast<double>(columns) <= kMost * static_cast<double>(rows);
}

SurrogateSummary surrogate(RegressionObjective& objective, Point& point, const NewtonOptions& options,
                           const SurrogateOptions& surrogate_options) {
  check(options);
  return SurrogateSolve(objective, point, options, surrogate_options).run();
}

}  // namespace attnreg
