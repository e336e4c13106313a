#pragma once

#include <Eigen/Core>
#include <cstdint>

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

namespace scalapack {

/// Local. Throws `OutOfMemory` (all ranks) if a local part of rows x columns entries, or the work space of a QR
/// factorization for it, is beyond the 32-bit sizes of ScaLAPACK. Its arguments are those of the process with most.
void require_32_bits(std::int64_t local_rows, std::int64_t local_columns, std::int64_t block);

}  // namespace scalapack

}  // namespace attnreg
