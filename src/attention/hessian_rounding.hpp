#pragma once

#include "attention/attention_passes.hpp"

namespace attnreg {

/// Estimated errors of the blocks H_XX and H_YY of the Hessian, spectral norm.
struct AttentionHessianRounding {
  double X = 0, Y = 0;
};

/// Collective, one pass. The sum over rows j of |a_j|^2 times the errors of the form that row j has in the keys
/// (docs/certificate.md, "What is rigorous about rounding").
AttentionHessianRounding hessian_rounding(AttentionPasses& passes, const AttentionUnknowns& at);

}  // namespace attnreg
