#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "attention/attention_objective.hpp"
#include "attnreg/attention_regression.hpp"

namespace attnreg {

struct AttentionCertificateOptions {
  CertificateLevel level = CertificateLevel::gradient;
  double gradient_reference = 0;  ///< what |g| is compared with; 0: `relative_gradient` is NaN
  int most_products = 300;        ///< full: of the Hessian; as many vectors of unknowns are kept on each rank
  std::uint64_t seed = 1;
  double time_limit_seconds = std::numeric_limits<double>::infinity();  ///< by the clock of the passes
};

/// Collective. What can be said about a point of the objective: docs/attention.md, "Certificate". Numerical trouble
/// never throws: it makes the kind `unknown`, with the reason. `full`: 1 pass for the rounding of the gradient and one
/// for each product, two with eliminated Y.
AttentionCertificate certify_attention(AttentionObjective& objective, AttentionPasses& passes,
                                       const std::vector<AttentionSequence>& sequences,
                                       const AttentionParameters& parameters, const Point& point,
                                       const AttentionCertificateOptions& options);

}  // namespace attnreg
