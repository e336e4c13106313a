#pragma once

#include <Eigen/Core>

#include "attnreg/communicator.hpp"

namespace attnreg {

/// The metric of a Gram matrix G = A A^T, d x d, and coordinates in which it is the identity. Replicated.
struct Whitening {
  Eigen::MatrixXd gram;             ///< G
  Eigen::MatrixXd W;                ///< d x k: W^T G W = I, and W^T null_directions = 0
  Eigen::MatrixXd null_directions;  ///< d x (d - k), orthonormal: nothing depends on them

  Eigen::Index dimension() const { return W.cols(); }
  /// Local. The whitened coordinates of the columns of P: W^T G P.
  Eigen::MatrixXd coordinates(const Eigen::MatrixXd& P) const;
};

/// Collective; rank 0 factors, one broadcast of d^2 numbers. Columns, scaled to equal norms, whose squared residual
/// from the others is below 1e-10 are dependent: what they add is a null direction. About 2 d^3 flops. gram: d x d,
/// replicated; of one that is 0 or not finite W has no columns.
Whitening whitening(const Communicator& communicator, Eigen::MatrixXd gram);

}  // namespace attnreg
