#include "attnreg/regression.hpp"

#include <array>
#include <cmath>
#include <limits>
#include <span>

#include "attnreg/loss.hpp"
#include "regression_objective.hpp"
#include "row_sums.hpp"

namespace attnreg {

using Eigen::Index;
using Eigen::VectorXd;

namespace {

constexpr double kStartWeight = 1e-4;     // of the cross-entropy start, every row
constexpr double kStartTolerance = 1e-2;  // of its own |g(0)|
constexpr double kSimplexSlack = 1e-6;    // a target whose sum is further from 1 deserves a word

/// Sums over all rows of the target.
struct Target {
  double sum = 0, positive_sum = 0, negative_rows = 0, squared_norm = 0;
};

Target describe_target(const RowMatrix& A, const VectorXd& b) {
  std::array<double, 4> sums{b.sum(), b.cwiseMax(0).sum(), static_cast<double>((b.array() < 0).count()),
                             b.squaredNorm()};
  A.communicator().sum(sums);
  return {sums[0], sums[1], sums[2], sums[3]};
}

void check_arguments(const RowMatrix& A, const VectorXd& b, const VectorXd& w, const RegressionOptions& options) {
  A.communicator().agree([&] {
    const auto rows = std::to_string(A.rows_local());
    if (b.size() != A.rows_local())
      throw InvalidArgument("b has " + std::to_string(b.size()) + " values for " + rows + " local rows of A");
    if (w.size() != A.rows_local())
      throw InvalidArgument("w has " + std::to_string(w.size()) + " values for " + rows + " local rows of A");
    if (!b.allFinite()) throw InvalidArgument("b has values that are not finite");
    if (!w.allFinite()) throw InvalidArgument("w has values that are not finite");
  });
  if (options.start != Start::given) return;
  if (options.x0.size() != A.columns())
    throw InvalidArgument("x0 has " + std::to_string(options.x0.size()) + " values for " + std::to_string(A.columns()) +
                              " columns of A",
                          Error::Scope::all_ranks);
  if (!A.communicator().is_replicated({options.x0.data(), static_cast<std::size_t>(options.x0.size())}))
    throw InvalidArgument("x0 must be the same on all ranks", Error::Scope::all_ranks);
}

std::string decimal(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.6g", value);
  return text.data();
}

std::vector<std::string> target_warnings(const Target& target) {
  std::vector<std::string> warnings;
  if (std::abs(target.sum - 1) > kSimplexSlack)
    warnings.push_back("b sums to " + decimal(target.sum) + ", not to 1: softmax(A x) always sums to 1 and cannot match it");
  if (target.negative_rows > 0)
    warnings.push_back(decimal(target.negative_rows) + " values of b are negative: softmax(A x) is positive everywhere");
  return warnings;
}

/// Where the rough minimiser of the cross-entropy of b's positive part is; from x = 0.
VectorXd cross_entropy_start(const RowMatrix& A, const VectorXd& b, double positive_sum,
                             const RegressionOptions& options, int& iterations) {
  const VectorXd b_plus = b.cwiseMax(0) / positive_sum;
  const VectorXd w = VectorXd::Constant(b.size(), kStartWeight);
  RegressionObjective objective(A, b_plus, w, make_loss("cross-entropy"));
  NewtonOptions newton_options;
  newton_options.relative_tolerance = kStartTolerance;
  newton_options.time_limit_seconds = options.newton.time_limit_seconds;
  newton_options.on_iteration = options.on_start_iteration;
  const NewtonSummary summary = newton(objective, VectorXd::Zero(A.columns()), newton_options);
  iterations = summary.iterations;
  return objective.x();
}

FitQuality fit_quality(const RowMatrix& A, const VectorXd& f, const VectorXd& b, const Target& target) {
  const double mean_b = target.sum / static_cast<double>(A.rows_global());
  auto sums = sum_over_rows<5>(b.size(), [&](Index first, Index rows, std::array<double, 5>& block) {
    for (Index i = first; i < first + rows; ++i) {
      const double difference = f[i] - b[i];
      block[0] += std::abs(difference);
      block[1] += b[i] > 0 ? b[i] * (std::log(b[i]) - std::log(std::max(f[i], std::numeric_limits<double>::min()))) : 0;
      block[2] += difference * difference;
      block[3] += (b[i] - mean_b) * (b[i] - mean_b);
      block[4] += f[i] * f[i];
    }
  });
  A.communicator().sum(sums);
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  FitQuality fit;
  fit.total_variation = 0.5 * sums[0];
  fit.kullback_leibler = target.negative_rows > 0 ? kNaN : sums[1];
  fit.r_squared = sums[3] > 0 ? 1 - sums[2] / sums[3] : kNaN;
  fit.support_fitted = 1 / sums[4];
  fit.support_target = target.squared_norm > 0 ? target.sum * target.sum / target.squared_norm : kNaN;
  return fit;
}

}  // namespace

RegressionResult solve_regression(const RowMatrix& A, const VectorXd& b, const VectorXd& w,
                                  const RegressionOptions& options) {
  check_arguments(A, b, w, options);
  RegressionResult result;
  const Target target = describe_target(A, b);
  if (options.loss == "cross-entropy" && !(target.sum > 0))
    throw InvalidArgument("cross-entropy needs a target with a positive sum; b sums to " + decimal(target.sum),
                          Error::Scope::all_ranks);
  result.warnings = target_warnings(target);

  RegressionObjective objective(A, b, w, make_loss(options.loss));
  objective.move_to(VectorXd::Zero(A.columns()));
  NewtonOptions newton_options = options.newton;
  newton_options.gradient_reference = objective.gradient().norm();

  VectorXd x0 = options.start == Start::given ? options.x0 : VectorXd::Zero(A.columns());
  if (options.start == Start::cross_entropy) {
    if (target.positive_sum > 0)
      x0 = cross_entropy_start(A, b, target.positive_sum, options, result.start_iterations);
    else
      result.warnings.push_back("no value of b is positive: the cross-entropy start was skipped, x = 0 used");
  }
  result.summary = newton(objective, x0, newton_options);
  result.x = objective.x();
  result.fitted = objective.fitted();
  result.fit = fit_quality(A, result.fitted, b, target);
  return result;
}

VectorXd predict(const RowMatrix& A, const VectorXd& x) {
  const VectorXd none = VectorXd::Zero(A.rows_local());
  const VectorXd z = A.multiply(x);
  const auto softmax = make_loss("softmax");
  const std::span<const double> logits(z.data(), static_cast<std::size_t>(z.size()));
  const double largest_logit = A.communicator().max(softmax->shift({logits, {none.data(), logits.size()}}));
  VectorXd f = (z.array() - largest_logit).exp();
  const auto sums = sum_over_rows<1>(f.size(), [&](Index first, Index rows, std::array<double, 1>& block) {
    block[0] = f.segment(first, rows).sum();
  });
  return f / A.communicator().sum(sums[0]);
}

}  // namespace attnreg
