#include "surrogate/sampled_surrogate.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>
#include <utility>

#include "newton/minimise.hpp"
#include "objective/random_point.hpp"
#include "ranks/span_of.hpp"
#include "sampling/leverage_basis.hpp"
#include "sampling/sampling.hpp"
#include "surrogate/secants.hpp"

namespace attnreg {

namespace {

constexpr double kCoarse = 1e-2;  // of |g|: of the coarse solves
constexpr int kCoarseSteps = 40, kSteps = 12;
constexpr double kMisfit = 0.03;            // of |x|_M: further from the cross-entropy's minimiser, there may be others
constexpr double kRough = 0.1;              // of |g|: enough to tell which end is the lowest
constexpr double kSameValue = 1e-3;         // of L: two rough ends are one,
constexpr double kSamePlace = 0.02;         // of |x|_M: if they are as near as this
constexpr double kSmallMove = 0.1;          // logits that move less leave softmax(A x) nearly uniform: x = 0 is near
constexpr double kStartWeight = 1e-4;       // of the cross-entropy start, every row
constexpr std::size_t kMemory = 10;         // points met
constexpr double kNearby = 1;               // of points met: logits move by at most that
constexpr double kClose = 0.05;             // their secants are believed whatever they say
constexpr double kBelieved = 0.5;           // |B|, relative to M, of others
constexpr double kRounding = 1e-9;          // of L: changes below it are made from the gradients
constexpr std::size_t kMostCandidates = 3;  // ends and a start that are evaluated in one read
constexpr int kFirstRandom = 4;             // of the numbers of starts

using Expected = RegressionObjective::Expected;

/// ln sum exp(A x)
double log_normaliser(const Point& point) {
  const RegressionState& state = RegressionObjective::state_of(point);
  return state.loss.reference + state.shift;
}

/// A minimiser of a sampled problem, from there on.
void minimise_sampled(RegressionObjective& sampled, Point& there, double reference, double tolerance, int most_steps,
                      bool has_model) {
  NewtonOptions options;
  options.relative_tolerance = tolerance;
  options.gradient_reference = reference;
  options.max_iterations = most_steps;
  newton_cg(sampled, there, options, has_model && !sampled.preconditioner().empty());
}

/// Numbers of a message, one after another.
class Numbers {
 public:
  explicit Numbers(VectorXd& message) : message_(message) {}
  void put(double value) { message_[next_++] = value; }
  void put(const VectorXd& values) {
    message_.segment(next_, values.size()) = values;
    next_ += values.size();
  }
  void put(const Expected& there) {
    const LossPoint& loss = there.loss;
    put(there.x);
    for (const double value : {there.shift, loss.value, loss.reference, loss.offset, loss.self}) put(value);
    for (const double value : loss.scalars) put(value);
  }
  double take() { return message_[next_++]; }
  VectorXd take(Index size) {
    next_ += size;
    return message_.segment(next_ - size, size);
  }
  Expected take_expected(Index d) {
    Expected there;
    there.x = take(d);
    LossPoint& loss = there.loss;
    for (double* value : {&there.shift, &loss.value, &loss.reference, &loss.offset, &loss.self}) *value = take();
    for (double& value : loss.scalars) value = take();
    return there;
  }
  static Index size_of_expected(Index d) { return d + 9; }

 private:
  VectorXd& message_;
  Index next_ = 0;
};

}  // namespace

void SampledSurrogate::use(const Point& base, const VectorXd& probabilities, const RowSample::Draw& draw,
                           const RowSample::Place& place) {
  earlier_reads_ = sample_reads_;
  other_models_ = 0;
  there_.reset();
  problem_.reset();
  sample_.reset();  // before there is another one
  sample_ = std::make_unique<RowSample>(all_, base, probabilities, draw, place);
  if (sample_->is_here()) {
    const auto& gram = all_.replicated_ridge_gram();
    const VectorXd w2 = gram ? VectorXd(VectorXd::Zero(sample_->b().size())) : sample_->weights_squared();
    problem_ = sample_->problem(all_.loss().name(), sample_->b(), w2, sums_.all);
    if (gram) problem_->objective.regularise_by(gram);
  }
  for (Met& met : met_) met.is_known = false;
  is_new_ = true;
}

void SampledSurrogate::remember(const Point& point) {
  if (!point.gradient.allFinite()) return;
  met_.push_front({point.x, point.gradient});
  if (met_.size() > kMemory + 1) met_.pop_back();
  if (!there_ || there_->x != point.x) return;
  Met& met = met_.front();
  met.sampled_gradient = there_->gradient - sampled().correction().gradient(point.x);
  met.logits = logits_of(*there_);
  met.is_known = true;
}

/// Numbers that the work finds out where the sample is, on all ranks. An error of rank 0 alone rides on the message,
/// and that its sample was asked to stop: the others wait for it there.
VectorXd SampledSurrogate::ask(Index size, const std::function<void(VectorXd&)>& work) {
  const Communicator& communicator = all_.A().communicator();
  VectorXd message = VectorXd::Zero(size + 5);
  std::exception_ptr failure;
  if (sample_->is_here()) try {
      VectorXd numbers = VectorXd::Zero(size);
      work(numbers);
      message << numbers, earlier_reads_ + sample_->reads(sampled().models_made() + other_models_),
          sampled().preconditioner().is_singular() ? 1 : 0, 0, static_cast<double>(sample_->rows()),
          sampled().is_stopped() ? 1 : 0;
    } catch (...) {
      if (!sample_->is_on_root()) throw;
      failure = std::current_exception();
      message[size + 2] = 1;
    }
  if (sample_->is_on_root()) communicator.broadcast(span_of(message));
  if (message[size + 2] != 0) communicator.agree_on_root([&] { std::rethrow_exception(failure); });
  sample_->learn(static_cast<std::int64_t>(message[size + 3]));
  sample_reads_ = message[size];
  is_singular_ = message[size + 1] != 0;
  if (message[size + 4] != 0) communicator.note_stop();
  return message.head(size);
}

/// N = L^-T G / |columns|^(1/2)
MatrixXd SampledSurrogate::projection(std::uint32_t round) {
  MatrixXd N = gaussian_probes(all_.dimension(), probes(), seed_, round);
  for (Index k = 0; k < N.cols(); ++k)
    N.col(k) = sampled().preconditioner().whiten(N.col(k)) / std::sqrt(static_cast<double>(probes()));
  return N;
}

/// What the sample says of the point, less the error of its normaliser at x: where L is small, much of it would cancel.
Expected SampledSurrogate::expected_at(const Point& there) const {
  const RegressionState& state = RegressionObjective::state_of(there);
  Expected expected{there.x, state.centre.dot(there.x), state.loss};
  expected.loss.reference += state.shift - normaliser_error_;
  return expected;
}

/// Makes the surrogate's gradient exact at x and at the points met that are near; there_ is its point at x.
void SampledSurrogate::correct(const Point& point) {
  if (there_ && there_->x == point.x) {
    there_->value -= sampled().correction().value(point.x);
    there_->gradient -= sampled().correction().gradient(point.x);
    sampled().correct({});
  } else {
    sampled().correct({});
    there_ = sampled().evaluate(point.x);
  }
  Correction correction{.e = point.gradient - there_->gradient, .at = point.x};
  const Preconditioner& M = sampled().preconditioner();
  if (!M.empty()) {
    look_back(point);
    const VectorXd logits = logits_of(*there_);
    VectorXd spans(static_cast<Index>(met_.size()));
    for (std::size_t k = 0; k < met_.size(); ++k)
      spans[static_cast<Index>(k)] = sample_->span_local(met_[k].logits, logits, met_[k].x - point.x);
    sampled().A().communicator().max(span_of(spans));
    std::vector<Secant> secants;
    for (std::size_t k = 0; k < met_.size(); ++k) {
      const Met& met = met_[k];
      const double span = spans[static_cast<Index>(k)];
      if (met.x == point.x || !(span <= kNearby)) continue;
      secants.push_back({met.x - point.x, met.gradient - met.sampled_gradient - correction.e});
      if (span >= kClose) secants.back().largest = kBelieved;
    }
    set_secants(M, secants, correction);
  }
  sampled().correct(std::move(correction));
  there_->gradient = point.gradient;
  normaliser_error_ = log_normaliser(*there_) - log_normaliser(point);
}

/// What the sample says at the points met; there_ is that at x, without a correction.
void SampledSurrogate::look_back(const Point& point) {
  for (Met& met : met_) {
    if (met.is_known) continue;
    if (met.x == point.x) {
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

/// A rough minimiser of the cross-entropy of b^power, from x on.
Point SampledSurrogate::cross_entropy_start(const VectorXd& x, double power, const VectorXd& norms) {
  const RegressionObjective& here = sampled();
  VectorXd target = sample_->b().cwiseMax(0).array().pow(power);
  const double sum = power == 1 ? sums_.positive : here.A().communicator().sum(target.dot(sample_->weights()));
  target /= sum;
  const VectorXd w2 = VectorXd::Constant(target.size(), kStartWeight * kStartWeight);
  const auto entropy = sample_->problem("cross-entropy", target, w2, 1);
  entropy->objective.use_few_rows(norms);
  Point start = entropy->objective.evaluate(x);
  minimise_sampled(entropy->objective, start, entropy->objective.norm(start.gradient), power == 1 ? kCoarse : kRough,
                   kCoarseSteps, false);
  other_models_ += entropy->objective.models_made();
  return sampled().evaluate(start.x);
}

/// Whether it differs from the others. The lowest is there_ then, and the first.
bool SampledSurrogate::add_end(std::vector<Descent>& descents, Point there, int start) {
  const double value = there.value;
  if (!descents.empty() && !std::isfinite(value)) return false;
  const Preconditioner& M = sampled().preconditioner();
  const auto same = std::find_if(descents.begin(), descents.end(), [&](const Descent& other) {
    return std::abs(other.end.value - value) <= kSameValue * std::abs(other.end.value) &&
           (M.empty() || M.norm(other.end.x - there.x) <= kSamePlace * M.norm(there.x));
  });
  const bool is_new = same == descents.end(), is_lowest = descents.empty() || value < descents.front().end.value;
  if (!is_new) same->end.starts.push_back(start);
  if (is_new || value < same->end.value) {
    Descent descent{{there.x, value, is_new ? std::vector{start} : same->end.starts}, expected_at(there)};
    if (!is_new) descents.erase(same);
    const auto higher = std::find_if(descents.begin(), descents.end(),
                                     [&](const Descent& other) { return !(other.end.value <= value); });
    descents.insert(higher, std::move(descent));
  }
  if (is_lowest) there_ = std::move(there);
  return is_new;
}

/// Moves there_ to the lowest of the ends, and says what to evaluate: ends, the lowest first, and the first start.
SampledSurrogate::Coarse SampledSurrogate::ends_of_starts(const Point& point, bool from_entropies,
                                                          const CoarseOptions& options, std::uint32_t round) {
  const double value_here = there_->value, gradient = all_.norm(point.gradient);
  const Preconditioner& M = sampled().preconditioner();
  const auto descend = [&](Point& from, double accuracy, bool has_model) {
    minimise_sampled(sampled(), from, gradient, accuracy, options.max_iterations, has_model);
  };
  const auto descended = [&](Point from) {
    if (std::isfinite(from.value)) descend(from, kRough, false);
    return from;
  };
  std::vector<Descent> descents;
  std::optional<Expected> start;
  if (from_entropies) {
    const VectorXd norms = row_norms_squared(sampled().A(), projection(round));
    Point first = cross_entropy_start(point.x, 1, norms);
    const VectorXd x = first.x;
    if (std::isfinite(first.value)) start = expected_at(first);
    const bool is_lower = first.value < value_here;
    Point lowest = is_lower ? std::move(first) : *std::move(there_);
    descend(lowest, kCoarse, false);
    const bool is_misfit = !M.empty() && M.norm(lowest.x - x) > kMisfit * M.norm(x);
    add_end(descents, std::move(lowest), is_lower ? 1 : 0);
    if (is_misfit && add_end(descents, descended(cross_entropy_start(2 * x, 2, norms)), 2))
      add_end(descents, descended(cross_entropy_start(1.5 * x, 1.5, norms)), 3);
  } else {
    Point lowest = *std::move(there_);
    descend(lowest, std::min(options.accuracy, kCoarse), true);
    add_end(descents, std::move(lowest), 0);
  }
  for (int k = 1; k <= options.random_starts && there_->seconds < options.seconds && !sampled().is_stopped(); ++k)
    if (const auto x = random_point(sampled(), seed_, k)) {
      Point end = descended(sampled().evaluate(*x));
      there_->seconds = end.seconds;
      add_end(descents, std::move(end), kFirstRandom - 1 + k);
    }
  descend(*there_, std::min(options.accuracy, kCoarse), false);
  descents.front().end.x = there_->x;
  descents.front().end.value = there_->value;
  descents.front().expected = expected_at(*there_);
  Coarse coarse;
  for (Descent& descent : descents) {
    if (coarse.candidates.size() + 1 < kMostCandidates) coarse.candidates.push_back(std::move(descent.expected));
    coarse.ends.push_back(std::move(descent.end));
  }
  if (start && !all_.replicated_ridge_gram()) coarse.candidates.push_back(*std::move(start));
  return coarse;
}

SampledSurrogate::Coarse SampledSurrogate::minimise_coarsely(const Point& point, const CoarseOptions& options,
                                                             std::uint32_t round) {
  const Index d = all_.dimension(), starts = kFirstRandom + options.random_starts;
  const Index size_of_ends = starts * (d + 1) + starts;  // x and L of each; for each start, which end
  const Index size =
      5 + static_cast<Index>(kMostCandidates) * Numbers::size_of_expected(d) + probes() * d + size_of_ends;
  VectorXd message = ask(size, [&](VectorXd& found) {
    correct(point);
    if (!sampled().refresh_preconditioner(*there_, false)) return;
    const VectorXd s = sampled().preconditioner().solve(there_->gradient);
    const double first_move = sampled().largest_move(sampled().direction(s));
    const bool is_far = first_move > kSmallMove;
    const double value_here = there_->value;
    const bool tries = options.cross_entropy || (options.cross_entropy_if_far && is_far);
    const bool can = all_.loss().name() == "softmax" && sums_.positive > 0;
    const Coarse coarse = ends_of_starts(point, tries && can, options, round);
    sampled().refresh_preconditioner(*there_, false);
    Numbers numbers(found);
    numbers.put(static_cast<double>(coarse.candidates.size()));
    numbers.put(static_cast<double>(coarse.ends.size()));
    numbers.put(first_move);
    numbers.put(is_far ? 0 : 1);
    numbers.put(there_->value - value_here);
    numbers.put(projection(round).reshaped());
    for (const Expected& candidate : coarse.candidates) numbers.put(candidate);
    VectorXd led_to = VectorXd::Constant(starts, -1);
    for (std::size_t k = 0; k < coarse.ends.size(); ++k)
      for (const int start : coarse.ends[k].starts) led_to[start] = static_cast<double>(k);
    numbers.put(led_to);
    for (const End& end : coarse.ends) numbers.put(end.x), numbers.put(end.value);
  });
  Numbers numbers(message);
  Coarse coarse;
  coarse.candidates.resize(static_cast<std::size_t>(numbers.take()));
  coarse.ends.resize(static_cast<std::size_t>(numbers.take()));
  coarse.first_move = numbers.take();
  coarse.is_near = numbers.take() != 0;
  coarse.predicted = numbers.take();
  coarse.projection = numbers.take(probes() * d).reshaped(d, probes());
  for (Expected& candidate : coarse.candidates) candidate = numbers.take_expected(d);
  const VectorXd led_to = numbers.take(starts);
  for (End& end : coarse.ends) end.x = numbers.take(d), end.value = numbers.take();
  for (Index start = 0; start < starts; ++start)
    if (led_to[start] >= 0 && !coarse.ends.empty())
      coarse.ends[static_cast<std::size_t>(led_to[start])].starts.push_back(static_cast<int>(start));
  return coarse;
}

/// Moves there_ from x to a minimiser of the surrogate.
void SampledSurrogate::move_to_minimiser(const Point& point, double accuracy) {
  minimise_sampled(sampled(), *there_, all_.norm(point.gradient), accuracy, kSteps, true);
  if (there_->x != point.x) return;
  sampled().refresh_preconditioner(*there_, false);  // its values are rounding: a plain step
  if (!sampled().preconditioner().empty())
    there_ = sampled().evaluate(point.x - sampled().preconditioner().solve(point.gradient));
}

SampledSurrogate::Next SampledSurrogate::next(const Point& point, double accuracy, bool needs_projection,
                                              std::uint32_t round) {
  const Index d = all_.dimension();
  // Norms of rows for several targets in one read cost what they would one after another.
  const bool renews = is_new_ || needs_projection;
  const bool projects = needs_projection || (is_new_ && !all_.replicated_ridge_gram());
  is_new_ = false;
  VectorXd message = ask(4 + Numbers::size_of_expected(d) + (projects ? probes() * d : 0), [&](VectorXd& found) {
    if (renews) {
      if (!(there_ && there_->x == point.x)) sampled().correct({}), there_ = sampled().evaluate(point.x);
      sampled().refresh_preconditioner(*there_, false);
    }
    const bool has_projection = projects && !sampled().preconditioner().empty();
    const MatrixXd N = has_projection ? projection(round) : MatrixXd();
    correct(point);
    const VectorXd logits = logits_of(*there_);
    const double value = there_->value;
    move_to_minimiser(point, accuracy);
    double predicted = there_->value - value;
    if (std::abs(predicted) <= kRounding * std::abs(value))
      predicted = 0.5 * (point.gradient + there_->gradient).dot(there_->x - point.x);
    const VectorXd from_base = there_->x - sample_->base(), none = VectorXd::Zero(logits.size());
    std::array<double, 2> spans{sample_->span_local(logits_of(*there_), logits, there_->x - point.x),
                                sample_->span_local(sampled().A().multiply(from_base), none, from_base)};
    sampled().A().communicator().max(spans);
    Numbers numbers(found);
    numbers.put(expected_at(*there_));
    for (const double number : {predicted, spans[0], spans[1], has_projection ? 1.0 : 0.0}) numbers.put(number);
    if (has_projection) numbers.put(N.reshaped());
  });
  Numbers numbers(message);
  Next next;
  next.expected = numbers.take_expected(d);
  next.predicted = numbers.take();
  next.largest_u = numbers.take();
  next.moved = numbers.take();
  if (numbers.take() != 0) next.projection = numbers.take(probes() * d).reshaped(d, probes());
  return next;
}

bool SampledSurrogate::is_nearer(const Point& first, const Point& second) {
  const VectorXd answer = ask(1, [&](VectorXd& found) {
    const Preconditioner& M = sampled().preconditioner();
    const auto size = [&](const VectorXd& g) { return M.empty() ? g.squaredNorm() : g.dot(M.solve(g)); };
    found[0] = size(first.gradient) < size(second.gradient) ? 1 : 0;
  });
  return answer[0] != 0;
}

}  // namespace attnreg
