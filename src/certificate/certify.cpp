#include "attnreg/certificate.hpp"
#include "rows/gram.hpp"
#include "rows/row_passes.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <span>
#include <utility>

#include "algebra/symmetric_eigen.hpp"
#include "certificate/certify.hpp"
#include "certificate/hessian_variation.hpp"
#include "certificate/papers_assumptions.hpp"
#include "numbers/row_sums.hpp"
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

/// Sums over all rows of b and the smallest w^2.
struct RowFigures {
  double target_sum = 0, target_norm = 0, smallest_weight = 0;  ///< <b, 1>, |b|_1, min w^2
};

/// The full report on the objective's point.
class Examination {
 public:
  Examination(RegressionObjective& objective, const RowMatrix& A, const CertificateOptions& options,
              Certificate& certificate)
      : objective_(objective), A_(A), options_(options), certificate_(certificate) {}

  void run() {
    find_rounding();
    find_spectrum();
    find_row_figures();
    find_convexity();
    bound_distance_by_curvature();
    bound_distance_by_convexity();
    if (objective_.loss().name() == "softmax") look_up_assumptions();
  }

 private:
  void find_rounding();
  void find_spectrum();
  void find_row_figures();
  void find_convexity();
  void bound_distance_by_curvature();
  void bound_distance_by_convexity();
  void look_up_assumptions();
  double local_distance() const;
  void unavailable(const std::string& reason) { certificate_.distance_reason = "not available: " + reason; }

  RegressionObjective& objective_;
  const RowMatrix& A_;
  const CertificateOptions& options_;
  Certificate& certificate_;
  PointRows point_;
  const LossBounds* loss_bounds_ = find_loss_bounds(objective_.loss().name());
  double gradient_rounding_ = 0, hessian_rounding_ = 0;  // Euclidean; the Hessian's from its delta only
  MatrixXd N_;                                           // H^-1 = N N^T, where H is positive definite
  RowFigures rows_;
  double indefiniteness_ = 0, norm_A_ = 0, smallest_singular_ = 0;
};

// z_i has the rounding of a random sum, at most eps |a_i| max|x|. exp(z - reference) carries it, that of the reference,
// |reference| <= |z_i| + |ln f_i|, and its own; u(z) of the other losses carries it and its own.
void Examination::find_rounding() {
  constexpr double kEps = std::numeric_limits<double>::epsilon(), kTiny = std::numeric_limits<double>::min();
  const double largest_x = objective_.x().cwiseAbs().maxCoeff(), centre = objective_.centre().norm();
  const VectorXd& norms = A_.passes().row_norms();
  point_ = {objective_.fitted(), objective_.target(), objective_.curvature(), {}};
  point_.f_error = kEps * (4 + 2 * largest_x * norms.array());
  const bool centred = objective_.loss().form() == HessianForm::centred;
  if (centred)
    point_.f_error.array() -= kEps * point_.f.array().max(kTiny).log().min(0.0);
  else
    point_.f_error += kEps * objective_.logits().cwiseAbs();
  LossBounds::Rounding rounding{point_.delta.cwiseAbs().cwiseProduct(point_.f_error), 0};
  if (loss_bounds_) rounding = loss_bounds_->rounding(point_, A_.communicator());
  double local = rounding.delta.dot((norms.array() + centre).square().matrix());
  if (!centred) {  // delta may be a small difference: its terms, and those of the coupling
    const auto error = point_.f_error.array();
    const VectorXd terms = 2 * objective_.positive_curvature() - point_.delta;
    local = (error * norms.array() * (terms.array() * norms.array() + 2 * centre * objective_.coupling().array().abs()))
                .sum() +
            centre * centre * (error * objective_.self().array().abs()).sum();
  }
  hessian_rounding_ = A_.communicator().sum(local);
  certificate_.gradient_floor = objective_.gradient_floor();
  gradient_rounding_ = certificate_.gradient_floor + rounding.mean * centre;
}

void Examination::find_spectrum() {
  const Index d = objective_.dimension();
  const Hessian hessian = objective_.hessian_on_root();
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
  certificate_.newton_decrement = (N_.transpose() * objective_.gradient()).norm();
}

void Examination::find_row_figures() {
  const VectorXd &b = objective_.target(), &w2 = objective_.weights_squared();
  auto sums = sum_over_rows<2>(b.size(), [&](Index first, Index rows, std::array<double, 2>& block) {
    block[0] = b.segment(first, rows).sum();
    block[1] = b.segment(first, rows).lpNorm<1>();
  });
  A_.communicator().sum(sums);
  constexpr double kLowest = -std::numeric_limits<double>::infinity();
  const double smallest = -A_.communicator().max(w2.size() > 0 ? -w2.minCoeff() : kLowest);
  rows_ = {sums[0], sums[1], smallest};
}

// H(y) >= A^T (W^2 - c I) A for every y, since Hess phi >= -c I.
void Examination::find_convexity() {
  if (!loss_bounds_) return;
  const Index d = objective_.dimension();
  const double c = indefiniteness_ = loss_bounds_->indefiniteness(rows_.target_sum, rows_.target_norm);
  MatrixXd gram = MatrixXd::Zero(d, d);
  if (c > 0) {
    gram = signed_gram(A_, {VectorXd::Ones(A_.rows_local())}).positive;
    A_.communicator().sum_to_root(span_of(gram));
  }
  std::array<double, 3> message{};  // l, |A|, sigma_min
  if (A_.communicator().is_root()) {
    const MatrixXd& ridge = objective_.ridge_gram();
    const SymmetricEigen lower = symmetric_eigen(ridge - c * gram, false);
    if (lower.finite) message[0] = lower.values[0] - eigenvalue_rounding(d, ridge.norm() + c * gram.norm());
    const SymmetricEigen squares = symmetric_eigen(std::move(gram), false);
    if (squares.finite) {
      const double largest = std::max(0.0, squares.values[d - 1]), smallest = squares.values[0];
      message[1] = std::sqrt(largest);
      message[2] = smallest > eigenvalue_rounding(d, squares.values.norm()) ? std::sqrt(smallest) : 0;
    }
  }
  A_.communicator().broadcast(message);
  certificate_.convexity = std::max(0.0, message[0]);
  norm_A_ = message[1];
  smallest_singular_ = message[2];
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

  const HessianVariation variation(A_, point_, objective_.centre(), *loss_bounds_, N_);
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
  const double newton_step = (N_ * (N_.transpose() * objective_.gradient())).norm();
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

void Examination::look_up_assumptions() {
  PapersFigures figures;
  figures.norm_A = norm_A_;
  figures.smallest_singular = smallest_singular_;
  figures.norm_x = objective_.x().norm();
  figures.target_norm = rows_.target_norm;
  figures.indefiniteness = indefiniteness_;
  figures.smallest_weight = rows_.smallest_weight;
  figures.rows = static_cast<double>(A_.rows_global());
  figures.convexity = certificate_.convexity;
  if (options_.x0 && certificate_.distance_bound)
    figures.start_distance = (*options_.x0 - objective_.x()).norm() + *certificate_.distance_bound;
  certificate_.assumptions = papers_assumptions(figures);
}

}  // namespace

Certificate certify(RegressionObjective& objective, const RowMatrix& A, const CertificateOptions& options) {
  Certificate certificate;
  certificate.level = options.level;
  if (options.level == CertificateLevel::none) return certificate;
  const double reads_before = A.reads();
  if (!objective.is_fresh()) objective.move_to(objective.x());
  certificate.gradient_norm = objective.gradient().norm();
  if (options.gradient_reference > 0)
    certificate.relative_gradient = certificate.gradient_norm / options.gradient_reference;
  if (options.level == CertificateLevel::full) {
    if (!objective.gradient().allFinite())
      certificate.distance_reason = "not available: the gradient is not finite";
    else if (objective.dimension() > options.largest_dimension)
      certificate.distance_reason = "not available: d = " + std::to_string(objective.dimension()) +
                                    " is above the limit of the dense examination, " +
                                    std::to_string(options.largest_dimension);
    else
      Examination(objective, A, options, certificate).run();
  }
  certificate.reads = A.reads() - reads_before;
  return certificate;
}

}  // namespace attnreg
