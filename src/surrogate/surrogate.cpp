#include "surrogate/surrogate.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "errors/printable.hpp"
#include "newton/line_search.hpp"
#include "newton/minimise.hpp"
#include "newton/progress.hpp"
#include "numbers/compensated_sum.hpp"
#include "surrogate/row_scores.hpp"
#include "surrogate/sampled_surrogate.hpp"

namespace attnreg {

namespace {

constexpr double kNoise = 1e-12;             // of L: changes below it are judged by the gradient
constexpr double kSufficient = 1e-4;         // of the predicted change
constexpr double kShortMove = 0.1;           // of logits: a step that went no further should have served
constexpr double kProbeReads = 1;            // the price of the norms of rows, that of a pass of their own
constexpr double kNearBase = 1;              // logits of the sample have moved by at most that
constexpr double kDear = 1.5;                // variance of a sample's error in units of a fresh one's
constexpr double kFresh = 0.7;               // sum of the scores over d: below, they are too small
constexpr double kServing = 0.5;             // below, they hide negative curvature
constexpr double kGood = 0.5;                // of the predicted change of L
constexpr double kFast = 0.25, kSlow = 0.5;  // |g| by a step
constexpr double kWhole = 0.5;               // of the tolerance, on a sample of all rows
constexpr int kMostFailures = 5;
constexpr int kMostSlow = 4;  // steps in a row with the largest sample

SampledSurrogate::TargetSums sums_of(const RegressionObjective& all) {
  std::array sums{compensated_sum(all.b()), compensated_sum(all.b().cwiseMax(0))};
  all.A().communicator().sum(sums);
  return {sums[0], sums[1]};
}

class SurrogateSolve {
 public:
  SurrogateSolve(RegressionObjective& all, Point& point, const NewtonOptions& options, const SurrogateOptions& own)
      : all_(all),
        point_(point),
        options_(options),
        own_(own),
        draw_{own.seed, kFirstDraw},
        then_(own.then),
        sums_(sums_of(all)),
        surrogate_(all, own.seed, sums_) {
    largest_c_ = static_cast<double>(all.A().rows_global()) / static_cast<double>(all.dimension());
    c_ = rows_by_scores(all.A().rows_global(), all.dimension());
    is_whole_ = !sample_saves(all.A());
  }

  SurrogateSummary run() {
    reference_ = options_.gradient_reference > 0 ? options_.gradient_reference : all_.norm(point_.gradient);
    if (options_.journal) stage_ = &options_.journal->open("surrogate", point_.seconds);
    if (stage_ == nullptr || !resume()) record(0);
    const bool was_finished = stage_ != nullptr && stage_->finished;
    if (!was_finished && options_.gradient_reference > 0 && goes_on() && std::isfinite(point_.value)) {
      solve_coarsely();
      while (then_ == AfterSample::surrogates && goes_on()) {
        if (leaves_checkpoint()) return surrogate(all_, point_, options_, own_);
        renew_sample();
        step();
      }
    }
    if (stage_ != nullptr && !was_finished) finish();
    return hand_over();
  }

 private:
  static constexpr std::uint32_t kFirstDraw = 1u << 30;  // apart from the draws of preconditioners

  double norm() const { return all_.norm(point_.gradient); }
  double tolerance() const { return options_.relative_tolerance * reference_; }
  bool goes_on() const {
    return norm() > tolerance() && !gives_up_ && iterations_ < options_.max_iterations &&
           point_.seconds < options_.time_limit_seconds && !all_.is_stopped();
  }

  std::uint32_t round() const { return draw_.iteration + static_cast<std::uint32_t>(iterations_); }
  void solve_coarsely();
  void take_ends(const std::vector<SampledSurrogate::End>& ends, std::size_t candidate);
  void explain_start(const SampledSurrogate::Coarse& coarse);
  void renew_sample();
  void use_sample(VectorXd probabilities, double rows);
  void step();
  struct Read {
    std::vector<Point> points;
    std::optional<double> change{};           // of L, to the first
    std::optional<RowScores::Sums> scores{};  // there
  };
  void judge(Point found, const SampledSurrogate::Next& next, std::optional<double> change);
  Read read(std::span<const RegressionObjective::Expected> expected, const MatrixXd& projection);
  /// Where |g| has fallen by much, without asking the model.
  bool is_nearer(const Point& found) {
    return all_.norm(found.gradient) <= kFast * norm() || surrogate_.is_nearer(found, point_);
  }
  void record(double t);
  bool resume();
  void leave();
  bool leaves_checkpoint();
  void finish();
  bool is_singular() const { return was_singular_ || surrogate_.is_singular(); }
  SurrogateSummary hand_over();

  RegressionObjective& all_;
  Point& point_;
  const NewtonOptions& options_;
  const SurrogateOptions& own_;
  RowSample::Draw draw_;
  AfterSample then_;
  double reference_ = 0, largest_c_, c_;
  bool is_whole_;  // the sample has all rows

  SampledSurrogate::TargetSums sums_;
  SampledSurrogate surrogate_;
  VectorXd probabilities_;  // of the sample; this rank's rows

  VectorXd t_;                                   // norms of rows for the scores
  bool has_norms_ = false;                       // there are some: replicated, unlike their number
  std::optional<RowScores::Sums> score_sums_{};  // of the point, with
  double c_of_sums_ = 0;                         // this c
  double score_total_ = 1;

  int iterations_ = 0, failures_ = 0, slow_ = 0;
  int first_ = 0;         // iterations before the coarse solve
  double rate_ = 1;       // |g| / |g before|
  double largest_u_ = 0;  // of the last step, on the sampled rows
  double moved_ = 0;      // since the sample was made, if the last step was taken
  bool near_ = false;     // the last step was good
  bool accepted_ = true;
  bool is_noise_ = false;  // the last change of L was
  bool gives_up_ = false;
  std::vector<SampledEnd> ends_;
  std::vector<std::string> notes_;
  // Of an earlier process, or before a checkpoint:
  double sample_reads_ = 0;
  bool was_singular_ = false;
  Stage* stage_ = nullptr;
};

std::string start_of(int number) {
  constexpr std::array<const char*, 4> names{"zero", "cross-entropy", "cross-entropy of b^2", "cross-entropy of b^1.5"};
  const auto k = static_cast<std::size_t>(number);
  return k < names.size() ? names.at(k) : "random " + std::to_string(k + 1 - names.size());
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

/// One read of A for all of them, and one message; of a point that is alone all that the next decisions rest on.
SurrogateSolve::Read SurrogateSolve::read(std::span<const RegressionObjective::Expected> expected,
                                          const MatrixXd& projection) {
  const bool is_last = rate_ * norm() <= tolerance();  // probably
  const bool projects = projection.size() > 0, is_alone = expected.size() == 1;
  const PackedColumns N(projects ? projection : MatrixXd(all_.dimension(), 0));
  const auto norms = projects ? RowPasses::Projection{&N, &t_} : RowPasses::Projection{};
  has_norms_ = has_norms_ || projects;
  RegressionObjective::Besides besides;
  if (has_norms_ && is_alone) besides = RowScores::in_read(all_, t_, c_, probabilities_);
  Read found{all_.evaluate(point_, expected, is_last, norms, is_alone ? &besides : nullptr)};
  if (projects) all_.A().passes().count_reads(kProbeReads);
  found.change = besides.change;
  if (has_norms_ && besides.change) found.scores = RowScores::sums_of(besides);
  return found;
}

/// What `RowSample` says of the ranks here.
double few_numbers(const RowMatrix& A) {
  const Communicator& ranks = A.communicator();
  using enum RowSample::Nodes;
  const auto nodes = ranks.is_of_blocks() ? any : ranks.processes_on_node() == ranks.processes() ? one : several;
  return RowSample::few_numbers(ranks.size(), A.columns(), nodes);
}

/// rows: about how many.
void SurrogateSolve::use_sample(VectorXd probabilities, double rows) {
  const RowMatrix& A = all_.A();
  RowSample::Place place{is_whole_ ? small_problem : own_.few >= 0 ? own_.few : few_numbers(A)};
  if (!A.is_sparse()) place.expected = rows * static_cast<double>(A.columns());
  probabilities_ = std::move(probabilities);
  surrogate_.use(point_, probabilities_, draw_, place);
}

/// The one that a candidate is comes first.
void SurrogateSolve::take_ends(const std::vector<SampledSurrogate::End>& ends, std::size_t candidate) {
  for (const auto& end : ends) {
    ends_.push_back({end.x, {}});
    for (const int start : end.starts) ends_.back().starts.push_back(start_of(start));
  }
  if (candidate < ends_.size()) std::swap(ends_.front(), ends_[candidate]);
  if (own_.random_starts == 0) ends_.resize(1);
}

void SurrogateSolve::explain_start(const SampledSurrogate::Coarse& coarse) {
  if (!(sums_.positive > 0)) {
    notes_.push_back("no value of b is positive: there is no cross-entropy start, x = 0 is used");
    return;
  }
  notes_.push_back("start " + ends_.front().starts.front() + ": the first model step from x = 0 moves the logits by " +
                   "up to " + text_of(coarse.first_move) +
                   (coarse.is_near ? " <= 0.1" : " > 0.1, and this is the lowest end on a sample"));
}

/// On rows that are chosen by what is known before a model: the end and the starts are evaluated in one read of A, and
/// the lowest counts.
void SurrogateSolve::solve_coarsely() {
  surrogate_.remember(point_);
  if (is_whole_)
    use_sample(VectorXd::Ones(all_.A().rows_local()), static_cast<double>(all_.A().rows_global()));
  else
    use_sample(first_probabilities(all_, point_), most_first_rows(all_.dimension()));
  RegressionObjective::drop_curvatures(point_);  // what follows has vectors of its own
  const bool is_start = iterations_ == 0;
  SampledSurrogate::CoarseOptions options{.cross_entropy = is_start && own_.must_try_it,
                                          .cross_entropy_if_far = is_start && own_.try_cross_entropy,
                                          .random_starts = is_start ? own_.random_starts : 0,
                                          .seconds = options_.time_limit_seconds - point_.seconds};
  if (is_whole_) {
    options.accuracy = kWhole * tolerance() / norm();
    options.max_iterations = options_.max_iterations;
  }
  const auto coarse = surrogate_.minimise_coarsely(point_, options, round());
  if (is_start) then_ = coarse.is_near ? own_.if_near : own_.then;
  gives_up_ = coarse.candidates.empty();
  if (gives_up_) return;
  Read found = read(coarse.candidates, is_whole_ || then_ == AfterSample::newton ? MatrixXd() : coarse.projection);
  std::vector<Point>& points = found.points;
  std::size_t lowest = 0;
  for (std::size_t k = 1; k < points.size(); ++k)
    if (points[k].value < points[lowest].value) lowest = k;
  if (is_start) take_ends(coarse.ends, lowest);
  if (is_start && own_.try_cross_entropy && all_.loss().name() == "softmax") explain_start(coarse);
  std::swap(points[0], points[lowest]);
  for (std::size_t k = 1; k < points.size(); ++k) surrogate_.remember(points[k]);
  points.resize(1);
  SampledSurrogate::Next first;
  first.predicted = coarse.predicted;
  score_sums_ = found.scores, c_of_sums_ = c_;
  judge(std::move(points[0]), first, found.change);
  gives_up_ = gives_up_ || is_whole_;
}

/// A new sample where this one is dear; larger ones where they serve badly.
void SurrogateSolve::renew_sample() {
  const bool is_first = iterations_ == first_ + 1;
  const bool stalled = accepted_ && rate_ > kSlow && iterations_ > 2 && largest_u_ < kShortMove;
  if (stalled || (!accepted_ && is_noise_)) ++draw_.iteration;
  const bool can_grow = c_ < largest_c_ && surrogate_.sample().rows() < all_.A().rows_global();
  if (can_grow && ((near_ && rate_ > kFast) || failures_ > 1 || stalled)) c_ *= 2;
  if (score_sums_ && c_ == 2 * c_of_sums_) score_sums_ = score_sums_->of_twice(), c_of_sums_ = c_;
  const RowScores scores(all_, point_, t_, c_, probabilities_, score_sums_);
  score_total_ = scores.total();
  if (!is_first && accepted_ && !stalled && scores.variance() <= kDear && moved_ <= kNearBase) {
    RegressionObjective::drop_curvatures(point_);
    return;
  }
  use_sample(scores.probabilities(), scores.rows());
}

void SurrogateSolve::step() {
  const double accuracy = std::max(near_ ? 0.005 : 0.02, 0.1 * tolerance() / norm());
  const auto next = surrogate_.next(point_, accuracy, score_total_ < kFresh, round());
  Read found = read(std::span(&next.expected, 1), next.projection);
  score_sums_ = found.scores, c_of_sums_ = c_;
  judge(std::move(found.points.front()), next, found.change);
}

/// Takes the point if L is lower there, or, at the level of rounding, |g|_M^-1 is; else the part of the way that the
/// exact line search allows.
void SurrogateSolve::judge(Point found, const SampledSurrogate::Next& next, std::optional<double> known_change) {
  const double before = norm();
  const bool is_finite = std::isfinite(found.value) && found.gradient.allFinite();
  const auto tried = [&] {
    return all_.try_steps(point_, RegressionObjective::between(point_, found), std::array{1.0})[0].change;
  };
  const double change = !is_finite ? std::numeric_limits<double>::infinity() : known_change ? *known_change : tried();
  largest_u_ = next.largest_u;
  moved_ = next.moved;
  is_noise_ = std::abs(change) <= kNoise * std::abs(point_.value) &&
              std::abs(next.predicted) <= 1e3 * kNoise * std::abs(point_.value);
  accepted_ = is_finite && (is_noise_ ? is_nearer(found) : change <= kSufficient * std::min(next.predicted, 0.0));
  if (is_finite) surrogate_.remember(found);
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
    score_sums_.reset();
    Direction direction = RegressionObjective::between(point_, found);
    if (!is_noise_ && point_.gradient.dot(direction.s) < 0) {
      const Trial trial = search_line(all_, point_, direction, false);
      t = trial.t;
      if (t == 1) {
        point_ = std::move(found);
      } else if (t > 0) {
        point_ = all_.step(std::move(point_), std::move(direction), trial);
        surrogate_.remember(point_);
      }
    }
  }
  slow_ = rate_ > kSlow && c_ >= largest_c_ / 2 ? slow_ + 1 : 0;
  gives_up_ = failures_ > kMostFailures || (is_noise_ && failures_ > 1) || slow_ > kMostSlow;
  ++iterations_;
  record(t);
}

/// Whether there is something to go on from.
bool SurrogateSolve::resume() {
  constexpr std::size_t kNumbers = 7;
  if (stage_->empty()) return false;
  const auto& numbers = stage_->numbers;
  if (stage_->vectors.at(0).size() != all_.dimension()) {
    options_.journal->forget();
    return false;
  }
  auto there = all_.evaluate(stage_->vectors.at(0));
  iterations_ = first_ = static_cast<int>(numbers.at(0));
  reference_ = numbers.at(1);
  c_ = numbers.at(2);
  draw_.iteration = static_cast<std::uint32_t>(numbers.at(3));
  then_ = static_cast<AfterSample>(numbers.at(4));
  sample_reads_ = numbers.at(5);
  was_singular_ = numbers.at(6) != 0;
  auto text = stage_->texts.begin();
  for (std::size_t k = kNumbers; k < numbers.size(); ++k) {
    const auto starts = static_cast<std::ptrdiff_t>(numbers[k]);
    ends_.push_back({stage_->vectors.at(ends_.size() + 1), {text, text + starts}});
    text += starts;
  }
  notes_.assign(text, stage_->texts.end());
  point_ = std::move(there);
  all_.forget_models();
  return true;
}

void SurrogateSolve::leave() {
  stage_->vectors = {point_.x};
  stage_->numbers = {static_cast<double>(iterations_),
                     reference_,
                     c_,
                     static_cast<double>(draw_.iteration),
                     static_cast<double>(then_),
                     sample_reads_ + surrogate_.sample_reads(),
                     is_singular() ? 1.0 : 0.0};
  stage_->texts.clear();
  for (const auto& end : ends_) {
    stage_->vectors.push_back(end.x);
    stage_->numbers.push_back(static_cast<double>(end.starts.size()));
    stage_->texts.insert(stage_->texts.end(), end.starts.begin(), end.starts.end());
  }
  stage_->texts.insert(stage_->texts.end(), notes_.begin(), notes_.end());
}

/// After a step that served: what is known of others would be missed.
bool SurrogateSolve::leaves_checkpoint() {
  if (stage_ == nullptr || !near_) return false;
  const auto due = options_.journal->due(point_.seconds, all_.takes_checkpoint());
  if (due == Journal::Due::no) return false;
  leave();
  return options_.journal->leave(due);
}

void SurrogateSolve::finish() {
  leave();
  if (all_.is_stopped() || !(point_.seconds < options_.time_limit_seconds)) {
    options_.journal->cut_off();
  } else if (options_.journal->finish(point_.seconds)) {
    point_ = all_.evaluate(point_.x);
    all_.forget_models();
    has_norms_ = false;
    score_sums_.reset();
  }
}

/// newton_cg, or newton, confirms the end, or goes on from it.
SurrogateSummary SurrogateSolve::hand_over() {
  if (!RegressionObjective::state_of(point_).is_fresh()) point_ = all_.refreshed(std::move(point_));
  probabilities_.resize(0);
  const auto total = [&] {
    return score_sums_ ? score_sums_->total / static_cast<double>(all_.dimension()) : score_total(all_, point_, t_);
  };
  if (has_norms_ && total() >= kServing) all_.adopt_scores(std::move(t_));
  NewtonOptions last = options_;
  last.gradient_reference = options_.gradient_reference > 0 ? reference_ : 0;
  last.max_iterations = std::max(0, options_.max_iterations - iterations_);
  if (options_.on_iteration)
    last.on_iteration = [this](IterationRecord record) {
      if (record.iteration == 0) return;
      record.iteration += iterations_;
      options_.on_iteration(record);
    };
  const bool is_exact = then_ == AfterSample::newton;
  SurrogateSummary summary{.newton = is_exact ? newton(all_, point_, last) : newton_cg(all_, point_, last),
                           .then = then_,
                           .sample_reads = sample_reads_ + surrogate_.sample_reads(),
                           .ends = std::move(ends_),
                           .notes = std::move(notes_)};
  if (then_ == AfterSample::surrogates && summary.newton.iterations > 0 && iterations_ > 0)
    summary.notes.push_back("after " + std::to_string(iterations_) + " surrogates newton-cg took " +
                            std::to_string(summary.newton.iterations) + " more steps");
  if (summary.newton.iterations == 0) summary.newton.singular = is_singular();
  summary.newton.iterations += iterations_;
  return summary;
}

}  // namespace

SurrogateSummary surrogate(RegressionObjective& objective, Point& point, const NewtonOptions& options,
                           const SurrogateOptions& surrogate_options) {
  check(options);
  return SurrogateSolve(objective, point, options, surrogate_options).run();
}

}  // namespace attnreg
