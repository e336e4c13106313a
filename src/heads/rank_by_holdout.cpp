#include "heads/rank_by_holdout.hpp"

#include <algorithm>
#include <array>
#include <ranges>
#include <utility>

#include "algebra/dense_factors.hpp"
#include "numbers/random.hpp"
#include "ranks/activity.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr std::array<Index, 7> kRanks{64, 48, 40, 32, 24, 16, 8};
constexpr std::array<Index, 10> kTruncations{192, 128, 96, 64, 48, 40, 32, 24, 16, 8};
const std::vector<double> kRidges{0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1};  // relative to the curvature of log-odds, 1
constexpr double kConvergedShift = 1e-10;  // of a residual, relative to that of the smallest ridge
constexpr std::int64_t kShareHeldOut = 8;  // one of so many
constexpr int kFirstSteps = 14, kNextSteps = 5, kStepsToCompare = 3;
constexpr int kProductsOfFull = 120;
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

  HeadPasses fitted() const { return with_metric(fitted_inputs_, fitted_target_); }
  HeadPasses held_out() const { return with_metric(held_inputs_, held_target_); }
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
  HeadPasses with_metric(const HeadInputs& inputs, const HeadTarget& target) const {
    return {inputs, target, fitted_inputs_.query_metric(), fitted_inputs_.key_metric()};
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

/// A full U as a product, singular vectors in descending order.
HeadFactors as_factors(const HeadPasses& passes, const HeadFactors& full) {
  HeadFactors whole = passes.factors(std::min(full.U().rows(), full.U().cols()));
  if (passes.inputs().communicator().is_root()) {
    const ThinSvd svd = thin_svd(full.U());
    whole.U() = svd.U * svd.values.asDiagonal();
    whole.V() = svd.V;
  }
  passes.inputs().communicator().broadcast(span_of(whole.numbers()));
  return whole;
}

}  // namespace

namespace {

/// The solution with another ridge, which follows that with the smallest: its residual is zeta r.
struct ShiftedSolution {
  double shift;
  VectorXd x, p;
  double before = 1, zeta = 1;
};

/// Conjugate gradients on (J^T C J + ridge) x = -gradient of `from`, whose x is added to; `others` begin at 0.
HeadFactors solve_full(HeadPasses& passes, HeadLoss loss, double ridge, HeadFactors from,
                       std::vector<ShiftedSolution>& others) {
  const HeadLinearisation around = passes.linearise(from, loss);
  VectorXd r = -around.gradient - ridge * from.numbers(), p = r;
  for (auto& other : others) other.p = r;
  double rr = r.squaredNorm(), step = 1, growth = 0;
  // What is left is compared with the gradient at 0, not with that of a good start.
  const double size = from.numbers().isZero(0) ? rr : passes.linearise(passes.factors(0), loss).gradient.squaredNorm();
  InSteps products(kProductsOfFull);
  for (int k = 0; k < kProductsOfFull && rr > kFullTolerance * kFullTolerance * size; ++k) {
    products.next("any X by conjugate gradients");
    const VectorXd h = passes.product(from, around, p) + ridge * p;
    const double curvature = p.dot(h), last_step = std::exchange(step, rr / curvature);
    if (!(curvature > 0)) break;
    from.numbers() += step * p;
    r -= step * h;
    const double before = std::exchange(rr, r.squaredNorm());
    for (auto& other : others) {
      if (other.zeta < kConvergedShift) continue;
      const double next =
          other.zeta * other.before * last_step /
          (last_step * other.before * (1 + other.shift * step) + step * growth * (other.before - other.zeta));
      const double ratio = next / other.zeta;
      other.x += step * ratio * other.p;
      other.p = next * r + rr / before * ratio * ratio * other.p;
      other.before = std::exchange(other.zeta, next);
    }
    growth = rr / before;
    p = r + growth * p;
  }
  return from;
}

}  // namespace

std::vector<HeadFactors> fit_full(HeadPasses& passes, HeadLoss loss, const std::vector<double>& ridges) {
  const HeadFactors zero = passes.factors(0);
  std::vector<ShiftedSolution> others;
  for (const double ridge : ridges | std::views::drop(1)) others.push_back({ridge - ridges[0], zero.numbers(), {}});
  std::vector<HeadFactors> solutions{solve_full(passes, loss, ridges[0], zero, others)};
  for (auto& other : others) solutions.push_back(zero.with(std::move(other.x)));
  return solutions;
}

HeadFactors fit_full_from(HeadPasses& passes, HeadLoss loss, double ridge, HeadFactors from) {
  std::vector<ShiftedSolution> none;
  return solve_full(passes, loss, ridge, std::move(from), none);
}

HeadFactors truncated_full(const HeadPasses& passes, const HeadFactors& u, Index rank) {
  const HeadFactors whole = as_factors(passes, u);
  HeadFactors result = u;
  result.U() = times_transposed(whole.U().leftCols(rank), whole.V().leftCols(rank));
  return result;
}

HeadFactors random_factors(const HeadPasses& passes, Index rank, std::uint64_t seed) {
  HeadFactors u = passes.factors(rank);
  RandomStream(seed, Purpose::head_start).normals(0, span_of(u.numbers()));
  return u;
}

HeldOutChoice rank_by_holdout(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                              const HeadTargets& head, HeadLoss loss, const HeadOptions& options,
                              const std::shared_ptr<Journal>& journal) {
  const Halves halves(communicator, sequences, head);
  HeadPasses fitted = halves.fitted(), held_out = halves.held_out();
  Index shortest = std::numeric_limits<Index>::max();
  for (const auto& sequence : sequences)
    shortest = std::min({shortest, static_cast<Index>(sequence.partition.rows_global()), sequence.keys.rows()});
  const Index most = std::min({kRanks[0], std::max<Index>(shortest / 2, 1), halves.inputs().query_metric().dimension(),
                               halves.inputs().key_metric().dimension()});
  GaussNewtonOptions fit, compare;
  fit.journal = compare.journal = journal;
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
    fit.name = compare.name = "hold-out with rank " + std::to_string(is_first ? most : tried) + ", ";
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
    const HeadFactors full = fit_full(fitted, HeadLoss::log_odds, {0})[0];
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

FullChoice full_by_holdout(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                           const HeadTargets& head) {
  FullChoice choice;
  if (!can_hold_out(sequences)) return choice;
  const Halves halves(communicator, sequences, head);
  HeadPasses fitted = halves.fitted(), held_out = halves.held_out();
  const std::vector<HeadFactors> found = fit_full(fitted, HeadLoss::log_odds, kRidges);
  std::size_t best = 0;
  for (std::size_t k = 0; k < found.size(); ++k) {
    const double error = held_out.values(found[k]).error;
    if (k > 0 && !(error < choice.error)) break;
    best = k;
    choice.error = error;
  }
  choice.ridge = kRidges[best];
  choice.X = fitted.matrices(found[best]);
  const HeadFactors whole = as_factors(fitted, found[best]);
  for (const Index rank : kTruncations) {
    if (rank >= whole.rank()) continue;
    const double error = held_out.values(truncated(fitted, whole, rank)).error;
    if (!(error < choice.error)) continue;
    choice.error = error;
    choice.rank = rank;
  }
  choice.products = fitted.products();
  choice.reads = fitted.reads() + held_out.reads();
  return choice;
}

}  // namespace attnreg
