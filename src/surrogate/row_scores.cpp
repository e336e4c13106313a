#include "surrogate/row_scores.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "rows/row_passes.hpp"

namespace attnreg {

namespace {

constexpr double kFirstRows = 30;  // by curvature, times d
constexpr double kMassRows = 20;   // by f, times d
constexpr double kEvenly = 0.05;   // share of the rows by scores
constexpr double kLargestSum = 2;  // of the scores over d: above, the model is too small, and they are scaled down

VectorXd fitted_at(const Point& point) {
  const RegressionState& state = RegressionObjective::state_of(point);
  return (state.z.array() - state.loss.reference).exp();
}

}  // namespace

VectorXd first_probabilities(const RegressionObjective& objective, const Point& point) {
  const RowMatrix& A = objective.A();
  const auto d = static_cast<double>(A.columns()), n = static_cast<double>(A.rows_global());
  const Eigen::ArrayXd norms = objective.columns().row_norms(), w2 = objective.weights_squared();
  const Eigen::ArrayXd b = objective.b(), delta = RegressionObjective::state_of(point).delta;
  const Eigen::ArrayXd to_come = (b.square() + w2) * norms.square(), now = (delta.abs() + w2) * norms.square();
  const Eigen::ArrayXd mass = b.max(0.0);
  std::array<double, 4> sums{to_come.sum(), now.sum(), norms.sum(), mass.sum()};
  A.communicator().sum(sums);
  const auto share = [&](const Eigen::ArrayXd& rows, std::size_t k) {
    return Eigen::ArrayXd(rows / std::max(sums[k], std::numeric_limits<double>::min()));
  };
  const Eigen::ArrayXd p = kFirstRows * d * (share(to_come, 0) + 0.5 * share(norms, 2) + 0.5 * share(now, 1)) +
                           0.5 * kMassRows * d * (share(mass, 3) + 1 / n);
  return p.min(1.0);
}

RowScores::RowScores(const RegressionObjective& objective, const Point& point, const VectorXd& t)
    : d_(static_cast<double>(objective.A().columns())),
      n_(static_cast<double>(objective.A().rows_global())),
      f_(fitted_at(point)) {
  const VectorXd weights = RegressionObjective::state_of(point).delta.cwiseAbs() + objective.weights_squared();
  scores_ = weights.cwiseProduct(t).cwiseMin(1.0);
  total_ = objective.A().communicator().sum(scores_.sum()) / d_;
  if (total_ > kLargestSum) scores_ *= kLargestSum / total_;
}

VectorXd RowScores::probabilities(double c) const {
  const Eigen::ArrayXd p = c * ((1 - kEvenly) * scores_.array() + kEvenly * d_ / n_) + kMassRows * d_ * f_.array();
  return p.min(1.0);
}

std::pair<double, double> RowScores::variances(const VectorXd& probabilities, const VectorXd& others,
                                               const Communicator& communicator) const {
  const auto variance = [&](const VectorXd& p) {
    return (scores_.array().square() * (1 / p.array().max(std::numeric_limits<double>::min()) - 1)).sum();
  };
  std::array<double, 2> sums{variance(probabilities), variance(others)};
  communicator.sum(sums);
  return {sums[0], sums[1]};
}

}  // namespace attnreg
