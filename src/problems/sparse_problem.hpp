#pragma once

#include <Eigen/Core>

#include "problems/problem_work.hpp"

namespace attnreg {

/// Collective. Writes A of the sparse preset, A.npz and its three arrays; returns this rank's part of z = A x.
Eigen::VectorXd write_sparse_matrix(const ProblemWork& work, const Eigen::VectorXd& x);

}  // namespace attnreg
