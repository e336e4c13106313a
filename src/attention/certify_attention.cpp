#include "attention/certify_attention.hpp"

#include <cmath>
#include <limits>
#include <string>

#include "algebra/dense_factors.hpp"
#include "attention/attention_gauge.hpp"
#include "attention/hessian_rounding.hpp"
#include "certificate/least_eigenvalue.hpp"
#include "ranks/activity.hpp"

namespace attnreg {

namespace {

/// What eliminating Y does to rounding: about the condition of K^T K, from its factor.
double elimination_condition(const Eigen::MatrixXd& L) {
  if (L.size() == 0) return 0;
  const double ratio = L.diagonal().maxCoeff() / L.diagonal().minCoeff();
  return ratio * ratio;
}

StationaryKind kind_of(const LeastEigenvalue& least, double rounding) {
  if (!least.is_finite || !std::isfinite(rounding)) return StationaryKind::unknown;
  if (least.value < -rounding) return StationaryKind::saddle;
  if (least.value <= rounding) return StationaryKind::degenerate;
  return least.is_settled && least.value - least.residual > rounding ? StationaryKind::local_minimum
                                                                     : StationaryKind::unknown;
}

/// In which unknowns a direction lies.
std::string place_of(const Eigen::VectorXd& v, Index of_X) {
  const double share = v.head(of_X).squaredNorm() / v.squaredNorm();
  return "X " + std::to_string(std::lround(100 * share)) + " %, Y " + std::to_string(std::lround(100 * (1 - share))) +
         " %";
}

}  // namespace

AttentionCertificate certify_attention(AttentionObjective& objective, AttentionPasses& passes,
                                       const std::vector<AttentionSequence>& sequences,
                                       const AttentionParameters& parameters, const Point& point,
                                       const AttentionCertificateOptions& options) {
  const InPhase phase(Phase::certificate);
  AttentionCertificate certificate;
  certificate.level = options.level;
  if (options.level == CertificateLevel::none) return certificate;
  certificate.gradient_norm = point.gradient.norm();  // a point of the objective is made from X anew
  if (options.gradient_reference > 0)
    certificate.relative_gradient = objective.norm(point.gradient) / options.gradient_reference;
  if (options.level != CertificateLevel::full) return certificate;
  const auto is_over = [&] {
    return passes.communicator().is_stopped() || passes.seconds() >= options.time_limit_seconds;
  };
  const auto why_over = [&] {
    return passes.communicator().is_stopped() ? "the run was stopped" : "the time limit came before its end";
  };
  if (is_over()) {
    certificate.reason = why_over();
    return certificate;
  }
  if (!point.gradient.allFinite()) {
    certificate.reason = "the gradient is not finite";
    return certificate;
  }
  const double passes_before = objective.reads_of_a();
  const AttentionState& state = AttentionObjective::state_of(point);
  const bool joint = objective.dimension() > parameters.size();
  certificate.gradient_floor = objective.gradient_floor(point, 0);
  const AttentionGauge gauge(passes, sequences, parameters, point.x.head(parameters.size()), joint);
  certificate.unknowns = objective.dimension();
  certificate.free_directions = objective.dimension() - gauge.dimension();
  certificate.null_directions = gauge.names();

  const auto product = [&](const Eigen::VectorXd& v) -> Eigen::VectorXd {
    const Eigen::VectorXd none = Eigen::VectorXd::Constant(v.size(), std::numeric_limits<double>::quiet_NaN());
    if (is_over()) return none;  // which ends the iteration
    Direction direction{v};
    const Eigen::VectorXd Hv = objective.hessian_product(point, direction);
    return passes.communicator().is_stopped() ? none : Hv;
  };
  const auto project = [&](const Eigen::VectorXd& v) { return gauge.project(v); };
  LanczosOptions lanczos;
  lanczos.most_steps = options.most_products;
  lanczos.seed = options.seed;
  const LeastEigenvalue least = least_eigenvalue({product, project, objective.dimension(), gauge.dimension()}, lanczos);
  certificate.products = least.steps;
  if (!least.is_finite) {
    certificate.reason = is_over()                ? why_over()
                         : gauge.dimension() == 0 ? "no direction is left"
                                                  : "a product with the Hessian is not finite";
    return certificate;
  }
  AttentionHessianRounding entries = hessian_rounding(passes, state.at);
  if (parameters.is_low_rank()) {  // X moves by |P| and |Q| times the unknowns
    const auto u = point.x.head(parameters.size());
    entries.X *= parameters.P(u).squaredNorm() + parameters.Q(u).squaredNorm();
  }
  const double eps = std::numeric_limits<double>::epsilon();
  certificate.eigenvalue_rounding = (joint ? std::pow(std::sqrt(entries.X) + std::sqrt(entries.Y), 2) : entries.X) +
                                    eigenvalue_rounding(least.steps, least.largest) +
                                    8 * eps * elimination_condition(state.normal) * least.largest;
  certificate.passes = objective.reads_of_a() - passes_before;
  certificate.smallest_eigenvalue = least.value;
  certificate.residual = least.residual;
  certificate.largest_eigenvalue = least.largest;
  certificate.is_complete = least.is_complete;
  certificate.kind = kind_of(least, certificate.eigenvalue_rounding);
  switch (certificate.kind) {
    case StationaryKind::degenerate:
      certificate.null_directions.push_back(
          "at least 1: the eigenvector of the smallest eigenvalue, of another origin (" +
          place_of(least.vector, parameters.size()) + ")");
      break;
    case StationaryKind::unknown:
      certificate.reason = "the smallest eigenvalue is not settled after " + std::to_string(least.steps) + " products";
      break;
    default: break;
  }
  return certificate;
}

}  // namespace attnreg
