#include <algorithm>
#include <array>
#include <cmath>
#include <ctime>

#include "algebra/blas_products.hpp"
#include "attnreg/attention_regression.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "heads/gauss_newton.hpp"
#include "heads/rank_by_holdout.hpp"
#include "heads/subspace_start.hpp"
#include "ranks/activity.hpp"
#include "ranks/root_clock.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr double kGoodError = 0.1;  // of log-odds; above, noise of small b may rule them
constexpr double kHopeless = 1;     // an error from which no other fit should start
constexpr double kOfLogOdds = 1e-3, kOfLastLogOdds = 1e-6, kOfLoss = 1e-4;  // tolerances of the gradient
constexpr int kPolishSteps = 40, kPolishProducts = 40;
constexpr int kLastSteps = 100;  // on log-odds, where nothing is polished, or from random factors
constexpr double kPolishDamping = 1e-4;
constexpr double kNumbersToPolish = 10;  // of B, for each number of an X of any rank
constexpr double kRoundingOfFloat = 0x1p-23;
constexpr double kLeastRounding = 16 * 0x1p-52;  // what logarithms and products of double add
constexpr double kAmbiguous = 0.01;  // 1 - next_common below that, and 100 times 1 - common: another X does as well

HeadLoss loss_of(const std::string& name) {
  if (name == "log-odds") return HeadLoss::log_odds;
  if (name == "softmax") return HeadLoss::softmax;
  require(name == "cross-entropy", "the loss is " + printable(name) + ", expected log-odds, cross-entropy or softmax");
  return HeadLoss::cross_entropy;
}

/// What heads with the same inputs share, and what one head tells the next.
struct Layer {
  const Communicator& communicator;
  const std::vector<AttentionSequence>& sequences;
  const HeadOptions& options;
  HeadInputs inputs;
  std::optional<SubspaceFrame> frame;  ///< of heads with a target everywhere
  Index last_rank = 0;
  std::string name{};  ///< of the head at hand, "head 3 of 12, "; empty where there is one
};

/// The recovery of one head, step by step.
class HeadRecovery {
 public:
  HeadRecovery(Layer& layer, const HeadTargets& head, std::shared_ptr<Journal> journal)
      : layer_(layer),
        journal_(std::move(journal)),
        options_(layer.options),
        head_(head),
        loss_(loss_of(options_.loss)),
        target_(layer.inputs, head),
        passes_(layer.inputs, target_, layer.inputs.query_metric(), layer.inputs.key_metric(),
                options_.weight * options_.weight) {
    result_.zeros = target_.zeros();
    result_.resolution = target_.resolution();
  }

  HeadResult run() {
    HeadFactors u = start();
    HeadValues values = passes_.values(u);
    if (!is_exact(values, HeadLoss::log_odds)) {
      u = fit_log_odds(std::move(u), HeadLoss::log_odds);
      values = passes_.values(u);
    }
    result_.log_odds_error = values.error;
    if (loss_ != HeadLoss::log_odds) {
      if (!(values.error <= kGoodError)) use_weighted(u, values);
      if (!is_exact(values, loss_) && is_to_be_polished(u)) polish(u, values);
      if (!is_to_be_polished(u))
        result_.notes.push_back("log-odds only: any X has too many numbers beside those of B for a fit of " +
                                options_.loss + " that predicts; a rank predicts better");
    }
    take(u, values);
    return std::move(result_);
  }

 private:
  bool is_exact(const HeadValues& values, HeadLoss loss) const;
  bool is_to_be_polished(const HeadFactors& u) const;
  HeadFactors start();
  HeadFactors start_of_full();
  std::optional<HeadFactors> subspace_start();
  HeadFactors fit_log_odds(HeadFactors u, HeadLoss loss);
  void use_weighted(HeadFactors& u, HeadValues& values);
  void polish(HeadFactors& u, HeadValues& values);
  void take(const HeadFactors& u, const HeadValues& values);
  void describe(const SubspaceStart::Result& found, const SubspaceStart::Equations& equations);

  Layer& layer_;
  std::shared_ptr<Journal> journal_;
  const HeadOptions& options_;
  const HeadTargets& head_;
  HeadLoss loss_;
  HeadTarget target_;
  HeadResult result_;
  FullChoice full_;       ///< of an X of any rank
  Index plain_rank_ = 0;  ///< known from a gap, without a start
  bool is_random_ = false;
  HeadPasses passes_;
};

/// Whether what is left of the loss is the rounding of B.
bool HeadRecovery::is_exact(const HeadValues& values, HeadLoss loss) const {
  if (options_.weight > 0) return false;
  // Log-odds from B of few digits have more to tell than each number on its own.
  const double finest = loss == HeadLoss::log_odds ? std::min(options_.rounding, kRoundingOfFloat) : options_.rounding;
  const double rounding = std::max(finest, kLeastRounding);
  return values.of(loss) <= rounding * rounding * loss_at_zero(target_, loss);
}

/// Of any X the loss is not for fitting where it has nearly as many numbers as B: its minimum predicts worse than
/// log-odds whose ridge and truncation are known to predict.
bool HeadRecovery::is_to_be_polished(const HeadFactors& u) const {
  return !u.is_full() || options_.weight > 0 ||
         target_.visible_numbers() >= kNumbersToPolish * static_cast<double>(u.size());
}

HeadFactors HeadRecovery::start() {
  if (options_.rank == 0) return start_of_full();
  if (auto found = subspace_start()) return *std::move(found);
  if (const Index rank = std::max(options_.rank, plain_rank_); rank > 0) {
    result_.notes.push_back("random start: what is observed of queries and keys in rectangles with more than rank " +
                            std::to_string(rank) + " on both sides is not enough");
    is_random_ = true;
    return random_factors(passes_, rank, options_.seed);
  }
  const HeldOutChoice choice = rank_by_holdout(layer_.communicator, layer_.sequences, head_, loss_, options_, journal_);
  result_.rank_source = RankSource::hold_out;
  result_.steps += choice.steps;
  result_.products += choice.products;
  result_.reads += choice.reads;
  result_.notes.push_back("rank " + std::to_string(choice.rank) + (choice.rank == 0 ? " (any X)" : "") +
                          " by hold-out: error " + text_of(choice.error) +
                          " on sequences left out; the spectrum of the log-odds has no gap");
  return passes_.coordinates(choice.X);
}

/// How the linear problem of any X is to be solved, and from where.
HeadFactors HeadRecovery::start_of_full() {
  if (options_.weight == 0) full_ = full_by_holdout(layer_.communicator, layer_.sequences, head_);
  result_.products += full_.products;
  result_.reads += full_.reads;
  if (full_.reads > 0)
    result_.notes.push_back("any X, by hold-out: ridge " + text_of(full_.ridge) +
                            (full_.rank > 0
                                 ? ", truncated to its first " + std::to_string(full_.rank) + " singular values"
                                 : ", not truncated") +
                            "; error " + text_of(full_.error) + " on sequences left out");
  return full_.reads > 0 ? passes_.coordinates(full_.X) : passes_.factors(0);
}

std::optional<HeadFactors> HeadRecovery::subspace_start() {
  std::optional<SubspaceFrame> own;
  const bool shared = layer_.inputs.is_whole() && target_.is_dense();
  std::optional<SubspaceFrame>& frame = shared ? layer_.frame : own;
  if (!frame) frame.emplace(layer_.inputs, target_);
  if (frame->largest_side() == 0) return std::nullopt;
  SubspaceStart start(*frame, target_);
  Index rank = options_.rank;
  RankGap gap;
  if (rank == HeadOptions::rank_from_data) {
    gap = start.rank_of_gap(layer_.last_rank);
    rank = gap.rank;
  }
  rank = std::min({rank, layer_.inputs.query_metric().dimension(), layer_.inputs.key_metric().dimension()});
  if (!start.serves(rank)) return std::nullopt;
  const SubspaceStart::Equations equations = start.equations(rank);
  // What few rectangles say may be their own; of sequences with targets everywhere nobody knows more.
  const bool serves = (target_.is_dense() || equations.suffice()) &&
                      rank <= std::min(frame->query_metric().dimension(), frame->key_metric().dimension());
  if (!serves && !gap.is_plain()) return std::nullopt;
  layer_.last_rank = rank;
  if (gap.rank > 0) {
    result_.rank_source = RankSource::gap;
    result_.gap = gap.ratio;
  }
  if (!serves) {
    plain_rank_ = rank;
    return std::nullopt;
  }
  const SubspaceStart::Result found = start.find(rank, equations);
  describe(found, equations);
  return passes_.coordinates(found.X);
}

void HeadRecovery::describe(const SubspaceStart::Result& found, const SubspaceStart::Equations& equations) {
  result_.equations = equations.count;
  result_.unknowns = equations.unknowns;
  result_.common = found.last;
  result_.next_common = found.next;
  const bool few = !equations.suffice();
  if (few || 1 - found.next < std::min(kAmbiguous, 100 * std::max(1 - found.last, 1e-12)))
    result_.warnings.push_back(
        "the sequences hardly determine X: " +
        (few ? text_of(equations.count) + " equations for " + text_of(equations.unknowns) +
                   " numbers of each column of P"
             : "eigenvalue r + 1 of their common subspace is " + text_of(found.next) + ", near 1") +
        "; a small error here says nothing of other sequences: give more of them, or a lower rank");
}

HeadFactors HeadRecovery::fit_log_odds(HeadFactors u, HeadLoss loss) {
  if (u.is_full()) {
    u = fit_full_from(passes_, loss, full_.ridge, std::move(u));
    return full_.rank > 0 ? truncated_full(passes_, u, full_.rank) : u;
  }
  GaussNewtonOptions options;
  options.journal = journal_;
  options.name = layer_.name;
  if (loss_ == HeadLoss::log_odds || is_random_) options.steps = kLastSteps;
  // Gradients of random starts are too large to measure an end by.
  options.tolerance = is_random_ ? 0 : loss_ == HeadLoss::log_odds ? kOfLastLogOdds : kOfLogOdds;
  options.rounding = std::min(options_.rounding, kRoundingOfFloat);
  GaussNewtonEnd end = gauss_newton(passes_, std::move(u), loss, options);
  result_.steps += end.steps;
  result_.converged = end.converged;
  return std::move(end.u);
}

/// Small b may be noise, and log-odds count all alike: with weights b, too; the lower loss is kept.
void HeadRecovery::use_weighted(HeadFactors& u, HeadValues& values) {
  const bool hopeless = !(values.error < kHopeless);
  const HeadFactors from = !hopeless     ? u
                           : u.is_full() ? passes_.factors(0)
                                         : random_factors(passes_, u.rank(), options_.seed);
  const HeadFactors other = fit_log_odds(from, HeadLoss::weighted_log_odds);
  const HeadValues there = passes_.values(other);
  if (!(there.of(loss_) < values.of(loss_))) return;
  u = other;
  values = there;
}

void HeadRecovery::polish(HeadFactors& u, HeadValues& values) {
  auto [G, H] = curvature_grams(layer_.inputs, target_, loss_);
  const Whitening queries = whitening(layer_.communicator, std::move(G)),
                  keys = whitening(layer_.communicator, std::move(H));
  if (queries.dimension() == 0 || keys.dimension() == 0) return;  // the loss is flat
  HeadPasses passes(layer_.inputs, target_, queries, keys, options_.weight * options_.weight);
  GaussNewtonOptions options;
  options.journal = journal_;
  options.name = layer_.name + "polish, ";
  options.steps = kPolishSteps;
  options.products = kPolishProducts;
  options.tolerance = kOfLoss;
  options.damping = kPolishDamping;
  options.rounding = options_.rounding;
  const GaussNewtonEnd end = gauss_newton(passes, passes.coordinates(passes_.matrices(u)), loss_, options);
  result_.polish_steps = end.steps;
  result_.converged = end.converged;
  result_.products += passes.products();
  result_.reads += passes.reads();
  if (end.steps == 0) return;
  HeadFactors polished = passes_.coordinates(passes.matrices(end.u));
  const HeadValues there = passes_.values(polished);
  if (options_.weight == 0 && !(there.of(loss_) < values.of(loss_))) return;
  u = std::move(polished);
  values = there;
}

void HeadRecovery::take(const HeadFactors& u, const HeadValues& values) {
  result_.rank = u.rank();
  result_.error = values.error;
  result_.divergence = target_.total() > 0 ? values.cross_entropy / target_.total() : 0;
  const BalancedFactors end = balanced(layer_.communicator, u);
  HeadMatrices X = passes_.matrices(end.u);
  if (u.is_full()) {
    result_.X = X.P;
  } else {
    const VectorXd roots = end.values.cwiseMax(0).cwiseSqrt();
    const bool moves = options_.split == HeadSplit::orthogonal && (roots.array() > 0).all();
    result_.P = moves ? MatrixXd(X.P * roots.asDiagonal()) : X.P;
    result_.Q = moves ? MatrixXd(X.Q * roots.cwiseInverse().asDiagonal()) : X.Q;
    result_.X = times_transposed(X.P, X.Q);
    result_.singular_values = end.values;
  }
  for (auto* matrix : {&result_.X, &result_.P, &result_.Q}) layer_.communicator.broadcast(span_of(*matrix));
  result_.products += passes_.products();
  result_.reads += passes_.reads() + 1;  // and the logarithms
}

/// Collective. CPU time of all threads of all processes.
double process_seconds(const Communicator& communicator) {
  const double own = static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return communicator.sum(communicator.leads_process() ? own : 0);
}

/// Names what no data of these sequences can tell.
std::vector<std::string> null_directions(const HeadInputs& inputs) {
  std::vector<std::string> names;
  const Index of_queries = inputs.query_metric().null_directions.cols(),
              of_keys = inputs.key_metric().null_directions.cols();
  if (of_queries > 0)
    names.push_back(std::to_string(of_queries) + ": n y^T with A1 n = 0, which no query has a part in");
  if (of_keys > 0)
    names.push_back(std::to_string(of_keys) +
                    ": y v^T with A2 v the same number for all keys of a sequence, which softmax does not see; of "
                    "inputs behind LayerNorm there is one");
  return names;
}

}  // namespace

std::vector<HeadResult> recover_heads(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                                      const std::vector<std::vector<AttentionMatrix>>& heads,
                                      const HeadOptions& options) {
  const AttentionShape shape = check_sequences(communicator, sequences, "cross-entropy", heads.empty());
  loss_of(options.loss);
  require(options.rank >= HeadOptions::rank_from_data && options.rank <= std::min(shape.d1, shape.d2),
          "the rank is " + std::to_string(options.rank) +
              ", expected 0 to min(d1, d2) = " + std::to_string(std::min(shape.d1, shape.d2)));
  require(options.weight >= 0 && std::isfinite(options.weight), "the weight must be a number >= 0");
  require(options.rounding > 0 && options.rounding < 1, "the rounding of B must be between 0 and 1");
  std::vector<HeadTargets> targets;
  for (const auto& head : heads) targets.push_back(targets_of(sequences, head));
  if (heads.empty()) targets.push_back(targets_of(sequences, {}));
  check_targets(communicator, sequences, targets);
  RootClock clock(communicator);
  const double before_all = process_seconds(communicator);
  note_activity("steps of the start");
  Layer layer{communicator, sequences, options, HeadInputs(communicator, sequences, targets), {}, 0};
  std::vector<HeadResult> results;
  std::array before{0.0, before_all};
  for (const auto& target : targets) {
    const auto journal = options.journal ? options.journal->part("head " + std::to_string(results.size())) : nullptr;
    if (targets.size() > 1)
      layer.name = "head " + std::to_string(results.size() + 1) + " of " + std::to_string(targets.size()) + ", ";
    note_activity(layer.name + "steps of the start");
    results.push_back(HeadRecovery(layer, target, journal).run());
    results.back().null_directions = null_directions(layer.inputs);
    results.back().has_query_constant = layer.inputs.has_query_constant();
    const std::array now{clock.sum(communicator), process_seconds(communicator)};
    results.back().seconds = now[0] - before[0];
    results.back().cpu_seconds = now[1] - before[1];
    before = now;
  }
  return results;
}

}  // namespace attnreg
