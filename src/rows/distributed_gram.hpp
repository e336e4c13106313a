#pragma once

#include <Eigen/Core>
#include <memory>
#include <vector>

#include "attnreg/row_matrix.hpp"
#include "algebra/distributed_matrix.hpp"

namespace attnreg {

/// Weights of the rows in a Gram matrix: the form delta a a^T - m (a c^T + c a^T) + k c c^T of each, positive
/// semidefinite (`HessianForm`). m and k null: both are delta.
struct RowForms {
  const Eigen::VectorXd& delta;
  const Eigen::VectorXd* coupling;
  const Eigen::VectorXd* own;
};

/// Rows of this rank, by local number, with the weights of two terms of a Gram matrix, a `RowForms` and ridge a a^T
/// with ridge >= 0.
struct CurvedRows {
  std::vector<Index> rows;
  Eigen::VectorXd curvature, ridge;   ///< one per row
  Eigen::VectorXd coupling{}, own{};  ///< likewise, where they are not the curvature
  bool is_coupled = false;            ///< they are not
  const Eigen::VectorXd& self() const { return is_coupled ? own : curvature; }
};

/// Local. All rows of this rank.
CurvedRows all_rows(const RowForms& forms, const Eigen::VectorXd& ridge);
/// Local. The given rows, their weights multiplied by `factors`.
CurvedRows weighted_rows(const RowForms& forms, const Eigen::VectorXd& ridge, std::vector<Index> rows,
                         const Eigen::VectorXd& factors);

/// Local, not counted as a read. This rank's part of the G of `distributed_gram`, d x d, symmetric and full. 2 d^2
/// flops a row.
Eigen::MatrixXd local_gram(const RowMatrix& A, const CurvedRows& rows, const Eigen::VectorXd& centre);

/// Collective. G = sum over the rows k of all ranks of curvature_k (a_k - centre)(a_k - centre)^T + ridge_k a_k a_k^T,
/// or of the coupled forms with c = centre, lower triangle, d x d over the grid. The ranks' parts of 256 columns at a
/// time are added by a reduce-scatter, so that a rank needs 8 d^2 / processes bytes and four panels of 256 d doubles. n
/// d^2 flops; d / 256 reduce-scatters, 8 d^2 / 2 bytes in all, and one all-reduce of 8 (d + 1). Counts no reads, see
/// `gram_reads`. centre: d.
DistributedMatrix distributed_gram(const RowMatrix& A, std::shared_ptr<const ProcessGrid> grid, const CurvedRows& rows,
                                   const Eigen::VectorXd& centre);

/// Local. What `distributed_gram` reads of each row that takes part, in units of the row.
double gram_reads(Index d);

}  // namespace attnreg
