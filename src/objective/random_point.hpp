#pragma once

#include <cstdint>
#include <optional>

#include "objective/regression_objective.hpp"

namespace attnreg {

/// Local. d normal numbers, number k of the stream of random starts.
Eigen::VectorXd random_direction(Eigen::Index d, std::uint64_t seed, int k);

/// Collective, one read. x scaled so that A x has this standard deviation, or, where the loss sees their mean and grows
/// with them, is as large as that of normal logits: |z| <= 3 deviations. As it is if A x is constant, or 0.
Eigen::VectorXd with_logits_of(const RowMatrix& A, const Eigen::VectorXd& x, double deviation, bool shift_invariant);

/// Collective, one read. Start number `k` >= 1 of the random ones: Gaussian in the metric of the objective's
/// preconditioner, scaled so that the logits A x have standard deviation 2. Empty if there is none.
std::optional<Eigen::VectorXd> random_point(const RegressionObjective& objective, std::uint64_t seed, int k);

}  // namespace attnreg
