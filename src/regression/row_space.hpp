#pragma once

#include <cstdint>
#include <memory>

#include "attnreg/regression.hpp"
#include "rows/scaled_columns.hpp"

namespace attnreg {

/// Local. Whether a regression is solved in the row space of A: A has more columns than rows, and so many that matrices
/// of d x d would be a burden. Not with a full certificate or an epsilon, which are about all of x.
bool solves_in_row_space(std::int64_t rows, std::int64_t columns, const RegressionOptions& options);

/// The row space of a wide A, n x d with d > n. L sees x through A x only, so that the least x with some L, in columns
/// of equal size, is a combination of the rows of A S^-1, S = diag(scale). With M, the rows of A S^-1 about their means
/// and those means (of a loss that does not see the sum of the logits' shifts; else the rows as they are), and its thin
/// singular value decomposition M = V Sigma U^T of rank r,
///
///     x = S^-1 U y,    A x = (V Sigma)_rows y + (offset . y) 1,    |y| = |S x|,
///
/// is the same regression with n x r numbers, and |g_y| is |g|_s of x. With a ridge, 1/2 sum_j r_j x_j^2, S is
/// diag(r / max r)^1/2, so that its minimiser is a combination of the rows, too, and 1/2 max r |y|^2 is the ridge. Rank
/// 0 has U, d x r; singular values of up to d eps times the largest are rounding, and left out.
class RowSpace {
 public:
  /// Collective. Rows of A are sent to rank 0: 8 n d bytes; it holds four times that for a moment, and then d (r + 1)
  /// numbers; about 6 n^2 d flops there. All ranks receive n r numbers. `sees_shift`: the loss sees the sum of the
  /// logits' shifts; `sees_level`: some weight is not 0. `OutOfMemory` on all ranks where that does not fit,
  /// `InvalidArgument` where A overflows.
  RowSpace(std::shared_ptr<const ScaledColumns> columns, bool sees_shift, bool sees_level);

  const std::shared_ptr<const ScaledColumns>& columns() const { return reduced_; }  ///< n x r
  /// Collective. The options with x0 as a y; what A x0 does not see of it is left out.
  RegressionOptions options(const RegressionOptions& options) const;
  /// Collective, 2 reads of A, one more with a ridge. Turns a result of the regression in y into one of that in x, with
  /// the value and the gradient of A itself; one whose gradient there is larger than the tolerance, and than rounding,
  /// is `stagnated`.
  void finish(const Eigen::VectorXd& b, const RidgeWeights& w, const RegressionOptions& options,
              RegressionResult& result) const;

 private:
  std::shared_ptr<const ScaledColumns> columns_, reduced_;
  Eigen::VectorXd metric_;  // S
  Eigen::MatrixXd U_;       // d x r, on rank 0
  Eigen::Index rank_ = 0;
};

}  // namespace attnreg
