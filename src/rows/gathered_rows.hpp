#pragma once

#include <Eigen/Core>
#include <span>

#include "attnreg/row_matrix.hpp"

namespace attnreg {

/// Copies of some rows of a matrix, with rows of the caller's own behind them: a small matrix whose rows stay on their
/// rank, or are sent to rank 0. Dense rows stay dense, sparse ones sparse, all in double.
class GatheredRows {
 public:
  /// Local. Not counted: the caller counts the rows of all ranks / n. rows_local: ascending.
  GatheredRows(const RowMatrix& A, std::span<const Index> rows_local);

  Index rows() const { return is_sparse_ ? sparse_.rows() : dense_.rows(); }
  /// Local. sum_i u_i a_i of this rank's rows. u: rows(); result: d.
  Eigen::VectorXd transpose_multiply(const Eigen::VectorXd& u) const;
  void append(const RowMajorMatrix& rows);  ///< Local. rows: k x d.
  std::int64_t numbers() const;             ///< Local. What `send_to_root` sends.
  /// Collective. The rows of all ranks on rank 0, in their order, and none elsewhere; likewise `more`, k numbers for
  /// each row. An all-gather of 8 bytes, and a gather.
  void send_to_root(const Communicator& communicator, RowMajorMatrix& more);
  /// Collective, one all-gather of 8 bytes. There must be a row on some rank.
  RowMatrix matrix(const Communicator& communicator) &&;

 private:
  bool is_sparse_;
  RowMajorMatrix dense_;
  CsrRows sparse_;
};

}  // namespace attnreg
