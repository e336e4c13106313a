#include "attnreg/certificate.hpp"
#include "rows/gram.hpp"
#include "rows/row_passes.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <utility>

#include "algebra/dense_factors.hpp"
#include "certificate/certify.hpp"
#include "certificate/global_convexity.hpp"
#include "certificate/hessian_variation.hpp"
#include "ranks/root_clock.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

std::string_view certificate_level_name(CertificateLevel level) {
  constexpr std::array<std::string_view, 3> names{"none", "gradient", "full"};
  return names.at(static_cast<std::size_t>(level));
}

std::string_view stationary_kind_name(StationaryKind kind) {
  constexpr std::array<std::string_view, 4> names{"local minimum", "saddle", "degenerate", "unknown"};
  return names.at(static_cast<std::size_t>(kind));
}

namespace {

constexpr double kSlack = 1 + 1e-6;  // covers the rounding of the last few operations on d-vectors

std::string decimal(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.3g", value);
  return text.data();
}

/// The full report on a point.
class Examination {
 public:
  Examination(RegressionObjective& objective, const Point& point, const CertificateOptions& options,
              Certificate& certificate)
      : objective_(objective),
        A_(objective.A()),
        point_(point),
        state_(objective.state_of(point)),
        options_(options),
        certificate_(certificate),
        rows_{objective.fitted(point), objective.b(), state_.delta, {}} {
    find_rounding(objective.gradient_floor(point));
    find_spectrum(objective.hessian_on_root(point));
    const GlobalConvexity global = global_convexity(objective, true);
    certificate_.convexity = global.convexity;
    bound_distance_by_curvature();
    bound_distance_by_convexity();
    if (objective.loss().name() == "softmax") look_up_assumptions(global);
  }

 private:
  void find_rounding(double gradient_floor);
  void find_spectrum(const Hessian& hessian);
  void bound_distance_by_curvature();
  void bound_distance_by_convexity();
  void look_up_assumptions(const GlobalConvexity& global);
  void unavailable(const std::string& reason) { certificate_.distance_reason = "not available: " + reason; }

  const RegressionObjective& objective_;
  const RowMatrix& A_;
  const Point& point_;
  const RegressionState& state_;
  const CertificateOptions& options_;
  Certificate& certificate_;
  PointRows rows_;
  const LossBounds* loss_bounds_ = find_loss_bounds(objective_.loss().name());
  double gradient_rounding_ = 0, hessian_rounding_ = 0;  // Euclidean; the Hessian's from its delta only
  MatrixXd N_;                                           // H^-1 = N N^T, where H is positive definite
};

// z_i has the rounding of a random sum, at most eps |a_i| max|x|. exp(z - reference) carries it, that of the reference,
// |reference| <= |z_i| + |ln f_i|, and its own; u(z) of the other losses carries it and its own.
void Examination::find_rounding(double gradient_floor) {
  constexpr double kEps = std::numeric_limits<double>::epsilon(), kTiny = std::numeric_limits<double>::min();
  const double centre = state_.centre.norm();
  const VectorXd& norms = A_.passes().row_norms();
  rows_.f_error = kEps * (4 + 2 * state_.largest_x * norms.array());
  const bool centred = objective_.loss().form() == HessianForm::centred;
  if (centred)
    rows_.f_error.array() -= kEps * rows_.f.array().max(kTiny).log().min(0.0);
  else
    rows_.f_error += kEps * state_.z.cwiseAbs();
  LossBounds::Rounding rounding{rows_.delta.cwiseAbs().cwiseProduct(rows_.f_error), 0};
  if (loss_bounds_) rounding = loss_bounds_->rounding(rows_, A_.communicator());
  double local = rounding.delta.dot((norms.array() + centre).square().matrix());
  if (!centred) {  // delta may be a small difference: its terms, and those of the coupling
    const auto error = rows_.f_error.array();
    const VectorXd terms = 2 * state_.positive - rows_.delta;
    local = (error * norms.array() * (terms.array() * norms.array() + 2 * centre * state_.m().array().abs())).sum() +
            centre * centre * (error * state_.k().array().abs()).sum();
  }
  hessian_rounding_ = A_.communicator().sum(local);
  certificate_.gradient_floor = gradient_floor;
  gradient_rounding_ = gradient_floor + rounding.mean * centre;
}

void Examination::find_spectrum(const Hessian& hessian) {
  const Index d = A_.columns();
  VectorXd message = VectorXd::Zero(4 + d * d);  // finite, smallest, largest, rounding; N
  if (A_.communicator().is_root()) {
    const SymmetricEigen eigen = symmetric_eigen(hessian.exact, true);
    const double rounding =
        hessian_rounding_ + eigenvalue_rounding(d, (2 * hessian.positive_part - hessian.exact).norm());
    if (eigen.finite && std::isfinite(rounding)) {
      message.head<4>() << 1, eigen.values[0], eigen.values[d - 1], rounding;
      if (eigen.values[0] > rounding) {
        const MatrixXd N = eigen.vectors * eigen.values.cwiseSqrt().cwiseInverse().asDiagonal();
        message.tail(d * d) = N.reshaped();
      }
    }
  }
  A_.communicator().broadcast(span_of(message));
  if (message[0] == 0) return;
  const double smallest = message[1], rounding = message[3];
  certificate_.smallest_eigenvalue = smallest;
  certificate_.largest_eigenvalue = message[2];
  certificate_.eigenvalue_rounding = rounding;
  certificate_.kind = smallest > rounding    ? StationaryKind::local_minimum
                      : smallest < -rounding ? StationaryKind::saddle
                                             : StationaryKind::degenerate;
  if (certificate_.kind != StationaryKind::local_minimum) return;
  N_ = message.tail(d * d).reshaped(d, d);
  certificate_.newton_decrement = (N_.transpose() * point_.gradient).norm();
}

void Examination::bound_distance_by_curvature() {
  DistanceFigures& figures = certificate_.figures;
  if (certificate_.kind != StationaryKind::local_minimum)
    return unavailable("the Hessian at x is not positive definite (smallest eigenvalue " +
                       decimal(certificate_.smallest_eigenvalue) + ", rounding " +
                       decimal(certificate_.eigenvalue_rounding) + ", |g| " + decimal(certificate_.gradient_norm) +
                       ")");
  const double smallest = certificate_.smallest_eigenvalue;
  const double theta = certificate_.eigenvalue_rounding / smallest;
  const double eta = certificate_.newton_decrement + gradient_rounding_ / std::sqrt(smallest);
  figures.hessian_rounding = theta;
  figures.eta = eta;
  figures.ball = 2 * eta / (1 - theta);
  if (!loss_bounds_)
    return unavailable("no bound of the third derivative is known for the loss " +
                       std::string(objective_.loss().name()));

  const HessianVariation variation(A_, rows_, state_.centre, *loss_bounds_, N_);
  figures.row_distance = variation.row_distance();
  figures.third_derivative = variation.bound(figures.ball);
  figures.condition = 2 * figures.third_derivative * eta / ((1 - theta) * (1 - theta));
  if (!(figures.condition < 1))
    return unavailable("2 K eta / (1 - theta)^2 = " + decimal(figures.condition) + " is not below 1 (eta " +
                       decimal(eta) + ", rho " + decimal(figures.row_distance) + ", K " +
                       decimal(figures.third_derivative) + ", theta " + decimal(theta) + ", smallest eigenvalue " +
                       decimal(smallest) + ")");
  // |x - x*| through the ball, or through x* - x = -H^-1 g + H^-1 (what is not linear), whichever is smaller.
  const double r = figures.radius = figures.ball / (1 + std::sqrt(1 - figures.condition));
  const double newton_step = (N_ * (N_.transpose() * point_.gradient)).norm();
  const double curved = (theta + 0.5 * figures.third_derivative * r) * r / std::sqrt(smallest);
  certificate_.distance_bound =
      kSlack * std::min(r / std::sqrt(smallest), newton_step + gradient_rounding_ / smallest + curved);
  certificate_.distance_reason = "local: 2 K eta / (1 - theta)^2 = " + decimal(figures.condition) +
                                 " < 1; x* is the only stationary point with |x - x*|_H <= " + decimal(figures.ball) +
                                 " and a minimum";
}

void Examination::bound_distance_by_convexity() {
  if (!(certificate_.convexity > 0)) return;
  const double distance = kSlack * (certificate_.gradient_norm + gradient_rounding_) / certificate_.convexity;
  if (!std::isfinite(distance)) return;
  const std::string global =
      "H(y) >= l I everywhere with l = " + decimal(certificate_.convexity) + ", x* is the only minimum";
  if (certificate_.distance_bound && *certificate_.distance_bound <= distance) {
    certificate_.distance_reason += "; " + global;
  } else {
    certificate_.distance_bound = distance;
    certificate_.distance_reason = "global: " + global + ", |x - x*| <= |g| / l";
  }
}

/// The table of arXiv 2304.10411 and its exposition, with the corrected constants next to theirs.
void Examination::look_up_assumptions(const GlobalConvexity& global) {
  constexpr double kNone = Certificate::kNone, kGoodStart = 0.1;  // |x0 - x*| M <= 0.1 l
  const VectorXd& w2 = objective_.weights_squared();
  const double most = w2.size() > 0 ? -w2.minCoeff() : -std::numeric_limits<double>::infinity();
  const double smallest_weight = -A_.communicator().max(most);
  const double R = std::max(global.norm_A, point_.x.norm());
  const bool small_target = global.target_norm <= 1 + 1e-12;
  const double lipschitz = 0.36115 + 0.35356 * global.target_norm;
  const double papers_M = 1.5 * std::log10(static_cast<double>(A_.rows_global())) + 30 * R * R / std::log(10.0);
  const double corrected_M =
      std::log10(small_target ? std::min(0.57141, lipschitz) : lipschitz) + 3 * std::log10(global.norm_A);
  const auto weights_row = [&](double constant, const std::string& name, const std::string& text) -> Assumption {
    return {name, "min w_i^2 >= " + text + " + l / sigma_min^2 for some l > 0", smallest_weight, constant,
            smallest_weight > constant && global.smallest_singular > 0};
  };
  // In decimal logarithms, since M overflows for R >= 5.
  const auto start_row = [&](double log10_M, const std::string& name, const std::string& text) -> Assumption {
    const bool known = options_.x0 && certificate_.distance_bound;
    const double value =
        known ? std::log10((*options_.x0 - point_.x).norm() + *certificate_.distance_bound) + log10_M : kNone;
    const double required = std::log10(kGoodStart * global.convexity);  // -inf without convexity
    return {name, "log10(|x0 - x*| M) <= log10(0.1 l), M = " + text, value, required,
            known && global.convexity > 0 && value <= required};
  };
  certificate_.assumptions = {
      {"radius", "R = max(|A|, |x|), so that |A| <= R and |x| <= R", R, kNone, std::isfinite(R)},
      {"target", "|b|_1 <= 1", global.target_norm, 1, small_target},
      {"rank", "sigma_min(A) > 0", global.smallest_singular, 0, global.smallest_singular > 0},
      weights_row(100, "weights (papers, sampled steps)", "100"),
      weights_row(4, "weights (papers)", "4"),
      weights_row(global.indefiniteness, "weights (tight)", "min(0.2405 if |b|_1 <= 1, 1/12 + 0.19246 |b|_1)"),
      {"convexity", "H(y) >= l I with l > 0 for all y; the largest l found", global.convexity, 0, global.convexity > 0},
      {"Lipschitz constant (papers)", "log10 M, M = n^1.5 exp(30 R^2)", papers_M, kNone, std::isfinite(papers_M)},
      {"Lipschitz constant (corrected)", "log10 M, M = K |A|^3, K = 0.57141 for |b|_1 <= 1", corrected_M, kNone,
       std::isfinite(corrected_M)},
      start_row(papers_M, "good start (papers)", "n^1.5 exp(30 R^2)"),
      start_row(corrected_M, "good start (corrected)", "K |A|^3"),
  };
}

}  // namespace

Certificate certify(RegressionObjective& objective, Point& point, const CertificateOptions& options) {
  Certificate certificate;
  certificate.level = options.level;
  if (options.level == CertificateLevel::none) return certificate;
  const double reads_before = objective.reads_of_a();
  const RootClock clock(objective.A().communicator());
  if (!objective.state_of(point).is_fresh()) point = objective.refreshed(std::move(point));
  certificate.gradient_norm = point.gradient.norm();
  if (options.gradient_reference > 0)
    certificate.relative_gradient = certificate.gradient_norm / options.gradient_reference;
  if (options.level == CertificateLevel::full) {
    if (!point.gradient.allFinite())
      certificate.distance_reason = "not available: the gradient is not finite";
    else if (objective.dimension() > options.largest_dimension)
      certificate.distance_reason = "not available: d = " + std::to_string(objective.dimension()) +
                                    " is above the limit of the dense examination, " +
                                    std::to_string(options.largest_dimension);
    else
      Examination(objective, point, options, certificate);
  }
  certificate.reads = objective.reads_of_a() - reads_before;
  certificate.seconds = clock.seconds();
  return certificate;
}

}  // namespace attnreg
