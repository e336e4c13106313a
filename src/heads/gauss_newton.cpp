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

std::optional<GaussNewtonState> state_in(const Stage& stage, const HeadFactors& like) {
  if (stage.numbers.size() != 9 || stage.vectors.size() != 4 || stage.vectors[0].size() != like.size())
    return std::nullopt;
  return GaussNewtonState{{like.with(stage.vectors[0]), stage.vectors[1]},
                          stage.numbers[1],
                          stage.numbers[2],
                          static_cast<int>(stage.numbers[3]),
                          stage.numbers[4] != 0};
}

HeadMatrices matrices_in(const Stage& stage) {
  const auto size = [&](std::size_t k) { return static_cast<Index>(stage.numbers[k]); };
  return {stage.vectors[2].reshaped(size(5), size(6)), stage.vectors[3].reshaped(size(7), size(8))};
}

void leave(const GaussNewtonState& state, double value, const HeadMatrices& X, Journal& journal, Stage& stage,
           bool finished) {
  if (stage.finished) return;
  stage.numbers = {value, state.damping, state.first_gain, static_cast<double>(state.steps),
                   state.converged ? 1.0 : 0.0};
  for (const MatrixXd* matrix : {&X.P, &X.Q})
    stage.numbers.insert(stage.numbers.end(),
                         {static_cast<double>(matrix->rows()), static_cast<double>(matrix->cols())});
  stage.vectors = {state.at.u.numbers(), state.at.values, X.P.reshaped(), X.Q.reshaped()};
  journal.update(finished);
}

namespace {

/// One loss of a head.
struct LossOfHead {
  HeadPasses& passes;
  HeadLoss loss;

  const Communicator& communicator() const { return passes.inputs().communicator(); }
  HeadMatrices matrices(const HeadFactors& u) const { return passes.matrices(u); }
  HeadFactors coordinates(const HeadMatrices& X) const { return passes.coordinates(X); }
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
