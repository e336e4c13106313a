#include <algorithm>
#include <cmath>
#include <limits>

#include "algebra/blas_products.hpp"
#include "attnreg/attention_regression.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "heads/layer_starts.hpp"
#include "ranks/activity.hpp"
#include "ranks/root_clock.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr std::size_t kSequencesToHoldOut = 8;  // fewer cannot spare one
constexpr Index kMostOfRank = 64;
constexpr double kExact = 1e-10, kRoundings = 4;  // |F A3 Y - B| / |B| of an end that reproduces B
constexpr double kSameEnd = 1e-3;                 // relative, of the errors of starts that led to one minimum
constexpr int kOftenEnough = 6;
constexpr double kRidge = 0.05, kRidgeOfY = 0.01;  // the first ones: nothing but the largest directions survives
constexpr double kLastRidge = 1e-9;                // relative to these
constexpr double kEndOfStage = 0.005;  // relative decrease of L: with 0.02 some stages ended on their way to the head
constexpr int kStepsOfStage = 30, kStepsOfFit = 100;
constexpr double kFirstDamping = 1e-2, kNoChange = 3e-4;
constexpr double kWorse = 1.2;          // held-out error, relative to the least: the ridge has become too small
constexpr double kPredicts = 3;         // held-out error relative to that of the fit
constexpr double kSmallHeldOut = 1e-4;  // an error that needs no comparison

constexpr double kGood = 0.01;  // of a fit that predicts: no other start is tried
constexpr int kStagesOfDoubt = 3, kStarts = 24, kStartsOfLarge = 4;
constexpr Index kMostProducts = 60;

/// Some of the sequences, in their own metrics or in those of others.
struct LayerPart {
  HeadInputs inputs;
  Whitening values;
  LayerPasses passes;

  LayerPart(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
            const HeadInputs::Selection& selection, const LayerPart* metrics = nullptr)
      : inputs(communicator, sequences, {}, selection),
        values(metrics ? metrics->values : value_metric(inputs, sequences)),
        passes(inputs, sequences, metrics ? metrics->inputs.query_metric() : inputs.query_metric(),
               metrics ? metrics->inputs.key_metric() : inputs.key_metric(), values) {}
  LayerPart(const LayerPart&) = delete;
};

/// Where a fit ended.
struct LayerFit {
  HeadFactors u;
  double error = std::numeric_limits<double>::infinity(), held_out = LayerEnd::kNone;
  double level = 0;        ///< of the ridges
  bool converged = false;  ///< not at the limit of steps
  int steps = 0;

  double judged_by() const { return std::isnan(held_out) ? error : held_out; }
};

class LayerRecovery {
 public:
  LayerRecovery(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                const AttentionShape& shape, const LayerOptions& options)
      : communicator_(communicator),
        sequences_(sequences),
        options_(options),
        all_(communicator, sequences, {}),
        rank_(options.rank == LayerOptions::rank_from_data ? rank_of(shape) : options.rank) {
    rank_ = std::min({rank_, all_.inputs.query_metric().dimension(), all_.inputs.key_metric().dimension()});
    const bool is_large = shape.d1 * shape.d2 > options.dense_limit;
    with_ridge_ = rank_ > 0 || is_large;
    const int starts_of_large = options.Y ? 1 : kStartsOfLarge;
    most_starts_ = options.starts > 0 ? options.starts : is_large ? starts_of_large : kStarts;
    const auto kept = sequences.size() - sequences.size() / kSequencesToHoldOut;
    if (kept < sequences.size()) {
      result_.sequences_held_out = std::ssize(sequences) - static_cast<std::int64_t>(kept);
      fitted_.emplace(communicator, sequences, [=](std::size_t index, std::int64_t) { return index < kept; });
      held_out_.emplace(
          communicator, sequences, [=](std::size_t index, std::int64_t) { return index >= kept; }, &*fitted_);
    }
  }

  LayerResult run() {
    LayerPart& part = fitted_ ? *fitted_ : all_;
    LayerFit best = best_of_starts(part);
    if (fitted_) {
      const HeadMatrices X = part.passes.matrices(best.u);
      best.u = all_.passes.coordinates(X);
      name_ = "all sequences, ";
      prepare(all_);
      const double level = best.level, held_out = best.held_out;
      best = last_fit(all_, std::move(best.u), level);
      best.held_out = held_out;
    }
    take(best);
    judge(best);
    return std::move(result_);
  }

 private:
  Index rank_of(const AttentionShape& shape);
  void prepare(LayerPart& part);
  LayerFit best_of_starts(LayerPart& part);
  LayerFit fit(LayerPart& part, HeadFactors u);
  LayerFit last_fit(LayerPart& part, HeadFactors u, double level);
  void set_level(LayerPart& part, double level) const {
    part.passes.set_ridges({kRidge * level * size_, kRidgeOfY * level});
  }
  LayerFit minimised(LayerPart& part, HeadFactors u, double level, const GaussNewtonOptions& options);
  bool is_exact(double error) const { return error <= std::max(kExact, kRoundings * options_.rounding); }
  void take(const LayerFit& best);
  void judge(const LayerFit& best);

  const Communicator& communicator_;
  const std::vector<AttentionSequence>& sequences_;
  const LayerOptions& options_;
  LayerResult result_;  // first: what follows writes notes
  LayerPart all_;
  std::optional<LayerPart> fitted_, held_out_;
  Index rank_;
  std::string name_;  ///< what is fitted, for who watches
  bool with_ridge_ = false;
  int most_starts_ = 0;
  double size_ = 0;  ///< |F A3 Y - B|^2 per query with uniform attention
};

Index LayerRecovery::rank_of(const AttentionShape& shape) {
  if (shape.d1 * shape.d2 <= options_.dense_limit) return 0;
  const Index rank = std::min({kMostOfRank, shape.dv, shape.d1, shape.d2});
  result_.notes.push_back("rank " + std::to_string(rank) + ": " +
                          (rank == shape.dv ? "as many as B has columns, as in a head"
                                            : "the largest that is tried without being asked for"));
  return rank;
}

/// Holds the given Y, and measures what uniform attention leaves.
void LayerRecovery::prepare(LayerPart& part) {
  if (options_.Y) {
    MatrixXd Y = part.values.coordinates(*options_.Y);
    communicator_.broadcast(span_of(Y));
    part.passes.hold(std::move(Y));
  }
  part.passes.set_ridges({0, kRidgeOfY});
  if (with_ridge_)
    size_ = part.passes.linearise(part.passes.factors(0)).misfit / static_cast<double>(part.inputs.queries());
}

LayerFit LayerRecovery::best_of_starts(LayerPart& part) {
  prepare(part);
  LayerFit best;
  for (int k = 0; k < most_starts_; ++k) {
    part.passes.set_ridges({});
    name_ = "start " + std::to_string(k + 1) + " of at most " + std::to_string(most_starts_) + ", ";
    note_activity(name_ + "first steps");
    LayerStart start = layer_start(part.passes, rank_, options_.Y.has_value(), k, options_.seed);
    LayerFit end = fit(part, std::move(start.u));
    result_.ends.push_back({start.name, end.error, end.held_out});
    const double error = end.error;
    if (k == 0 || end.judged_by() < best.judged_by()) {
      best = std::move(end);
      result_.best = k;
    }
    const auto same = std::ranges::count_if(result_.ends, [&](const LayerEnd& other) {
      return std::abs(other.error - best.error) <= kSameEnd * best.error;
    });
    const bool is_good = error <= kGood && result_.ends.back().held_out <= kPredicts * error;
    if (is_exact(error) || is_good || same >= kOftenEnough) break;
  }
  return best;
}

/// From a start to its end: with ridges, through one stage after another in which they are lower.
LayerFit LayerRecovery::fit(LayerPart& part, HeadFactors u) {
  if (!with_ridge_) return last_fit(part, std::move(u), 0);
  GaussNewtonOptions options;
  options.steps = kStepsOfStage;
  options.no_change = kEndOfStage;
  LayerFit now, best;
  now.u = std::move(u);
  int doubts = 0;
  for (double level = 1; level > kLastRidge && !is_exact(now.error); level *= now.steps <= 1 ? 0.1 : 0.5) {
    now = minimised(part, std::move(now.u), level, options);
    doubts = now.held_out > kWorse * best.held_out ? doubts + 1 : 0;
    if (!(now.judged_by() > best.judged_by())) best = now;
    if (doubts == kStagesOfDoubt) return best;
  }
  LayerFit last = last_fit(part, std::move(now.u), 0);
  return last.judged_by() <= best.judged_by() ? last : best;
}

/// To the minimum.
LayerFit LayerRecovery::last_fit(LayerPart& part, HeadFactors u, double level) {
  GaussNewtonOptions options;
  options.steps = kStepsOfFit;
  options.products = static_cast<int>(std::min(u.size(), kMostProducts));
  options.damping = kFirstDamping;
  options.no_change = kNoChange;
  options.tolerance = 0;
  return minimised(part, std::move(u), level, options);
}

LayerFit LayerRecovery::minimised(LayerPart& part, HeadFactors u, double level, const GaussNewtonOptions& options) {
  LayerPasses& passes = part.passes;
  set_level(part, level);
  const double rounding = options_.rounding;
  GaussNewtonOptions with_journal = options;
  with_journal.journal = options_.journal;
  with_journal.name = name_;
  GaussNewtonEnd end = minimise(passes, std::move(u), 0.5 * rounding * rounding * passes.target_square(), with_journal);
  result_.steps += end.steps;
  const LayerPoint point = passes.linearise(end.u);
  LayerFit fit{std::move(end.u), 0, LayerEnd::kNone, level, end.converged, end.steps};
  if (point.misfit > 0) fit.error = std::sqrt(point.misfit / passes.target_square());
  if (held_out_ && &part == &*fitted_) fit.held_out = held_out_->passes.error(fit.u, point.Y);
  return fit;
}

void LayerRecovery::take(const LayerFit& best) {
  set_level(all_, best.level);
  const LayerPoint point = all_.passes.linearise(best.u);
  const BalancedFactors end = balanced(communicator_, best.u);
  const HeadMatrices X = all_.passes.matrices(end.u);
  result_.rank = rank_;
  result_.error = best.error;
  result_.is_exact = is_exact(best.error);
  result_.converged = best.converged;
  result_.unknowns.Y = options_.Y ? *options_.Y : RowMajorMatrix(times(all_.values.W, point.Y));
  if (rank_ == 0) {
    result_.unknowns.X = X.P;
  } else {
    result_.P = X.P;
    result_.Q = X.Q;
    result_.unknowns.X = times_transposed(X.P, X.Q);
    result_.singular_values = end.values;
  }
  for (auto* matrix : {&result_.unknowns.X, &result_.unknowns.Y, &result_.P, &result_.Q})
    communicator_.broadcast(span_of(*matrix));
  for (const LayerPart* part : {&all_, fitted_ ? &*fitted_ : nullptr})
    if (part) {
      result_.products += part->passes.products();
      result_.reads += part->passes.reads();
    }
  const auto k1 = static_cast<double>(all_.inputs.query_metric().dimension()),
             k2 = static_cast<double>(all_.inputs.key_metric().dimension()), r = static_cast<double>(rank_);
  const auto Y = static_cast<double>(options_.Y ? 0 : all_.passes.value_dimension() * all_.passes.columns());
  result_.equations = static_cast<double>(all_.inputs.queries() * all_.passes.columns());
  result_.unknown_numbers = (rank_ == 0 ? k1 * k2 : r * (k1 + k2 - r)) + Y;
}

/// Says what cannot be claimed.
void LayerRecovery::judge(const LayerFit& best) {
  const bool predicts = best.held_out <= std::max(kSmallHeldOut, kPredicts * result_.error);
  const std::string more = options_.Y ? "give more sequences" : "give more sequences, or Y if it is known";
  if (result_.equations < result_.unknown_numbers)
    result_.warnings.push_back("B has " + text_of(result_.equations) + " numbers for " +
                               text_of(result_.unknown_numbers) +
                               " unknowns: many X reproduce it, and this one need not be that of the layer; " + more);
  if (!std::isnan(best.held_out) && !predicts)
    result_.warnings.push_back(
        "fits, but does not predict: outputs are reproduced up to " + text_of(result_.error) +
        ", those of the sequences that were held out from the starts up to " + text_of(best.held_out) +
        " only. The head has not been found, and the attention of this X is most likely wrong; " + more);
  else if (std::isnan(best.held_out) && !result_.is_exact)
    result_.warnings.push_back("the lowest of " + std::to_string(result_.ends.size()) + " starts leaves " +
                               text_of(result_.error) +
                               " of B: unless that is the noise of B, it is a local minimum, and its attention is not "
                               "that of the layer; try more starts, or " +
                               more);
}

}  // namespace

LayerResult recover_layer(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                          const LayerOptions& options) {
  const AttentionShape shape = check_sequences(communicator, sequences, "softmax");
  require(shape.dv > 0, "a layer needs values; recover_heads is for attention matrices");
  require(options.rank >= LayerOptions::rank_from_data && options.rank <= std::min(shape.d1, shape.d2),
          "the rank is " + std::to_string(options.rank) +
              ", expected 0 to min(d1, d2) = " + std::to_string(std::min(shape.d1, shape.d2)));
  require(options.starts >= 0, "the number of starts must be >= 0");
  require(options.dense_limit >= 1, "dense_limit must be at least 1");
  require(options.rounding > 0 && options.rounding < 1, "the rounding of B must be between 0 and 1");
  if (options.Y) {
    require(options.Y->rows() == shape.d3 && options.Y->cols() == shape.dv,
            "Y is " + std::to_string(options.Y->rows()) + " x " + std::to_string(options.Y->cols()) + ", expected " +
                std::to_string(shape.d3) + " x " + std::to_string(shape.dv));
    require(options.Y->allFinite(), "Y has numbers that are not finite");
  }
  RootClock clock(communicator);
  LayerResult result = LayerRecovery(communicator, sequences, shape, options).run();
  result.seconds = clock.sum(communicator);
  return result;
}

}  // namespace attnreg
