#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <memory>
#include <utility>

#include "attnreg/communicator.hpp"
#include "attnreg/row_partition.hpp"
#include "attnreg/row_storage.hpp"

namespace attnreg {

class RowPasses;

/// A, n x d with n >> d. Its rows are spread over the ranks in contiguous blocks, dense in double, float, half or
/// bfloat16, or sparse; each is held by one rank, and no more than a few are ever sent, samples of the method surrogate
/// to rank 0. The entries do not change. Copies are cheap: they share the rows and the count of reads.
class RowMatrix {
 public:
  /// Local. Takes over this rank's rows, rows_local x d. `InvalidArgument` (this rank) if they are more or fewer than
  /// the partition says; on all ranks if A has no rows or no columns, or the partition is for other ranks.
  RowMatrix(Communicator communicator, RowPartition partition, RowMajorMatrix rows);
  RowMatrix(Communicator communicator, RowPartition partition, RowMajorMatrixFloat rows);
  RowMatrix(Communicator communicator, RowPartition partition, RowMajorMatrixHalf rows);
  RowMatrix(Communicator communicator, RowPartition partition, RowMajorMatrixBfloat16 rows);
  RowMatrix(Communicator communicator, RowPartition partition, CsrRows rows);

  /// Local. Uses rows in the caller's memory, row-major without gaps. They must outlive the matrix and its copies.
  static RowMatrix view(Communicator communicator, RowPartition partition, const double* rows, Index columns);
  static RowMatrix view(Communicator communicator, RowPartition partition, const float* rows, Index columns);
  static RowMatrix view(Communicator communicator, RowPartition partition, const Eigen::half* rows, Index columns);
  static RowMatrix view(Communicator communicator, RowPartition partition, const Eigen::bfloat16* rows, Index columns);
  /// Local. Sparse ones likewise, as `check_rows` wants them. `InvalidArgument` as for rows that are taken over.
  static RowMatrix view(Communicator communicator, RowPartition partition, const CsrView& rows);

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
  double bytes_local() const;          ///< of these entries, and of the indices and offsets of sparse rows
  double reads() const;                ///< how often all rows were read so far; the same on all ranks

  /// Local, one read. This rank's part of A x. x: d, replicated; result: rows_local.
  Eigen::VectorXd multiply(const Eigen::VectorXd& x) const;

  // For attnreg itself, which is made of passes over the rows; `RowPasses` has no public declaration.
  explicit RowMatrix(std::shared_ptr<const RowPasses> passes) : passes_(std::move(passes)) {}
  const RowPasses& passes() const { return *passes_; }

 private:
  std::shared_ptr<const RowPasses> passes_;
};

/// A weight w_i for each row of the regulariser 1/2 |diag(w) A x|^2: numbers of their own, this rank's, or one for all
/// rows, which takes no memory. Copies share the numbers.
class RidgeWeights {
 public:
  RidgeWeights(double of_all) : RidgeWeights(Eigen::VectorXd(Eigen::VectorXd::Constant(1, of_all)), 0) {}
  template <class Derived>
  RidgeWeights(const Eigen::MatrixBase<Derived>& of_rows) : RidgeWeights(Eigen::VectorXd(of_rows), 1) {}
  RidgeWeights(Eigen::VectorXd of_rows) : RidgeWeights(std::move(of_rows), 1) {}

  bool are_equal() const { return stride_ == 0; }               ///< one for all rows
  const Eigen::VectorXd& numbers() const { return *numbers_; }  ///< one, or as many as there are rows
  const double* data() const { return numbers_->data(); }
  Eigen::Index stride() const { return stride_; }  ///< from one row to the next in `data`
  /// w_first, ..., of `count` rows, as a vector; it must not outlive all copies.
  auto rows(Eigen::Index first, Eigen::Index count) const {
    using Stride = Eigen::InnerStride<>;
    return Eigen::Map<const Eigen::VectorXd, 0, Stride>(data() + first * stride_, count, Stride(stride_));
  }
  RidgeWeights squared() const { return RidgeWeights(numbers_->cwiseAbs2(), stride_); }

 private:
  RidgeWeights(Eigen::VectorXd numbers, Eigen::Index stride)
      : numbers_(std::make_shared<const Eigen::VectorXd>(std::move(numbers))), stride_(stride) {}

  std::shared_ptr<const Eigen::VectorXd> numbers_;
  Eigen::Index stride_;
};

}  // namespace attnreg
