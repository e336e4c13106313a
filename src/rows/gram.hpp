#pragma once

#include <Eigen/Core>
#include <memory>
#include <optional>
#include <vector>

#include "algebra/distributed_matrix.hpp"
#include "attnreg/row_matrix.hpp"
#include "ranks/root_clock.hpp"

namespace attnreg {

/// Rows of this rank with the weights of their terms in a Gram matrix with centre c,
///
///     delta a a^T - m (a c^T + c a^T) + k c c^T + ridge a a^T.
///
/// Where m and k are not given they are delta, and the first three are delta (a - c)(a - c)^T. Terms with m and k
/// (`HessianForm`) or a ridge are positive semidefinite; others may be of either sign. One number per row.
struct WeightedRows {
  Eigen::VectorXd curvature;                   ///< delta
  Eigen::VectorXd ridge{};                     ///< >= 0; empty: 0
  Eigen::VectorXd coupling{}, self{};          ///< m and k, or empty
  std::optional<std::vector<Index>> chosen{};  ///< local numbers of the rows, ascending; none: all of this rank

  /// Local. Some of all rows, by local number, their weights multiplied by `factors`.
  WeightedRows choose(std::vector<Index> rows, const Eigen::VectorXd& factors) const;
};

/// Local, replicated. `leave` where the Gram matrix of all rows, counted as dense, is more than about a tenth of a
/// second of work for a rank.
OnStop on_stop_in_gram(const RowMatrix& A);
/// Whether the ranks were asked to stop. Collective where it is `leave`, an all-reduce of 8 bytes; else local: what the
/// messages so far have told.
bool is_left(const RowMatrix& A, OnStop on_stop);

/// A rank's part of a Gram matrix, the rows of either sign apart; d x d, symmetric and full.
struct SignedGram {
  Eigen::MatrixXd positive;  ///< of the rows with delta + ridge >= 0
  Eigen::MatrixXd negative;  ///< of the others, with |delta|
};

/// Local. The sum of the rows' terms: all Gram matrices of rows of A are made here, or panel by panel in
/// `distributed_gram`. One read for all rows; chosen ones are not counted, see `RowPasses::count_reads`. d^2 flops a
/// row, if sparse (its entries)^2. Equal numbers of threads give equal bits. centre: d, or empty for 0.
SignedGram signed_gram(const RowMatrix& A, const WeightedRows& rows, const Eigen::VectorXd& centre = {},
                       OnStop on_stop = OnStop::finish);

/// Local. The same without the rows with delta + ridge < 0: d x d, symmetric and full.
Eigen::MatrixXd positive_gram(const RowMatrix& A, const WeightedRows& rows, const Eigen::VectorXd& centre = {},
                              OnStop on_stop = OnStop::finish);

/// Local. The same, added to lower triangles: positive and negative have d x d numbers, by rows, and their strict upper
/// triangles are undefined afterwards. negative: or null, rows with delta + ridge < 0 being left out.
void add_signed_gram(const RowMatrix& A, const WeightedRows& rows, const Eigen::VectorXd& centre, double* positive,
                     double* negative = nullptr, OnStop on_stop = OnStop::finish);

/// Local. d x d, symmetric and full. lower: d x d numbers by rows, those of the strict upper triangle not looked at.
Eigen::MatrixXd full_symmetric(const double* lower, Index d);

/// Collective. The same sum over all ranks, lower triangle, d x d over the grid, for terms that are positive
/// semidefinite. The ranks' parts of 256 columns at a time are added by a reduce-scatter, so that a rank needs
/// 8 d^2 / processes bytes and four panels of 256 d doubles. n d^2 flops; d / 256 reduce-scatters, 8 d^2 / 2 bytes in
/// all, and one all-reduce of 8 (d + 1). Counts no reads, see `gram_reads`. centre: d.
DistributedMatrix distributed_gram(const RowMatrix& A, std::shared_ptr<const ProcessGrid> grid,
                                   const WeightedRows& rows, const Eigen::VectorXd& centre,
                                   OnStop on_stop = OnStop::finish);

/// Local. A sum s over the rows: with a ridge of some eps (diagonal + s c^2) neither the rounding of the diagonal nor
/// that of a gradient is taken for curvature. Few rows of large weight, which c is next to, count with the rounding of
/// c.
double uncentred_sum(const WeightedRows& rows);

/// Local. What `distributed_gram` reads of each row that takes part, in units of the row.
double gram_reads(Index d);

/// Local. gram += P^T P in the lower triangle; the strict upper one is undefined afterwards. P: k x d, its rows shared
/// between the threads; gram: d x d. k d^2 flops.
void add_gram(const RowMajorMatrix& P, RowMajorMatrix& gram);

}  // namespace attnreg
