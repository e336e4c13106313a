#pragma once

#include <Eigen/Core>

#include "certificate/variation_in_ball.hpp"
#include "losses/growth_bounds.hpp"

namespace attnreg {

/// Of exp, cosh, sinh and their rescaled forms: theorem 3 of docs/certificate.md. `bound`: one read; rescaled, four.
class GrowthVariation final : public HessianVariation {
 public:
  /// Collective, one read. See `hessian_variation`.
  GrowthVariation(const RowMatrix& A, const PointRows& rows, const GrowthBounds& loss, const VariationFrame& frame);

 private:
  double bound_in_ball(double radius) const override;

  const PointRows& rows_;
  const GrowthBounds& loss_;
  GrowthBounds::Shared shared_;
  // |.|_{G^-1} at x, rounding included, of c = A^T v, of A^T (v o b), and of A^T (v o (b - |b|^2 1)).
  double slopes_ = 0, along_ = 0, coupled_ = 0;
};

}  // namespace attnreg
