#include "rows/gathered_rows.hpp"

#include <algorithm>
#include <utility>

#include "rows/row_passes.hpp"

namespace attnreg {

GatheredRows::GatheredRows(const RowMatrix& A, std::span<const Index> rows_local) : is_sparse_(A.is_sparse()) {
  const auto count = static_cast<Index>(rows_local.size());
  if (!is_sparse_) {
    dense_.resize(count, A.columns());
    A.passes().visit_rows(rows_local, [&](std::size_t position, std::span<const double> row) {
      std::ranges::copy(row, dense_.row(static_cast<Index>(position)).begin());
    });
    return;
  }
  const CsrRows& all = *A.passes().sparse();
  sparse_.columns = A.columns();
  for (const Index row : rows_local) {
    const auto first = all.offsets[static_cast<std::size_t>(row)],
               last = all.offsets[static_cast<std::size_t>(row) + 1];
    for (auto k = static_cast<std::size_t>(first); k < static_cast<std::size_t>(last); ++k) {
      sparse_.indices.push_back(all.indices[k]);
      sparse_.values.push_back(all.is_single ? static_cast<double>(all.singles[k]) : all.values[k]);
    }
    sparse_.offsets.push_back(static_cast<std::int64_t>(sparse_.indices.size()));
  }
}

VectorXd GatheredRows::transpose_multiply(const VectorXd& u) const {
  if (!is_sparse_) return dense_.transpose() * u;
  VectorXd sum = VectorXd::Zero(sparse_.columns);
  for (Index i = 0; i < sparse_.rows(); ++i)
    for (auto k = static_cast<std::size_t>(sparse_.offsets[static_cast<std::size_t>(i)]);
         k < static_cast<std::size_t>(sparse_.offsets[static_cast<std::size_t>(i) + 1]); ++k)
      sum[sparse_.indices[k]] += u[i] * sparse_.values[k];
  return sum;
}

void GatheredRows::append(const RowMajorMatrix& rows) {
  if (!is_sparse_) {
    const Index before = dense_.rows();
    dense_.conservativeResize(before + rows.rows(), Eigen::NoChange);
    dense_.bottomRows(rows.rows()) = rows;
    return;
  }
  for (const auto& row : rows.rowwise()) {
    for (Index j = 0; j < row.size(); ++j) {
      sparse_.indices.push_back(static_cast<std::int32_t>(j));
      sparse_.values.push_back(row[j]);
    }
    sparse_.offsets.push_back(static_cast<std::int64_t>(sparse_.indices.size()));
  }
}

RowMatrix GatheredRows::matrix(const Communicator& communicator) && {
  auto partition = RowPartition::from_local(communicator, rows());
  if (is_sparse_) return {communicator, std::move(partition), std::move(sparse_)};
  return {communicator, std::move(partition), std::move(dense_)};
}

}  // namespace attnreg
