#pragma once

#include <Eigen/Core>

#include "problems/problem_generator.hpp"
#include "problems/problem_work.hpp"

namespace attnreg {

/// Collective. x_true of the coherent preset, up to its scale: orthogonal to the min(n, d) / 4 rows of largest norm (of
/// equal ones the first). Sets the two facts about row norms. Replicated.
Eigen::VectorXd orthogonal_solution(const ProblemWork& work, ProblemFacts& facts);

/// Collective. The scale at which softmax(scale z) has min(neff, (n + 1) / 2) effective rows, by bisection to 1e-10
/// relative; 1 for a single row. z: this rank's rows.
double scale_for_effective_rows(const ProblemWork& work, const Eigen::VectorXd& z);

}  // namespace attnreg
