#include "attnreg/row_matrix.hpp"

#include <string>
#include <type_traits>
#include <utility>

#include "rows/row_passes.hpp"

namespace attnreg {

namespace {

/// Throws unless this rank gave as many rows as the partition says.
void check_count(const RowPasses& passes, Index count) {
  if (count != passes.rows_local())
    throw InvalidArgument("rank " + std::to_string(passes.communicator().rank()) + " owns " +
                          std::to_string(passes.rows_local()) + " rows but was given " + std::to_string(count));
}

/// Passes over rows that they own from now on; `storage` tells where the moved rows are.
template <class Owner = void, class Rows, class StorageOf>
std::shared_ptr<const RowPasses> owning(Communicator communicator, RowPartition partition, Rows rows,
                                        StorageOf&& storage) {
  const auto count = rows.rows();
  auto owner = std::make_shared<const std::conditional_t<std::is_void_v<Owner>, Rows, Owner>>(std::move(rows));
  auto passes =
      std::make_shared<const RowPasses>(std::move(communicator), std::move(partition), storage(*owner), owner);
  check_count(*passes, count);
  return passes;
}

constexpr auto kDense = [](const auto& rows) { return RowPointers{rows.cols(), rows.data()}; };

/// Passes over rows that the caller owns.
template <class T>
std::shared_ptr<const RowPasses> viewing(Communicator communicator, RowPartition partition, const T* rows,
                                         Index columns) {
  return std::make_shared<const RowPasses>(std::move(communicator), std::move(partition), RowPointers{columns, rows},
                                           nullptr);
}

}  // namespace

RowMatrix::RowMatrix(Communicator communicator, RowPartition partition, RowMajorMatrix rows)
    : RowMatrix(owning(std::move(communicator), std::move(partition), std::move(rows), kDense)) {}

RowMatrix::RowMatrix(Communicator communicator, RowPartition partition, RowMajorMatrixFloat rows)
    : RowMatrix(owning(std::move(communicator), std::move(partition), std::move(rows), kDense)) {}

RowMatrix::RowMatrix(Communicator communicator, RowPartition partition, RowMajorMatrixHalf rows)
    : RowMatrix(owning(std::move(communicator), std::move(partition), std::move(rows), kDense)) {}

RowMatrix::RowMatrix(Communicator communicator, RowPartition partition, RowMajorMatrixBfloat16 rows)
    : RowMatrix(owning(std::move(communicator), std::move(partition), std::move(rows), kDense)) {}

RowMatrix::RowMatrix(Communicator communicator, RowPartition partition, CsrRows rows)
    : RowMatrix(owning<HeldCsr>(
          std::move(communicator), std::move(partition), std::move(rows),
          [](const HeldCsr& held) { return RowPointers{.columns = held.view.columns, .sparse = &held.view}; })) {}

RowMatrix RowMatrix::view(Communicator communicator, RowPartition partition, const double* rows, Index columns) {
  return RowMatrix(viewing(std::move(communicator), std::move(partition), rows, columns));
}
RowMatrix RowMatrix::view(Communicator communicator, RowPartition partition, const float* rows, Index columns) {
  return RowMatrix(viewing(std::move(communicator), std::move(partition), rows, columns));
}
RowMatrix RowMatrix::view(Communicator communicator, RowPartition partition, const Eigen::half* rows, Index columns) {
  return RowMatrix(viewing(std::move(communicator), std::move(partition), rows, columns));
}
RowMatrix RowMatrix::view(Communicator communicator, RowPartition partition, const Eigen::bfloat16* rows,
                          Index columns) {
  return RowMatrix(viewing(std::move(communicator), std::move(partition), rows, columns));
}

RowMatrix RowMatrix::view(Communicator communicator, RowPartition partition, const CsrView& rows) {
  auto owner = std::make_shared<const CsrView>(rows);  // of the pointers
  const RowPointers pointers{.columns = owner->columns, .sparse = owner.get()};
  const auto count = owner->rows();
  RowMatrix matrix(std::make_shared<const RowPasses>(std::move(communicator), std::move(partition), pointers, owner));
  check_count(matrix.passes(), count);
  return matrix;
}

const Communicator& RowMatrix::communicator() const { return passes_->communicator(); }
const RowPartition& RowMatrix::partition() const { return passes_->partition(); }
Index RowMatrix::columns() const { return passes_->columns(); }
Storage RowMatrix::storage() const { return passes_->storage(); }
bool RowMatrix::is_sparse() const { return passes_->is_sparse(); }
std::int64_t RowMatrix::entries_local() const { return passes_->entries_local(); }
double RowMatrix::bytes_local() const { return passes_->bytes_local(); }
double RowMatrix::reads() const { return passes_->reads(); }
Eigen::VectorXd RowMatrix::multiply(const Eigen::VectorXd& x) const { return passes_->multiply(x); }

}  // namespace attnreg
