#pragma once

#include <Eigen/Core>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace attnreg {

// What is known of a point x after a solve: how well it fits b, and what can be proved about it.

/// How well the fitted f, softmax(A x) or what else `predict` gives, reproduces b. The total variation, the divergence
/// and the supports have their usual meaning if f and b are distributions: not negative, with the sum 1. Replicated.
struct FitQuality {
  double relative_residual = 0;  ///< |f - b| / |b|; NaN for b = 0
  double total_variation = 0;    ///< 1/2 sum |f - b|
  /// sum b ln(b / f) - b + f, nats: the Kullback-Leibler divergence where both sum to 1, and never negative. NaN when
  /// some b < 0 or f < 0.
  double kullback_leibler = 0;
  double r_squared = 0;       ///< 1 - sum (f - b)^2 / sum (b - mean b)^2; NaN for constant b
  double support_fitted = 0;  ///< 1 / sum f^2, effective number of rows
  double support_target = 0;  ///< (sum b)^2 / sum b^2
  double target_sum = 0;      ///< sum b
};

/// How much is looked at after a solve.
enum class CertificateLevel {
  none,
  gradient,  ///< the gradient from a fresh A x: no read of A, or two if the solver's last A x was not fresh
  full,      ///< and the spectrum of the Hessian, a bound on |x - x*|: up to 10 reads (docs/certificate.md)
};
std::string_view certificate_level_name(CertificateLevel level);  ///< "gradient"

/// What the spectrum of the Hessian says about x. It is a statement about H, even where the gradient is not small.
enum class StationaryKind {
  local_minimum,  ///< smallest eigenvalue > its rounding
  saddle,         ///< smallest eigenvalue < -its rounding: x is no local minimum
  degenerate,     ///< the smallest eigenvalue is 0 to within rounding
  unknown,        ///< not looked at, too large, or not finite
};
std::string_view stationary_kind_name(StationaryKind kind);  ///< "local minimum"

/// An assumption of the source papers, looked up in the problem at hand.
struct Assumption {
  std::string name;
  std::string statement;  ///< "value <= required", in words and formulas
  double value;           ///< NaN where it cannot be computed
  double required;        ///< NaN where the statement has no threshold
  bool holds;
};

/// The figures of the local bound on |x - x*| (theorem 1 of docs/certificate.md); NaN where they were not reached.
/// |.|_H is the norm sqrt(v^T H v).
struct DistanceFigures {
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  double eta = kNone;               ///< |g|_{H^-1}, the rounding of g included
  double hessian_rounding = kNone;  ///< theta: rounding of H relative to its smallest eigenvalue
  double row_distance = kNone;      ///< rho = max_i |a_i - abar|_{H^-1}
  double ball = kNone;              ///< R = 2 eta / (1 - theta), the ball |y - x|_H <= R that was looked at
  double third_derivative = kNone;  ///< K, bounds the third derivative in that ball
  double condition = kNone;         ///< 2 K eta / (1 - theta)^2; the bound needs < 1
  double radius = kNone;            ///< r: exactly one stationary point, a minimum, has |x - x*|_H <= r
};

/// What can be said about a point x, from x alone. All values are replicated.
struct Certificate {
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  CertificateLevel level = CertificateLevel::none;
  double gradient_norm = kNone;      ///< Euclidean
  double relative_gradient = kNone;  ///< |g|_s / gradient_reference of the solve
  double reads = 0;                  ///< reads of A that the certificate cost
  bool minimiser_exists = false;     ///< b and w alone show it, of the convex loss; false: they do not
  double seconds = 0;                ///< likewise, on rank 0

  // From here on: full only, else NaN and empty.
  double gradient_floor = kNone;       ///< the estimated rounding error of the gradient
  double newton_decrement = kNone;     ///< sqrt(g^T H^-1 g), where H is positive definite
  double smallest_eigenvalue = kNone;  ///< of H at x; of the scaled columns, where they differ by more than 2^10
  double largest_eigenvalue = kNone;
  double eigenvalue_rounding = kNone;  ///< estimated error of the two
  StationaryKind kind = StationaryKind::unknown;
  std::string no_minimiser;  ///< why L has no minimiser, where that was found; else empty
  double convexity = 0;      ///< l > 0: H(y) >= l I for every y, so that x* is the only minimum; 0: not shown
  std::optional<double> distance_bound;  ///< on |x - x*|, Euclidean
  std::string distance_reason;           ///< how the bound was found, or why there is none, with the figures
  DistanceFigures figures;
  std::vector<Assumption> assumptions;  ///< of the papers; softmax only
};

}  // namespace attnreg
