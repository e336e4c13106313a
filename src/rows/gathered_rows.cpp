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
  const CsrView& all = *A.passes().sparse();
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

std::int64_t GatheredRows::numbers() const {
  return is_sparse_ ? 2 * sparse_.entries() + sparse_.rows() : std::int64_t{dense_.size()};
}

// A row is sent as its numbers in `more`, then its entries; of sparse rows their number, columns and values.
void GatheredRows::send_to_root(const Communicator& communicator, RowMajorMatrix& more) {
  std::vector<double> message;
  message.reserve(static_cast<std::size_t>(numbers() + more.size()));
  const auto append = [&](const auto& values) { message.insert(message.end(), values.begin(), values.end()); };
  for (Index i = 0; i < rows(); ++i) {
    append(more.row(i));
    if (!is_sparse_) {
      append(dense_.row(i));
      continue;
    }
    const auto first = sparse_.offsets[static_cast<std::size_t>(i)],
               count = sparse_.offsets[static_cast<std::size_t>(i) + 1] - first;
    message.push_back(static_cast<double>(count));
    append(std::span(sparse_.indices).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)));
    append(std::span(sparse_.values).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)));
  }
  const std::vector<double> all = communicator.gather_to_root(message);
  const Index columns = is_sparse_ ? sparse_.columns : dense_.cols(), width = more.cols();
  std::vector<double> others;
  sparse_ = {};
  sparse_.columns = columns;
  if (!is_sparse_) {
    const Eigen::Map<const RowMajorMatrix> table(all.data(), static_cast<Index>(all.size()) / (width + columns),
                                                 width + columns);
    more = table.leftCols(width);
    dense_ = table.rightCols(columns);
    return;
  }
  for (auto next = all.begin(); next != all.end();) {
    others.insert(others.end(), next, next + width);
    const auto count = static_cast<std::ptrdiff_t>(next[width]);
    const auto entries = next + width + 1;
    for (auto index = entries; index != entries + count; ++index)
      sparse_.indices.push_back(static_cast<std::int32_t>(*index));
    sparse_.values.insert(sparse_.values.end(), entries + count, entries + 2 * count);
    sparse_.offsets.push_back(static_cast<std::int64_t>(sparse_.indices.size()));
    next = entries + 2 * count;
  }
  more = Eigen::Map<const RowMajorMatrix>(others.data(), sparse_.rows(), width);
}

RowMatrix GatheredRows::matrix(const Communicator& communicator) && {
  auto partition = RowPartition::from_local(communicator, rows());
  if (is_sparse_) return {communicator, std::move(partition), std::move(sparse_)};
  return {communicator, std::move(partition), std::move(dense_)};
}

}  // namespace attnreg
