#include "heads/rank_by_holdout.hpp"

#include <algorithm>
#include <array>

#include "numbers/random.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr std::array<Index, 7> kRanks{64, 48, 40, 32, 24, 16, 8};
constexpr std::array<double, 5> kRidges{0, 1e-4, 1e-3, 1e-2, 1e-1};  // relative to the curvature of log-odds, 1
constexpr std::int64_t kShareHeldOut = 8;                            // one of so many
constexpr int kFirstSteps = 14, kNextSteps = 5, kStepsToCompare = 3;
constexpr int kProductsOfFull = 60;
constexpr double kFullTolerance = 1e-4;

bool can_hold_out(const std::vector<AttentionSequence>& sequences) {
  return sequences.size() > 1 || sequences[0].partition.rows_global() >= kShareHeldOut;
}

/// Two parts of the queries of all sequences: what is fitted, and what is held out.
class Halves {
 public:
  Halves(const Communicator& communicator, const std::vector<AttentionSequence>& sequences, const HeadTargets& head)
      : fitted_inputs_(communicator, sequences, {head}, selection(sequences, false)),
        held_inputs_(communicator, sequences, {head}, selection(sequences, true)),
        fitted_target_(fitted_inputs_, head),
        held_target_(held_inputs_, head) {}

  HeadPasses fitted(double ridge = 0) const { return with_metric(fitted_inputs_, fitted_target_, ridge); }
  HeadPasses held_out() const { return with_metric(held_inputs_, held_target_, 0); }
  const HeadInputs& inputs() const { return fitted_inputs_; }

 private:
  static HeadInputs::Selection selection(const std::vector<AttentionSequence>& sequences, bool held) {
    const auto count = std::ssize(sequences);
    if (count == 1) {
      const std::int64_t rows = sequences[0].partition.rows_global(),
                         first = rows - std::max<std::int64_t>(1, rows / kShareHeldOut);
      return [=](std::size_t, std::int64_t row) { return (row >= first) == held; };
    }
    const auto first = static_cast<std::size_t>(count - std::max<std::int64_t>(1, count / kShareHeldOut));
    return [=](std::size_t index, std::int64_t) { return (index >= first) == held; };
  }
  HeadPasses with_metric(const HeadInputs& inputs, const HeadTarget& target, double ridge) const {
    return {inputs, target, fitted_inputs_.query_metric(), fitted_inputs_.key_metric(), ridge};
  }

  HeadInputs fitted_inputs_, held_inputs_;
  HeadTarget fitted_target_, held_target_;
};

/// The first r columns of balanced factors: the best X of rank r in the metric of the logits.
HeadFactors truncated(const HeadPasses& passes, const HeadFactors& u, Index r) {
  HeadFactors result = passes.factors(r);
  result.U() = u.U().leftCols(r);
  result.V() = u.V().leftCols(r);
  return result;
}

}  // namespace

HeadFactors best_full(HeadPasses& passes, HeadFactors from, HeadLoss loss) {
  GaussNewtonOptions options;
  options.steps = 1;
  options.products = kProductsOfFull;
  options.damping = 0;
  options.forcing = kFullTolerance;
  return gauss_newton(passes, std::move(from), loss, options).u;
}

HeadFactors random_factors(const HeadPasses& passes, Index rank, std::uint64_t seed) {
  HeadFactors u = passes.factors(rank);
  RandomStream(seed, Purpose::head_start).normals(0, span_of(u.numbers()));
  return u;
}

HeldOutChoice rank_by_holdout(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                              const HeadTargets& head, HeadLoss loss, const HeadOptions& options) {
  const Halves halves(communicator, sequences, head);
  HeadPasses fitted = halves.fitted(), held_out = halves.held_out();
  Index shortest = std::numeric_limits<Index>::max();
  for (const auto& sequence : sequences)
    shortest = std::min({shortest, static_cast<Index>(sequence.partition.rows_global()), sequence.keys.rows()});
  const Index most = std::min({kRanks[0], std::max<Index>(shortest / 2, 1), halves.inputs().query_metric().dimension(),
                               halves.inputs().key_metric().dimension()});
  GaussNewtonOptions fit, compare;
  fit.steps = kFirstSteps;
  fit.rounding = compare.rounding = options.rounding;
  compare.steps = kStepsToCompare;
  compare.damping = 1e-4;
  HeldOutChoice choice;
  HeadFactors u = random_factors(fitted, most, options.seed);
  bool is_first = true;
  for (const Index rank : kRanks) {
    if (rank > most && !(is_first && rank == kRanks.back())) continue;
    const Index tried = std::min(rank, most);
    GaussNewtonEnd end = gauss_newton(fitted, truncated(fitted, u, is_first ? most : tried), HeadLoss::log_odds, fit);
    u = std::move(end.u);
    choice.steps += end.steps;
    fit.steps = kNextSteps;
    HeadFactors polished = u;
    if (loss != HeadLoss::log_odds) polished = gauss_newton(fitted, u, loss, compare).u;
    const double error = std::min(held_out.values(u).error, held_out.values(polished).error);
    if (is_first || error < choice.error) {
      choice.X = fitted.matrices(u);
      choice.rank = u.rank();
      choice.error = error;
    }
    is_first = false;
  }
  if (choice.rank == most) {  // else lower ranks do better, and so will not any X
    const HeadFactors full = best_full(fitted, fitted.factors(0));
    const double error = held_out.values(full).error;
    if (error < choice.error) {
      choice.X = fitted.matrices(full);
      choice.rank = 0;
      choice.error = error;
    }
  }
  choice.products = fitted.products();
  choice.reads = fitted.reads() + held_out.reads();
  return choice;
}

double ridge_by_holdout(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                        const HeadTargets& head) {
  if (!can_hold_out(sequences)) return 0;
  const Halves halves(communicator, sequences, head);
  HeadPasses held_out = halves.held_out();
  HeadFactors u = halves.fitted().factors(0);
  double best = 0, least = std::numeric_limits<double>::infinity();
  for (const double ridge : kRidges) {
    HeadPasses fitted = halves.fitted(ridge);
    u = best_full(fitted, std::move(u));
    const double error = held_out.values(u).error;
    if (!(error < least)) break;
    least = error;
    best = ridge;
  }
  return best;
}

}  // namespace attnreg
