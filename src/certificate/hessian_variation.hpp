#pragma once

#include <memory>

#include "certificate/variation_in_ball.hpp"

namespace attnreg {

/// Collective, one read and n d^2 multiplications. A, the rows and N must outlive the result.
std::unique_ptr<HessianVariation> hessian_variation(const RowMatrix& A, const PointRows& rows, const LossBounds& loss,
                                                    const VariationFrame& frame);

}  // namespace attnreg
