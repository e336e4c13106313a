#pragma once

#include <Eigen/Core>
#include <memory>
#include <vector>

#include "attnreg/row_matrix.hpp"
#include "distributed_matrix.hpp"

namespace attnreg {

/// Rows of this rank, by local number, with the weights of two terms of a Gram matrix, both >= 0.
struct CurvedRows {
  std::vector<Index> rows;
  Eigen::VectorXd curvature, ridge;  ///< one per row
};

/// Collective. G = sum over the rows k of all ranks of curvature_k (a_k - centre)(a_k - centre)^T + ridge_k a_k a_k^T,
/// lower triangle, d x d over the grid. The ranks' parts of 256 columns at a time are added by a reduce-scatter, so
/// that a rank needs 8 d^2 / processes bytes and four panels of 256 d doubles. n d^2 flops; d / 256 reduce-scatters, 8
/// d^2 / 2 bytes in all, and one all-reduce of 8 (d + 1). Counts no reads, see `gram_reads`. centre: d.
DistributedMatrix distributed_gram(const RowMatrix& A, std::shared_ptr<const ProcessGrid> grid, const CurvedRows& rows,
                                   const Eigen::VectorXd& centre);

/// Columns or rows of a panel.
constexpr Index kPanel = 256;

/// Local. What `distributed_gram` reads of each row that takes part, in units of the row.
double gram_reads(Index d);

}  // namespace attnreg
