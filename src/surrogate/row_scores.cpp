#include "surrogate/row_scores.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "rows/row_passes.hpp"

namespace attnreg {

namespace {

constexpr double kFirstRows = 30;  // by curvature, times d
constexpr double kMassRows = 20;   // by f, times d
constexpr double kEvenly = 0.05;   // share of the rows by scores
constexpr double kLargestSum = 2;  // of the scores over d: above, the model is too small, and they are scaled down

/// An expression: it takes no memory.
auto scores_of(const RegressionObjective& objective, const Point& point, const VectorXd& t) {
  const VectorXd& delta = objective.curvatures(point).delta;
  return ((delta.array().abs() + objective.weights_squared().array()) * t.array()).min(1.0);
}

}  // namespace

VectorXd first_probabilities(const RegressionObjective& objective, const Point& point) {
  const RowMatrix& A = objective.A();
  const auto d = static_cast<double>(A.columns()), n = static_cast<double>(A.rows_global());
  // Expressions, which are made where they are used: each would be a vector of rows.
  const LogitOffsets& offsets = objective.logit_offsets();
  const VectorXd unmasked = offsets.mask_rows() ? offsets.without_masked(objective.columns().row_norms()) : VectorXd();
  const auto norms = (offsets.mask_rows() ? unmasked : objective.columns().row_norms()).array();
  const auto w2 = objective.weights_squared().array();
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

RowScores::RowScores(const RegressionObjective& objective, const Point& point, const VectorXd& t, double c,
                     const VectorXd& present) {
  const auto d = static_cast<double>(objective.A().columns()), n = static_cast<double>(objective.A().rows_global());
  const RegressionState& state = RegressionObjective::state_of(point);
  const auto scores = scores_of(objective, point, t);
  const auto variance = [&](const VectorXd& p) {
    return (scores.square() * (1 / p.array().max(std::numeric_limits<double>::min()) - 1)).sum();
  };
  const auto sums_at = [&](double factor) {
    const auto by_score = c * ((1 - kEvenly) * factor * scores + kEvenly * d / n);
    if (objective.logit_offsets().are_there())
      probabilities_ = VectorXd::NullaryExpr(state.z.size(), [&](Index i) {
        return std::min(1.0, by_score.coeff(i) + kMassRows * d * std::exp(objective.exponent(state, i)));
      });
    else
      probabilities_ = (by_score + kMassRows * d * (state.z.array() - state.loss.reference).exp()).min(1.0);
    std::array<double, 3> sums{scores.sum(), variance(present), variance(probabilities_)};
    objective.A().communicator().sum(sums);
    return sums;
  };
  auto sums = sums_at(1);
  total_ = sums[0] / d;
  if (total_ > kLargestSum) sums = sums_at(kLargestSum / total_);
  variance_ = sums[1] / std::max(sums[2], std::numeric_limits<double>::min());
}

double score_total(const RegressionObjective& objective, const Point& point, const VectorXd& t) {
  return objective.A().communicator().sum(scores_of(objective, point, t).sum()) /
         static_cast<double>(objective.A().columns());
}

}  // namespace attnreg
