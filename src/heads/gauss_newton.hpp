#pragma once

#include "heads/head_passes.hpp"

namespace attnreg {

/// Local. The loss at X = 0, about, with which the rounding of B is compared.
double loss_at_zero(const HeadTarget& target, HeadLoss loss);

struct GaussNewtonOptions {
  int steps = 14;
  int products = 20;        ///< at most, of a step
  double tolerance = 1e-3;  ///< of the gradient in the preconditioner's norm, relative to the first one
  double damping = 1e-3;    ///< Levenberg's, relative to the largest preconditioner; x 0.1 after a whole step, else x 4
  double forcing = 0.1;     ///< the residual that a step may leave, at most; less as the gradient falls
  double rounding = 0x1p-23;  ///< of B: an expected gain of the square of it, relative to the loss at X = 0, is none
};

struct GaussNewtonEnd {
  HeadFactors u;
  double value = 0;
  int steps = 0;
  bool converged = false;  ///< before the limit of steps
};

/// Minimises the loss from u by Gauss-Newton with conjugate gradients, damped as by Levenberg and Marquardt:
///
///     (J^T C J + damping) s = -g,  u <- balanced(u + t s),  t = 1, 1/4, ... with L(u + t s) <= L(u)
///
/// Collective. A step is a pass, and a pass for each product. Balanced factors have U^T U = V^T V diagonal, the
/// singular values of the logits: these precondition. Source: Nocedal, Wright, Numerical Optimization, section 10.3.
GaussNewtonEnd gauss_newton(HeadPasses& passes, HeadFactors u, HeadLoss loss, const GaussNewtonOptions& options);

/// The same X with U^T U = V^T V = diag(values), descending. Collective: rank 0 factors, one broadcast. Full X: as it
/// is, values are 1.
struct BalancedFactors {
  HeadFactors u;
  VectorXd values;
};
BalancedFactors balanced(const Communicator& communicator, HeadFactors u);

}  // namespace attnreg
