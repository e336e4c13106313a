#include "attnreg/certificate.hpp"
#include "rows/row_passes.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <optional>
#include <span>
#include <utility>

#include "algebra/symmetric_eigen.hpp"
#include "certificate/certify.hpp"
#include "certificate/global_convexity.hpp"
#include "certificate/hessian_variation.hpp"
#include "certificate/papers_assumptions.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

std::string_view certificate_level_name(CertificateLevel level) {
  switch (level) {
    case CertificateLevel::none: return "none";
    case CertificateLevel::gradient: return "gradient";
    case CertificateLevel::full: return "full";
  }
  return "unknown";
}

std::string_view stationary_kind_name(StationaryKind kind) {
  switch (kind) {
    case StationaryKind::local_minimum: return "local minimum";
    case StationaryKind::saddle: return "saddle";
    case StationaryKind::degenerate: return "degenerate";
    case StationaryKind::unknown: return "unknown";
  }
  return "unknown";
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
        x_(point.x),
        gradient_(point.gradient),
        state_(objective.state_of(point)),
        options_(options),
        certificate_(certificate),
        rows_{objective.fitted(point), objective.b(), state_.delta, {}} {
    find_rounding(objective.gradient_floor(point));
    find_spectrum(objective.hessian_on_root(point));
    const GlobalConvexity convexity = global_convexity(objective, true);
    certificate_.convexity = convexity.convexity;
    bound_distance_by_curvature();
    bound_distance_by_convexity();
    if (objective.loss().name() == "softmax") look_up_assumptions(convexity);
  }

 private:
  void find_rounding(double gradient_floor);
  void find_spectrum(const Hessian& hessian);
  void bound_distance_by_curvature();
  void bound_distance_by_convexity();
  void look_up_assumptions(const GlobalConvexity& convexity);
  double local_distance() const;
  void unavailable(const std::string& reason) { certificate_.distance_reason = "not available: " + reason; }

  const RegressionObjective& objective_;
  const RowMatrix& A_;
  const VectorXd &x_, &gradient_;
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
  certificate_.newton_decrement = (N_.transpose() * gradient_).norm();
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
  figures.radius = figures.ball / (1 + std::sqrt(1 - figures.condition));
  certificate_.distance_bound = local_distance();
  certificate_.distance_reason = "local: 2 K eta / (1 - theta)^2 = " + decimal(figures.condition) +
                                 " < 1; x* is the only stationary point with |x - x*|_H <= " + decimal(figures.ball) +
                                 " and a minimum";
}

// |x - x*| through the ball, or through x* - x = -H^-1 g + H^-1 (what is not linear), whichever is smaller.
double Examination::local_distance() const {
  const DistanceFigures& figures = certificate_.figures;
  const double smallest = certificate_.smallest_eigenvalue, r = figures.radius;
  const double newton_step = (N_ * (N_.transpose() * gradient_)).norm();
  const double curved = (figures.hessian_rounding + 0.5 * figures.third_derivative * r) * r / std::sqrt(smallest);
  const double refined = newton_step + gradient_rounding_ / smallest + curved;
  return std::min(r / std::sqrt(smallest), refined) * kSlack;
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

void Examination::look_up_assumptions(const GlobalConvexity& convexity) {
  const VectorXd& w2 = objective_.weights_squared();
  const double most = w2.size() > 0 ? -w2.minCoeff() : -std::numeric_limits<double>::infinity();
  std::optional<double> start_distance;
  if (options_.x0 && certificate_.distance_bound)
    start_distance = (*options_.x0 - x_).norm() + *certificate_.distance_bound;
  certificate_.assumptions = papers_assumptions(convexity, static_cast<double>(A_.rows_global()),
                                                -A_.communicator().max(most), x_.norm(), start_distance);
}

}  // namespace

Certificate certify(RegressionObjective& objective, Point& point, const CertificateOptions& options) {
  Certificate certificate;
  certificate.level = options.level;
  if (options.level == CertificateLevel::none) return certificate;
  const double reads_before = objective.reads_of_a();
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
  return certificate;
}

}  // namespace attnreg
