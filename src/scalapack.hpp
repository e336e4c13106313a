#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <memory>
#include <vector>

#include "attnreg/communicator.hpp"
#include "attnreg/linear_solver.hpp"

namespace attnreg {

using Eigen::Index;

/// Local. The options with the shape of the grid decided: near-square, R = floor(sqrt(ranks)) rows and floor(ranks / R)
/// columns, unless it is given. `InvalidArgument` on all ranks for more processes than ranks, or a block size out of
/// range.
LinearSolverOptions with_grid(int ranks, LinearSolverOptions options);

/// Ranks as a grid of processes, numbered row by row; a rank beyond rows x columns is idle: it owns nothing, takes part
/// in no call of ScaLAPACK, and in all collectives. Owns the BLACS context, and a communicator of its own, whose
/// messages nobody counts.
class ProcessGrid {
 public:
  /// Collective. Errors: see `with_grid`.
  ProcessGrid(const Communicator& communicator, const LinearSolverOptions& options);
  ~ProcessGrid();
  ProcessGrid(const ProcessGrid&) = delete;
  ProcessGrid& operator=(const ProcessGrid&) = delete;

  const Communicator& communicator() const { return communicator_; }
  int context() const { return context_; }  ///< of BLACS
  int rows() const { return rows_; }
  int columns() const { return columns_; }
  Index block_size() const { return block_size_; }

  int row_of(int rank) const { return rank / columns_; }
  int column_of(int rank) const { return rank % columns_; }
  bool is_idle(int rank) const { return rank >= rows_ * columns_; }
  bool is_idle() const { return is_idle(communicator_.rank()); }

 private:
  Communicator communicator_;
  int rows_, columns_;
  Index block_size_;
  int system_handle_ = -1, context_ = -1;
};

class DistributedMatrix;

/// What is used of ScaLAPACK. All collective over the grid, idle ranks included; right sides and results with few
/// columns are replicated and bit-equal on all ranks. Only the lower triangle of a symmetric matrix or of L is read.
/// d^3 flops are shared by the processes; a solve sends O(d) numbers for each block column.
namespace scalapack {

/// Replaces the lower triangle of A by L, A = L L^T. False on all ranks if A is not finite (looked for before and
/// after, as pdpotrf does not see NaN) or not positive definite to working precision; A is lost then. d^3 / 3 flops.
bool factor_cholesky(DistributedMatrix& A);

Eigen::MatrixXd solve_cholesky(const DistributedMatrix& L, const Eigen::MatrixXd& B);      ///< L^-T L^-1 B
Eigen::VectorXd multiply_transpose(const DistributedMatrix& L, const Eigen::VectorXd& v);  ///< L^T v
Eigen::VectorXd solve_transpose(const DistributedMatrix& L, const Eigen::VectorXd& v);     ///< L^-T v
Eigen::VectorXd multiply_symmetric(const DistributedMatrix& A, const Eigen::VectorXd& v);  ///< A v

/// R of M = Q R in place of M's upper triangle (Householder; what is below is undefined). 2 rows columns^2 flops.
void factor_qr(DistributedMatrix& M);

/// The same with column pivoting of the first `rows` rows of M: column j of R is column pivots[j] of M. Matrix times
/// vector work only, so slow; for M that may be rank-deficient.
std::vector<Index> factor_pivoted_qr(DistributedMatrix& M, Index rows);

/// R11^-1 B, R11 the upper triangle of the first B.rows() rows and columns of R.
Eigen::MatrixXd solve_upper(const DistributedMatrix& R, const Eigen::MatrixXd& B);

/// Local. Throws `OutOfMemory` (all ranks) if a local part of rows x columns entries, or the work space of a QR
/// factorization for it, is beyond the 32-bit sizes of ScaLAPACK. Its arguments are those of the process with most.
void require_32_bits(std::int64_t local_rows, std::int64_t local_columns, std::int64_t block);

}  // namespace scalapack

}  // namespace attnreg
