#include "fit.hpp"

#include <array>
#include <cmath>
#include <limits>
#include <span>

#include "attnreg/loss.hpp"
#include "row_sums.hpp"
#include "text_of.hpp"

namespace attnreg {

using Eigen::Index;
using Eigen::VectorXd;

namespace {

constexpr double kSimplexSlack = 1e-6;  // a target whose sum is further from 1 deserves a word
constexpr double kConstant = 1e-24;     // a spread of 1e-12 of b is the rounding of its mean

}  // namespace

Target describe_target(const RowMatrix& A, const VectorXd& b) {
  std::array<double, 4> sums{b.sum(), b.cwiseMax(0).sum(), static_cast<double>((b.array() < 0).count()),
                             b.squaredNorm()};
  A.communicator().sum(sums);
  return {sums[0], sums[1], sums[2], sums[3]};
}

std::vector<std::string> target_warnings(const Target& target) {
  std::vector<std::string> warnings;
  if (std::abs(target.sum - 1) > kSimplexSlack)
    warnings.push_back("b sums to " + text_of(target.sum) +
                       ", not to 1: softmax(A x) always sums to 1 and cannot match it");
  if (target.negative_rows > 0)
    warnings.push_back(text_of(target.negative_rows) +
                       " values of b are negative: softmax(A x) is positive everywhere");
  return warnings;
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
  fit.r_squared = sums[3] > kConstant * target.squared_norm ? 1 - sums[2] / sums[3] : kNaN;
  fit.support_fitted = 1 / sums[4];
  fit.support_target = target.squared_norm > 0 ? target.sum * target.sum / target.squared_norm : kNaN;
  return fit;
}

VectorXd predict(const RowMatrix& A, const VectorXd& x) {
  const VectorXd none = VectorXd::Zero(A.rows_local());
  const VectorXd z = A.multiply(x, Compensated());
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
