#include "heads/gauss_newton.hpp"

#include "algebra/dense_factors.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

VectorXd diagonal_model(const HeadFactors& u, const VectorXd& values, double curvature, double damping) {
  HeadFactors diagonal = u;
  if (u.is_full()) {
    diagonal.numbers().setConstant(curvature + damping);
  } else {
    const VectorXd columns = (curvature * values).array() + damping;
    for (Index k = 0; k < u.rank(); ++k) {
      diagonal.U().col(k).setConstant(columns[k]);
      diagonal.V().col(k).setConstant(columns[k]);
    }
  }
  return diagonal.numbers();
}

double loss_at_zero(const HeadTarget& target, HeadLoss loss) {
  switch (loss) {
    case HeadLoss::cross_entropy: return target.entropy();
    case HeadLoss::softmax: return target.half_square();
    default: return target.log_odds_size();
  }
}

BalancedFactors balanced(const Communicator& communicator, HeadFactors u) {
  if (u.is_full()) return {std::move(u), VectorXd::Ones(1)};
  VectorXd values(u.rank());
  if (communicator.is_root()) {
    const MatrixXd left = orthonormal_columns(u.U()), right = orthonormal_columns(u.V());
    const ThinSvd svd = thin_svd((left.transpose() * u.U()) * (right.transpose() * u.V()).transpose());
    values = svd.values;
    const VectorXd roots = values.cwiseSqrt();
    u.U() = left * (svd.U * roots.asDiagonal());
    u.V() = right * (svd.V * roots.asDiagonal());
  }
  communicator.broadcast(span_of(u.numbers()));
  communicator.broadcast(span_of(values));
  return {std::move(u), std::move(values)};
}

namespace {

/// One loss of a head.
struct LossOfHead {
  HeadPasses& passes;
  HeadLoss loss;

  const Communicator& communicator() const { return passes.inputs().communicator(); }
  HeadLinearisation linearise(const HeadFactors& u) { return passes.linearise(u, loss); }
  VectorXd product(const HeadFactors& u, const HeadLinearisation& around, const VectorXd& p) {
    return passes.product(u, around, p);
  }
};

}  // namespace

GaussNewtonEnd gauss_newton(HeadPasses& passes, HeadFactors start, HeadLoss loss, const GaussNewtonOptions& options) {
  LossOfHead problem{passes, loss};
  const double none = options.rounding * options.rounding * loss_at_zero(passes.target(), loss);
  return minimise(problem, std::move(start), none, options);
}

}  // namespace attnreg
