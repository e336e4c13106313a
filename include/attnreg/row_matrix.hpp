#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <memory>
#include <utility>

#include "attnreg/communicator.hpp"
#include "attnreg/row_storage.hpp"
#include "attnreg/row_partition.hpp"

namespace attnreg {

class RowPasses;

/// A, n x d with n >> d, its rows spread over the ranks in contiguous blocks, each held by one rank. The entries do not
/// change. Copies are cheap: they share the rows and the count of reads.
class RowMatrix {
 public:
  /// Local. Takes over `rows` (rows_local x d); `InvalidArgument` (this rank) if they do not fit the partition.
  RowMatrix(Communicator communicator, RowPartition partition, RowMajorMatrix rows);
  RowMatrix(Communicator communicator, RowPartition partition, RowMajorMatrixFloat rows);
  RowMatrix(Communicator communicator, RowPartition partition, CsrRows rows);

  /// Local. Uses rows in the caller's memory, row-major without gaps, which must outlive the matrix and its copies.
  static RowMatrix view(Communicator communicator, RowPartition partition, const double* rows, Index columns);
  static RowMatrix view(Communicator communicator, RowPartition partition, const float* rows, Index columns);

  // Local.
  const Communicator& communicator() const;
  const RowPartition& partition() const;
  std::int64_t rows_global() const { return partition().rows_global(); }
  Index rows_local() const { return partition().rows_local(communicator().rank()); }
  std::int64_t first_row() const { return partition().begin(communicator().rank()); }
  Index columns() const;
  Storage storage() const;
  bool is_sparse() const;
  std::int64_t entries_local() const;  ///< stored entries of this rank: rows x columns unless sparse
  double bytes_local() const;          ///< of the stored entries, with the indices and offsets of sparse rows
  double reads() const;                ///< reads of A so far: passes over all local rows, counted alike on all ranks

  /// Local, one read. z = A x. x: d; result: rows_local.
  Eigen::VectorXd multiply(const Eigen::VectorXd& x) const;

  // The passes over the rows, of which attnreg is made. Not for users: `RowPasses` has no public declaration.
  explicit RowMatrix(std::shared_ptr<const RowPasses> passes) : passes_(std::move(passes)) {}
  const RowPasses& passes() const { return *passes_; }

 private:
  std::shared_ptr<const RowPasses> passes_;
};

}  // namespace attnreg
