#pragma once

#include <Eigen/Core>

#include "algebra/hessian.hpp"
#include "attnreg/communicator.hpp"

namespace attnreg {

/// Collective on blocks, without a message where all ranks have some; else local. L L^T as a preconditioner. L: d x d, replicated, lower
/// triangular with a positive diagonal; of blocks, that of the first of each process counts. They hold it together, and
/// what several of them ask of it is computed once.
Preconditioner shared_preconditioner(const Communicator& communicator, Eigen::MatrixXd L, bool singular = false);

}  // namespace attnreg
