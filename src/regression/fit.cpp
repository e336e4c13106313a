#include "regression/fit.hpp"
#include "rows/row_passes.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "losses/losses.hpp"
#include "numbers/row_sums.hpp"
#include "objective/fitted_values.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr double kSimplexSlack = 1e-6;  // a target whose sum is further from 1 deserves a word
constexpr double kConstant = 1e-24;     // a spread of 1e-12 of b is the rounding of its mean

/// b ln(b / f) - b + f >= 0, of b >= 0 and f >= 0. A tiny f counts as the smallest normal number.
double divergence(double b, double f) {
  if (b == 0) return f;
  const double u = (f - b) / b;
  if (std::abs(u) < 0.5) return std::max(b * (u - std::log1p(u)), 0.0);
  return b * (std::log(b) - std::log(std::max(f, std::numeric_limits<double>::min()))) - b + f;
}

}  // namespace

Target describe_target(const RowMatrix& A, const VectorXd& b, const Loss& loss) {
  const auto count = [](const auto& condition) { return static_cast<double>(condition.count()); };
  std::array<double, 5> sums{b.sum(), b.cwiseMax(0).sum(), count(b.array() < 0), b.squaredNorm(),
                             count(b.array() < loss.infimum())};
  A.communicator().sum(sums);
  return {sums[0], sums[1], sums[2], sums[3], sums[4]};
}

std::vector<std::string> target_warnings(const Target& target, const Loss& loss) {
  std::vector<std::string> warnings;
  const std::string fitted = loss.fitted_text();
  if (loss.form() != HessianForm::diagonal && std::abs(target.sum - 1) > kSimplexSlack)
    warnings.push_back("b sums to " + text_of(target.sum) + ", not to 1: " + fitted +
                       " always sums to 1 and cannot match it" +
                       (target.sum > 0 ? "; divide b by its sum (--normalise-b)" : ""));
  if (target.low_rows > 0)
    warnings.push_back(text_of(target.low_rows) + " values of b are " +
                       (loss.infimum() > 0 ? "below " + text_of(loss.infimum()) + ": " + fitted + " is not"
                                           : "negative: " + fitted + " is positive everywhere"));
  if (loss.vanishes_at_zero())
    warnings.push_back(
        "x = 0 is a global minimiser of this loss whatever b is, with L = 0; a minimum elsewhere is a "
        "local one, and the solve starts at a random point");
  return warnings;
}

bool spans_ones(const RowMatrix& A) {
  constexpr int kMostProducts = 20;
  constexpr double kSolved = 1e-8;  // |A v - 1|^2 / n
  constexpr double kSlow = 0.99;    // of |A v - 1|^2, by one product: 1 is not in sight
  const VectorXd one = VectorXd::Ones(A.rows_local()), zero = VectorXd::Zero(A.rows_local());
  const auto sum = [&](VectorXd v) {
    A.communicator().sum(span_of(v));
    return v;
  };
  VectorXd r = sum(A.passes().transpose_multiply(one)), p = r, y;  // of v = 0
  double squares = static_cast<double>(A.rows_global());           // |A v - 1|^2, which falls by alpha |r|^2
  for (int k = 1; k < kMostProducts && squares > kSolved * static_cast<double>(A.rows_global()); ++k) {
    const VectorXd product = sum(A.passes().normal_product(p, {one.data(), zero.data(), 0}, y)).head(A.columns());
    const double r2 = r.squaredNorm(), alpha = r2 / p.dot(product);
    if (!(r2 > 0) || !std::isfinite(alpha)) break;
    if (squares - alpha * r2 > kSlow * squares) return false;
    squares -= alpha * r2;
    r -= alpha * product;
    p = r + r.squaredNorm() / r2 * p;
  }
  return squares <= kSolved * static_cast<double>(A.rows_global());
}

FitQuality fit_quality(const RowMatrix& A, const VectorXd& f, const VectorXd& b, const Target& target) {
  const double mean_b = target.sum / static_cast<double>(A.rows_global());
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  auto sums = sum_over_rows<5>(b.size(), [&](Index first, Index rows, std::array<double, 5>& block) {
    for (Index i = first; i < first + rows; ++i) {
      const double difference = f[i] - b[i];
      block[0] += std::abs(difference);
      block[1] += f[i] < 0 ? kNaN : divergence(b[i], f[i]);
      block[2] += difference * difference;
      block[3] += (b[i] - mean_b) * (b[i] - mean_b);
      block[4] += f[i] * f[i];
    }
  });
  A.communicator().sum(sums);
  FitQuality fit;
  fit.target_sum = target.sum;
  fit.total_variation = 0.5 * sums[0];
  fit.relative_residual = target.squared_norm > 0 ? std::sqrt(sums[2] / target.squared_norm) : kNaN;
  fit.kullback_leibler = target.negative_rows > 0 ? kNaN : sums[1];
  fit.r_squared = sums[3] > kConstant * target.squared_norm ? 1 - sums[2] / sums[3] : kNaN;
  fit.support_fitted = 1 / sums[4];
  fit.support_target = target.squared_norm > 0 ? target.sum * target.sum / target.squared_norm : kNaN;
  return fit;
}

void check_offset(const RowMatrix& A, const RegressionModel& model) {
  if (!model.offset) return;
  const bool may_mask = make_loss(model.loss)->is_shift_invariant();
  const VectorXd& offset = *model.offset;
  A.communicator().agree([&] {
    if (offset.size() != A.rows_local())
      throw InvalidArgument("offset has " + std::to_string(offset.size()) + " values for " +
                            std::to_string(A.rows_local()) + " local rows of A");
    for (Index i = 0; i < offset.size(); ++i) {
      const double value = offset[i];
      const bool is_mask = value == -std::numeric_limits<double>::infinity();
      if ((is_mask && may_mask) || std::abs(value) <= LogitOffsets::largest) continue;
      throw InvalidArgument("offset is " + text_of(value) + " at row " + std::to_string(A.first_row() + i) +
                            " (counted from 0), expected a number" +
                            (std::isfinite(value) ? " of size 1e300 at most"
                             : !may_mask          ? ": " + model.loss + " knows no masks"
                                                  : ", or -inf, which masks the row"));
    }
  });
  const bool all_masked = offset.size() == 0 || offset.maxCoeff() == -std::numeric_limits<double>::infinity();
  if (A.communicator().max(std::int64_t{!all_masked}) == 0)
    refuse("offset is -inf in all rows: every one is masked, and nothing is left");
}

LogitOffsets logit_offsets(const RowMatrix& A, const RegressionModel& model) {
  return {A.communicator(), model.offset, !make_loss(model.loss)->is_shift_invariant()};
}

VectorXd predict(const RowMatrix& A, const VectorXd& x, const RegressionModel& model) {
  const auto loss = make_loss(model.loss);
  check_offset(A, model);
  const LogitOffsets offsets = logit_offsets(A, model);
  if (offsets.are_there()) loss->see_offsets();
  const VectorXd z = offsets.without_masked(A.passes().multiply(x, Compensated()));
  require_finite_rows(A, z, "A x");
  VectorXd fitted = fitted_values(A.communicator(), *loss, with_offsets(z, offsets));
  require_finite_rows(A, fitted, loss->fitted_text());
  return fitted;
}

}  // namespace attnreg
