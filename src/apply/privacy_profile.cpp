#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <limits>
#include <numbers>
#include <string>

#include "attnreg/apply_attention.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"

namespace attnreg {

namespace {

using Complex = std::complex<double>;
using Eigenvalues = CovarianceChange::Eigenvalues;

constexpr double kEps = std::numeric_limits<double>::epsilon(), kNoBound = std::numeric_limits<double>::infinity();
constexpr double kTiny = std::numeric_limits<double>::min();  // what may have been lost below it
constexpr std::int64_t kMostSamples = std::int64_t{1} << 40;  // more do not end
constexpr double kLargestChange = 1e12;                       // beyond it nothing is private, nor are the digits right
constexpr double kTolerance = 1e-6;                           // of delta, relative: of each of the errors of a sum
constexpr int kMostTerms = 1 << 19;                           // a tenth of a second; one sample may take more

void check(const PrivacyBudget& budget) {
  if (!(budget.epsilon > 0) || !std::isfinite(budget.epsilon))
    refuse("epsilon of the privacy is " + text_of(budget.epsilon) + ", expected a number > 0");
  if (!(budget.delta > 0 && budget.delta < 1))
    refuse("delta of the privacy is " + text_of(budget.delta) + ", expected 0 < delta < 1");
}

void check(const CovarianceChange& change) {
  if (!(change.size > 0) || !std::isfinite(change.size)) refuse("the sensitivity must be a number > 0");
  if (change.eigenvalues == Eigenvalues::any && change.size >= 1)
    refuse("not private: condition Delta < 1 fails: the sensitivity is " + text_of(change.size) +
           ", and no rule of the mechanism holds from 1 on; more ridge makes Delta smaller");
}

void check_samples(std::int64_t samples) {
  if (samples < 1) refuse("the number of samples must be at least 1");
}

/// ln(1 + w), also for small w, and near w = -1.
Complex log_one_plus(Complex w) {
  if (std::abs(w) > 0.5) return std::log(1.0 + w);
  return {std::log1p(2 * w.real() + std::norm(w)) / 2, std::atan2(w.imag(), 1 + w.real())};
}

/// K(z) = ln E e^{z L} of the privacy loss L of k samples, where all but one or two eigenvalues of the change are 1:
///
///     one, 1 + x:                    -(k / 2) (ln(1 - x z) + z ln(1 + x))
///     a pair, 1 + x and its inverse: -(k / 2) ln(1 - z (z + 1) x^2 / (1 + x))
class LossTransform {
 public:
  LossTransform(bool is_pair, double x, std::int64_t samples)
      : is_pair_(is_pair),
        x_(x),
        square_(x * (x / (1 + x))),
        logarithm_(std::log1p(x)),
        half_(static_cast<double>(samples) / 2) {}

  double pole() const { return x_ > 0 ? 1 / x_ : kNoBound; }  ///< moments exist below
  double largest_loss() const { return x_ < 0 ? -half_ * logarithm_ : kNoBound; }
  double slope(double c) const {
    return is_pair_ ? half_ * (2 * c + 1) * square_ / gap(c) : half_ * (x_ / gap(c) - logarithm_);
  }
  double curvature(double c) const {
    const double ratio = (is_pair_ ? (2 * c + 1) * square_ : x_) / gap(c);
    return half_ * (ratio * ratio + (is_pair_ ? 2 * square_ / gap(c) : 0));
  }

  struct Value {
    Complex logarithm;
    double rounding;  ///< a bound on the error
  };
  Value at(Complex z) const {
    const Complex w = is_pair_ ? -z * (z + 1.0) * square_ : -z * x_;
    const Complex logarithm = log_one_plus(w);
    const double size = std::abs(w) / std::abs(1.0 + w);
    Value value{-half_ * logarithm, half_ * kEps * (24 * size + 2 * std::abs(logarithm))};
    if (is_pair_) return value;
    value.logarithm -= half_ * logarithm_ * z;
    value.rounding += 3 * half_ * kEps * std::abs(logarithm_) * std::abs(z);
    return value;
  }

 private:
  double gap(double c) const { return std::max(is_pair_ ? 1 - c * (c + 1) * square_ : 1 - c * x_, 1e-300); }

  bool is_pair_;
  double x_, square_, logarithm_, half_;
};

/// The c in (0, pole) where the slope of a convex function, K among its terms, is 0.
template <class Slope>
double minimiser(const LossTransform& K, Slope&& slope) {
  const double pole = K.pole();
  const auto place = [&](double s) { return std::isinf(pole) ? s : pole * (s / (1 + s)); };
  double low = std::log(1e-30), high = std::log(1e12);
  for (int i = 0; i < 100; ++i) {
    const double middle = (low + high) / 2;
    (slope(place(std::exp(middle))) < 0 ? low : high) = middle;
  }
  return place(std::exp(low));
}

/// ln of a bound on delta: (1 - e^{epsilon - L})_+ <= e^{c (L - epsilon)} c^c / (c + 1)^{c + 1} for every L, c > 0.
double log_chernoff(const LossTransform& K, double epsilon, double c) {
  const auto value = K.at(c);
  const double terms[] = {value.logarithm.real(), -c * epsilon, -c * std::log1p(1 / c), -std::log1p(c)};
  double sum = 0, size = 0;
  for (const double term : terms) sum += term, size += std::abs(term);
  return sum + value.rounding + 8 * kEps * (1 + size);
}

/// The same with the best c, or the best from `least` on.
double chernoff(const LossTransform& K, double epsilon, double least = 0) {
  const double c = minimiser(K, [&](double at) { return K.slope(at) - epsilon - std::log1p(1 / at); });
  return std::min(1.0, std::exp(log_chernoff(K, epsilon, std::max(c, least))) + kTiny);
}

struct Bounds {
  double lower, upper;
};

/// delta(epsilon) = 1 / (2 pi) int G(t) dt, G(t) = e^{K(z) - z epsilon} / (z (z + 1)), z = c + i t, for any c below the
/// pole, by the trapezoidal rule. docs/experiments.md has the three errors.
Bounds inverted(const LossTransform& K, double epsilon) {
  if (epsilon >= K.largest_loss()) return {0, 0};
  const double pi = std::numbers::pi;
  const double c = minimiser(K, [&](double at) { return K.slope(at) - epsilon - 1 / at - 1 / (at + 1); });
  const auto top = K.at(c);
  const double log_top = top.logarithm.real() - c * epsilon;  // all terms are relative to e^log_top
  const double curvature = K.curvature(c) + 1 / (c * c) + 1 / ((c + 1) * (c + 1));
  const double log_tolerance =
      std::log(kTolerance) - std::log(c) - std::log1p(c) - std::log(2 * pi * curvature) / 2;  // saddle point

  const double other = std::isinf(K.pole()) ? 2 * c : std::min(2 * c, (c + K.pole()) / 2);
  const double log_other = log_chernoff(K, epsilon, other);
  const double step = 2 * pi /
                      std::max(std::max(1.0, -log_top - log_tolerance) / c,
                               std::max(1.0, log_other - log_top - log_tolerance) / (other - c));
  double sum = 1 / (2 * c * (c + 1)), size = sum, rounding = sum * (top.rounding + 16 * kEps), tail = kNoBound;
  int terms = 1;
  for (; terms < kMostTerms && !(tail <= std::exp(log_tolerance)); ++terms) {
    const Complex z(c, terms * step);
    const auto value = K.at(z);
    const Complex exponent = value.logarithm - z * epsilon - log_top;
    const Complex term = std::exp(exponent) / (z * (z + 1.0));
    const double magnitude = std::abs(term);
    sum += term.real();
    size += magnitude;
    rounding += magnitude * (value.rounding + kEps * (16 + 3 * std::abs(z) * epsilon + std::abs(log_top)));
    tail = std::exp(exponent.real()) / (pi * z.imag());
  }
  const double unit = std::exp(log_top), first = std::exp(-2 * pi * c / step);
  const double second = std::exp(-2 * pi * (other - c) / step);
  const double alias = first / (1 - first) + std::exp(log_other) * second / (1 - second);
  const double found = unit * step / pi * sum;
  const double error = unit * (tail + step / pi * (rounding + size * kEps * terms)) + 4 * kEps * found + kTiny;
  const double bound = chernoff(K, epsilon);
  const double lower = found - alias - error;
  return {lower > 0 ? std::min(bound, lower) : 0, std::min(bound, found + error)};  // of NaN: 0 and the bound
}

LossTransform transform_of(const CovarianceChange& change, std::int64_t samples) {
  return {change.eigenvalues == Eigenvalues::pair, change.size, samples};
}

/// Of one eigenvalue: 1 + size, or its inverse.
std::array<LossTransform, 2> both_transforms(const CovarianceChange& change, std::int64_t samples) {
  const double size = change.size;
  return {LossTransform(false, size, samples), LossTransform(false, -size / (1 + size), samples)};
}

/// A bound on delta, at no cost.
double rough_delta(const CovarianceChange& change, std::int64_t samples, double epsilon) {
  if (change.eigenvalues == Eigenvalues::one) {
    const auto both = both_transforms(change, samples);
    return std::max(chernoff(both[0], epsilon), chernoff(both[1], epsilon));
  }
  const double least = change.eigenvalues == Eigenvalues::any ? 1 : 0;
  return chernoff(transform_of(change, samples), epsilon, least);
}

bool is_private(const PrivacyBudget& budget, const CovarianceChange& change, std::int64_t samples) {
  if (change.size > kLargestChange) return false;
  return rough_delta(change, samples, budget.epsilon) <= budget.delta ||
         (change.eigenvalues != Eigenvalues::any &&
          privacy_delta(change, samples, budget.epsilon).delta <= budget.delta);
}

}  // namespace

double CovarianceChange::frobenius() const {
  return eigenvalues == Eigenvalues::pair ? std::hypot(size, size / (1 + size)) : size;
}

PrivacyDelta privacy_delta(const CovarianceChange& change, std::int64_t samples, double epsilon) {
  check(change);
  check_samples(samples);
  check(PrivacyBudget{epsilon, 0.5});
  if (change.size > kLargestChange) return {1, 1};
  if (change.eigenvalues == Eigenvalues::any) {
    const double upper = rough_delta(change, samples, epsilon);
    return {upper, upper - std::min(upper, inverted(transform_of(change, samples), epsilon).lower)};
  }
  if (change.eigenvalues == Eigenvalues::pair) {
    const Bounds found = inverted(transform_of(change, samples), epsilon);
    return {found.upper, found.upper - found.lower};
  }
  const auto both = both_transforms(change, samples);
  const Bounds up = inverted(both[0], epsilon), down = inverted(both[1], epsilon);
  const double upper = std::max(up.upper, down.upper);
  return {upper, upper - std::max(up.lower, down.lower)};
}

std::int64_t sample_limit(const PrivacyBudget& budget, const CovarianceChange& change) {
  check(budget);
  check(change);
  if (!is_private(budget, change, 1)) return 0;
  std::int64_t allowed = 1, refused = 2;
  while (allowed < kMostSamples && is_private(budget, change, refused)) {
    allowed = refused;
    refused = 2 * refused;
  }
  if (allowed >= kMostSamples) return kMostSamples;
  while (refused - allowed > 1) {
    const std::int64_t middle = allowed + (refused - allowed) / 2;
    (is_private(budget, change, middle) ? allowed : refused) = middle;
  }
  return allowed;
}

CovarianceChange change_limit(const PrivacyBudget& budget, std::int64_t samples, Eigenvalues eigenvalues) {
  check(budget);
  check_samples(samples);
  double allowed = 1e-30, refused = eigenvalues == Eigenvalues::any ? 1 : kLargestChange;
  while (refused / allowed > 1 + 1e-10) {
    const double middle = std::sqrt(allowed * refused);
    (is_private(budget, {eigenvalues, middle}, samples) ? allowed : refused) = middle;
  }
  return {eigenvalues, allowed};
}

CovarianceChange covariance_change(const Neighbours& neighbours, double ridge) {
  const double n = static_cast<double>(neighbours.rows), C = neighbours.row_norm, E = neighbours.change;
  if (neighbours.rows < 1) refuse("a sensitivity needs at least one row");
  if (!(C > 0) || !std::isfinite(C)) refuse("the largest norm of a row must be a number > 0");
  if (!(E > 0)) refuse("the largest change of a row must be a number > 0");
  if (!(ridge > 0) || !std::isfinite(ridge))
    refuse("not private: without a ridge > 0 the sensitivity of neighbours that differ in a row has no bound");
  const double c = C / std::sqrt(ridge), e = std::min(E, neighbours.rows == 1 ? C : 2 * C) / std::sqrt(ridge);
  const double s = 1 / (1 + (n - 1) * c * c), rest = (n - 1) * c * c * s;  // 1 - s
  double growth = (e * e + e * std::sqrt(e * e + 4)) / 2;
  if (growth * (c - e) < e) {
    const double b = e * (e * rest + s * (2 * c - e)) / 2, a = 1 + s * (e - c) * (e - c);
    growth = (b + std::sqrt(b * b + a * rest * e * e)) / a;
  }
  if (!(growth < 1e300)) growth = 1e300;  // a ridge of next to nothing
  return {neighbours.rows == 1 ? Eigenvalues::one : Eigenvalues::pair, growth * (1 + 16 * kEps)};
}

double smallest_ridge(const PrivacyBudget& budget, std::int64_t samples, const Neighbours& neighbours) {
  constexpr double kLeast = 1e-100;                     // by C^2; a larger ridge than needed is private, too
  static_cast<void>(covariance_change(neighbours, 1));  // refuses what no ridge helps
  const double C = neighbours.row_norm;
  if (const double square = C * C; !(std::isnormal(square) && square < 1e300))
    refuse("the ridge, a multiple of " + text_of(C) + "^2, under- or overflows; scale X, and --row-norm with it");
  const Neighbours unit{.rows = neighbours.rows, .row_norm = 1, .change = std::max(neighbours.change / C, kLeast)};
  const auto size = [&](double ridge) { return covariance_change(unit, ridge).size; };
  double ridge = 1;
  const double limit = change_limit(budget, samples, covariance_change(unit, ridge).eigenvalues).size;
  while (size(ridge) > limit) ridge *= 4;
  while (ridge > kLeast && size(ridge / 4) <= limit) ridge /= 4;
  double refused = ridge / 4;
  while (ridge / refused > 1 + 1e-10) {
    const double middle = std::sqrt(ridge * refused);
    (size(middle) <= limit ? ridge : refused) = middle;
  }
  return ridge * C * C * (1 + 64 * kEps);  // rounded up
}

}  // namespace attnreg
