#include "surrogate/row_scores.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>

#include "numbers/row_sums.hpp"
#include "objective/row_parts.hpp"
#include "ranks/span_of.hpp"
#include "rows/row_passes.hpp"

namespace attnreg {

namespace {

constexpr double kFirstRows = 30;  // by curvature, times d
constexpr double kMassRows = 20;   // by f, times d
constexpr double kEvenly = 0.05;   // share of the rows by scores
constexpr double kLargestSum = 2;  // of the scores over d: above, the model is too small, and they are scaled down

/// The share of w^2 that a sample has to find out: none where its Gram matrix is known.
double sampled_ridge(const RegressionObjective& objective) { return objective.replicated_ridge_gram() ? 0 : 1; }

/// An expression: it takes no memory. ridge: the share of w^2.
auto scores_of(const RegressionObjective& objective, const Point& point, const VectorXd& t, double ridge = 1) {
  const VectorXd& delta = objective.curvatures(point).delta;
  return ((delta.array().abs() + ridge * objective.weights_squared().array()) * t.array()).min(1.0);
}

/// f of some rows, but for the rounding of the normaliser.
VectorXd fitted_by(const RegressionObjective& objective, const RegressionState& state, Index first, Index rows) {
  VectorXd logits = state.z.segment(first, rows);
  if (objective.logit_offsets().are_there())
    objective.logit_offsets().add_to(part(state.z, first, rows), first, span_of(logits));
  return (logits.array() - state.loss.reference).exp();
}

}  // namespace

VectorXd first_probabilities(const RegressionObjective& objective, const Point& point) {
  const RowMatrix& A = objective.A();
  const auto d = static_cast<double>(A.columns()), n = static_cast<double>(A.rows_global());
  // Expressions, which are made where they are used: each would be a vector of rows.
  const LogitOffsets& offsets = objective.logit_offsets();
  const VectorXd unmasked = offsets.mask_rows() ? offsets.without_masked(objective.columns().row_norms()) : VectorXd();
  const auto norms = (offsets.mask_rows() ? unmasked : objective.columns().row_norms()).array();
  const auto w2 = sampled_ridge(objective) * objective.weights_squared().array();
  const auto b = objective.b().array(), delta = objective.curvatures(point).delta.array();
  const auto to_come = (b.square() + w2) * norms.square();
  const auto now = (delta.abs() + w2) * norms.square();
  const auto mass = b.max(0.0);
  std::array<double, 4> sums{to_come.sum(), now.sum(), norms.sum(), mass.sum()};
  A.communicator().sum(sums);
  const auto share = [&](const auto& rows, std::size_t k) {
    return rows / std::max(sums[k], std::numeric_limits<double>::min());
  };
  return (kFirstRows * d * (share(to_come, 0) + 0.5 * share(norms, 2) + 0.5 * share(now, 1)) +
          0.5 * kMassRows * d * (share(mass, 3) + 1 / n))
      .min(1.0);
}

namespace {

/// The sums of rows with these curvatures, f and delta at hand, whatever holds them.
class ScoreSums {
 public:
  ScoreSums(const RegressionObjective& objective, const VectorXd& t, double c, const VectorXd& present)
      : objective_(objective),
        t_(t),
        present_(present),
        c_(c),
        ridge_(sampled_ridge(objective)),
        d_(static_cast<double>(objective.A().columns())),
        n_(static_cast<double>(objective.A().rows_global())) {}

  void add(Index first, std::span<const double> f_of_rows, std::span<const double> delta_of_rows, double factor,
           double* sums) const {
    const auto rows = static_cast<Index>(f_of_rows.size());
    const Eigen::Map<const Eigen::ArrayXd> f(f_of_rows.data(), rows), delta(delta_of_rows.data(), rows);
    const auto t = t_.segment(first, rows).array(), present = present_.segment(first, rows).array();
    const auto w2 = objective_.weights_squared().segment(first, rows).array();
    const Eigen::ArrayXd score = ((delta.abs() + ridge_ * w2) * t).min(1.0), square = score.square();
    const Eigen::ArrayXd once = probability(c_, factor, score, f), twice = probability(2 * c_, factor, score, f);
    sums[0] += ridge_ == 1 ? score.sum() : ((delta.abs() + w2) * t).min(1.0).sum();
    sums[1] += variance(square, present);
    sums[2] += variance(square, once);
    sums[3] += variance(square, twice);
    sums[4] += once.sum();
    sums[5] += twice.sum();
  }

 private:
  Eigen::ArrayXd probability(double c, double factor, const Eigen::ArrayXd& score,
                             const Eigen::Map<const Eigen::ArrayXd>& f) const {
    return (c * ((1 - kEvenly) * factor * score + kEvenly * d_ / n_) + kMassRows * d_ * f).min(1.0);
  }
  template <class Probabilities>
  static double variance(const Eigen::ArrayXd& square, const Probabilities& p) {
    return (square * (1 / p.max(std::numeric_limits<double>::min()) - 1)).sum();
  }

  const RegressionObjective& objective_;
  const VectorXd &t_, &present_;
  double c_, ridge_, d_, n_;
};

}  // namespace

RegressionObjective::Besides RowScores::in_read(const RegressionObjective& objective, const VectorXd& t, double c,
                                                const VectorXd& present) {
  const ScoreSums scores(objective, t, c, present);
  return {.add = [scores](Index first, std::span<const double> f, std::span<const double> delta,
                          double* sums) { scores.add(first, f, delta, 1, sums); },
          .sums = VectorXd::Zero(6)};
}

double most_first_rows(Index d) { return (2 * kFirstRows + kMassRows) * static_cast<double>(d); }

RowScores::RowScores(const RegressionObjective& objective, const Point& point, const VectorXd& t, double c,
                     const VectorXd& present, const std::optional<Sums>& known)
    : objective_(objective), point_(point), t_(t), c_(c) {
  const auto d = static_cast<double>(objective.A().columns());
  const auto made = [&] {
    const RegressionState& state = RegressionObjective::state_of(point);
    const VectorXd& delta = objective.curvatures(point).delta;
    const ScoreSums scores(objective, t, c, present);
    auto sums = sum_over_rows<6>(delta.size(), [&](Index first, Index rows, std::array<double, 6>& block) {
      const VectorXd f = fitted_by(objective, state, first, rows);
      scores.add(first, span_of(f), span_of(delta).subspan(static_cast<std::size_t>(first), span_of(f).size()), factor_,
                 block.data());
    });
    objective.A().communicator().sum(sums);
    return Sums{sums[0], sums[1], sums[2], sums[3], sums[4], sums[5]};
  };
  Sums sums = known ? *known : made();
  total_ = sums.total / d;
  if (total_ > kLargestSum) {
    factor_ = kLargestSum / total_;
    sums = made();
  }
  rows_ = sums.rows;
  variance_ = sums.present / std::max(sums.fresh, std::numeric_limits<double>::min());
}

VectorXd RowScores::probabilities() const {
  const RegressionState& state = RegressionObjective::state_of(point_);
  const auto d = static_cast<double>(objective_.A().columns()), n = static_cast<double>(objective_.A().rows_global());
  const auto scores = scores_of(objective_, point_, t_, sampled_ridge(objective_));
  VectorXd probabilities = fitted_by(objective_, state, 0, state.z.size());
  probabilities =
      (c_ * ((1 - kEvenly) * factor_ * scores + kEvenly * d / n) + kMassRows * d * probabilities.array()).min(1.0);
  RegressionObjective::drop_curvatures(point_);
  return probabilities;
}

double score_total(const RegressionObjective& objective, const Point& point, const VectorXd& t) {
  return objective.A().communicator().sum(scores_of(objective, point, t).sum()) /
         static_cast<double>(objective.A().columns());
}

}  // namespace attnreg
