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
#include "certificate/separation.hpp"
#include "losses/losses.hpp"
#include "ranks/activity.hpp"
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
        rows_(objective.point_rows(point)) {
    if (is_over()) return;
    InSteps steps(6);
    std::optional<GlobalConvexity> global;
    if (!done(steps, "rounding", [&] { find_rounding(objective.gradient_rounding(point)); })) return;
    if (!done(steps, "Hessian", [&] {
          const Hessian hessian = objective.hessian_on_root(point, on_stop_in_gram(A_));
          if (A_.communicator().is_stopped()) return;
          steps.next("its eigenvalues, by LAPACK");
          find_spectrum(hessian);
        }))
      return;
    if (!done(steps, "convexity", [&] {
          global = global_convexity(objective, true);
          certificate_.convexity = global->convexity;
        }))
      return;
    if (!done(steps, "distance", [&] {
          bound_distance_by_curvature();
          bound_distance_by_convexity();
        }))
      return;
    steps.next("separation and assumptions");
    look_for_separation();
    if (objective.loss().name() == "softmax" && !is_over()) look_up_assumptions(*global);
  }

 private:
  /// Collective, one all-reduce of 8 bytes. Whether there is no time for the next part, or a rank was asked to stop.
  bool is_over() {
    const auto& communicator = A_.communicator();
    const bool over = clock_.sum(communicator) >= options_.seconds_left;
    if (!over && !communicator.is_stopped()) return false;
    unavailable_in_time();
    return true;
  }
  void unavailable_in_time() {
    const bool stopped = A_.communicator().is_stopped();
    if (certificate_.distance_bound || (!stopped && !certificate_.distance_reason.empty())) return;
    unavailable(stopped ? "the run was stopped" : "the time limit came before the end of the report");
  }
  /// Collective. Does a part of the work. False if there is no time for the next one, or the run was stopped: then the
  /// part, which may have been left early, does not count.
  template <class Work>
  bool done(InSteps& steps, const char* name, Work&& work) {
    steps.next(name);
    const Certificate before = certificate_;
    work();
    if (!is_over()) return true;
    if (A_.communicator().is_stopped()) {
      certificate_ = before;
      unavailable_in_time();
    }
    return false;
  }
  void find_rounding(const VectorXd& gradient_rounding);
  /// In the caller's units of x.
  VectorXd callers(const VectorXd& x) const { return x.cwiseProduct(objective_.columns().factor()); }
  void find_spectrum(const Hessian& hessian);
  void bound_distance_by_curvature();
  void bound_distance_by_convexity();
  void look_for_separation();
  void look_up_assumptions(const GlobalConvexity& global);
  bool is_centred() const { return objective_.loss().form() == HessianForm::centred; }
  void unavailable(const std::string& reason) { certificate_.distance_reason = "not available: " + reason; }

  const RegressionObjective& objective_;
  const RowMatrix& A_;
  const RootClock clock_{A_.communicator()};
  const Point& point_;
  const RegressionState& state_;
  const CertificateOptions& options_;
  Certificate& certificate_;
  PointRows rows_;
  const LossBounds& loss_bounds_ = loss_bounds(objective_.loss().name());
  double gradient_rounding_ = 0, hessian_rounding_ = 0;  // Euclidean; the Hessian's without that of its sum
  double mean_rounding_ = 0;                             // of the gradient's mean term, in the caller's units
  MatrixXd N_;                                           // H^-1 = N N^T, where H is positive definite
  double norm_of_N_ = 0;                                 // |x| <= norm_of_N |x|_H, x in the caller's units
  VectorXd flattest_;                                    // eigenvector of the smallest eigenvalue
};

// The Hessian carries the errors of delta, and of the centres c and h by which its rows are coupled; where the form of
// a row is made from a - t c, which may cancel, also that of its terms.
void Examination::find_rounding(const VectorXd& gradient_rounding) {
  constexpr double kEps = std::numeric_limits<double>::epsilon();
  const double c = state_.centre.norm(), h = state_.coupled_centre.norm();
  const auto norms = A_.passes().row_norms().array();
  const LossBounds::Rounding rounding = loss_bounds_.rounding(rows_, SumOfRanks(A_.communicator()));
  const Eigen::ArrayXd reach = norms + (is_centred() ? c : 0);
  std::array<double, 5> sums{};  // errors: from delta, of c, of h, of g; what the error of c is multiplied by
  sums[0] = (rounding.delta.array() * reach.square()).sum();
  sums[1] = (rounding.centre.array() * norms).sum();
  if (rounding.coupling.size() > 0) sums[2] = (rounding.coupling.array() * norms).sum();
  if (rounding.q.size() > 0) sums[3] = (rounding.q.array() * norms).sum();
  if (is_centred()) {
    sums[4] = (rows_.delta.array().abs() * reach).sum();
  } else {
    const RowCurvatures& rows = objective_.curvatures(point_);
    const Eigen::ArrayXd terms = 2 * rows.positive - rows.delta, m = rows.m().cwiseAbs();
    sums[0] += 8 * kEps * (norms * (terms * norms + 2 * c * m) + c * c * rows.k().array().abs()).sum();
    sums[4] = c * rows.self.sum();
  }
  A_.communicator().sum(sums);
  hessian_rounding_ = sums[0] + 2 * (sums[1] * (h + sums[4]) + sums[2] * c);
  certificate_.gradient_floor = objective_.callers_norm(gradient_rounding);
  gradient_rounding_ = gradient_rounding.norm() + rounding.mean * c + sums[3];
  mean_rounding_ = rounding.mean * objective_.callers_norm(state_.centre);
}

void Examination::find_spectrum(const Hessian& hessian) {
  const Index d = A_.columns();
  VectorXd message = VectorXd::Zero(4 + d + d * d);  // finite, smallest, largest, rounding; flattest; N
  if (A_.communicator().is_root()) {
    const SymmetricEigen eigen = symmetric_eigen(hessian.exact, true);
    const double rounding =
        hessian_rounding_ + eigenvalue_rounding(d, (2 * hessian.positive_part - hessian.exact).stableNorm());
    if (eigen.finite && std::isfinite(rounding)) {
      message.head<4>() << 1, eigen.values[0], eigen.values[d - 1], rounding;
      message.segment(4, d) = eigen.vectors.col(0);
      if (eigen.values[0] > rounding) {
        const MatrixXd N = eigen.vectors * eigen.values.cwiseSqrt().cwiseInverse().asDiagonal();
        message.tail(d * d) = N.reshaped();
      }
    }
  }
  A_.communicator().broadcast(span_of(message));
  if (message[0] == 0) return;
  flattest_ = message.segment(4, d);
  const double smallest = message[1], rounding = message[3];
  certificate_.smallest_eigenvalue = smallest;
  certificate_.largest_eigenvalue = message[2];
  certificate_.eigenvalue_rounding = rounding;
  certificate_.kind = smallest > rounding    ? StationaryKind::local_minimum
                      : smallest < -rounding ? StationaryKind::saddle
                                             : StationaryKind::degenerate;
  if (certificate_.kind != StationaryKind::local_minimum) return;
  N_ = message.tail(d * d).reshaped(d, d);
  const auto& columns = objective_.columns();
  norm_of_N_ = columns.is_scaled() ? (columns.factor().asDiagonal() * N_).norm() : 1 / std::sqrt(smallest);
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
  const auto made = hessian_variation(A_, rows_, loss_bounds_,
                                      {state_.centre, state_.coupled_centre, N_, objective_.logit_offsets()});
  const HessianVariation& variation = *made;
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
  const double newton_step = callers(N_ * (N_.transpose() * point_.gradient)).norm();
  const double rounding = norm_of_N_ * gradient_rounding_ / std::sqrt(smallest);
  const double curved = norm_of_N_ * (theta + 0.5 * figures.third_derivative * r) * r;
  certificate_.distance_bound = kSlack * std::min(norm_of_N_ * r, newton_step + rounding + curved);
  certificate_.distance_reason = "local: 2 K eta / (1 - theta)^2 = " + decimal(figures.condition) +
                                 " < 1; x* is the only stationary point with |x - x*|_H <= " + decimal(figures.ball) +
                                 " and a minimum";
}

void Examination::bound_distance_by_convexity() {
  if (!(certificate_.convexity > 0)) return;
  const double distance =
      kSlack * (certificate_.gradient_norm + certificate_.gradient_floor + mean_rounding_) / certificate_.convexity;
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

/// At the end of a solve that goes nowhere x, or the direction of least curvature, is nearly the way that it takes.
void Examination::look_for_separation() {
  if (certificate_.distance_bound) return;
  for (const VectorXd& candidate : {point_.x, flattest_, VectorXd(-flattest_)}) {
    if (candidate.size() == 0) continue;
    const Separation found = find_separation(objective_, candidate);
    if (!found.exists) continue;
    certificate_.no_minimiser = found.reason;
    return unavailable("no minimiser exists");
  }
}

/// The table of arXiv 2304.10411 and its exposition, with the corrected constants next to theirs.
void Examination::look_up_assumptions(const GlobalConvexity& global) {
  constexpr double kNone = Certificate::kNone, kGoodStart = 0.1;  // |x0 - x*| M <= 0.1 l
  const auto w2 = objective_.weights_squared();
  double most = -std::numeric_limits<double>::infinity();  // of -w_i^2
  for (Index i = 0; i < w2.size(); ++i)
    if (!objective_.logit_offsets().is_masked(i)) most = std::max(most, -w2[i]);
  const double smallest_weight = -A_.communicator().max(most);
  const VectorXd x = callers(point_.x);
  const double R = std::max(global.norm_A, x.norm());
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
    const double value = known ? std::log10((*options_.x0 - x).norm() + *certificate_.distance_bound) + log10_M : kNone;
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
  const InPhase phase(Phase::certificate);
  const double reads_before = objective.reads_of_a();
  const RootClock clock(objective.A().communicator());
  if (!objective.state_of(point).is_fresh()) point = objective.refreshed(std::move(point));
  certificate.minimiser_exists = minimiser_exists(objective);
  certificate.gradient_norm = objective.callers_norm(point.gradient);
  if (options.gradient_reference > 0)
    certificate.relative_gradient = objective.norm(point.gradient) / options.gradient_reference;
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
