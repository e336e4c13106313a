#include "rows/dense_rows.hpp"

#include <algorithm>
#include <numeric>
#include <span>
#include <vector>

#include "ranks/span_of.hpp"
#include "rows/row_passes.hpp"

namespace attnreg {

RowMajorMatrix dense_rows(const RowMatrix& matrix, Index first_local, Index count) {
  RowMajorMatrix rows(count, matrix.columns());
  std::vector<Index> wanted(static_cast<std::size_t>(count));
  std::iota(wanted.begin(), wanted.end(), first_local);
  matrix.passes().visit_rows(wanted, [&](std::size_t position, std::span<const double> row) {
    std::ranges::copy(row, rows.row(static_cast<Index>(position)).begin());
  });
  return rows;
}

RowMajorMatrix rows_in_place(const RowMatrix& matrix, std::int64_t first, Index count, const Eigen::VectorXd& scale) {
  RowMajorMatrix rows = RowMajorMatrix::Zero(count, matrix.columns());
  const std::int64_t mine = matrix.first_row(), begin = std::max(first, mine);
  const Index own = std::min(first + count, mine + matrix.rows_local()) - begin;
  if (own <= 0) return rows;
  rows.middleRows(begin - first, own) = dense_rows(matrix, begin - mine, own);
  if (scale.size() != 0)
    rows.middleRows(begin - first, own).array().colwise() *= scale.segment(begin - mine, own).array();
  return rows;
}

RowMajorMatrix shared_rows(const RowMatrix& matrix, std::int64_t first, Index count) {
  RowMajorMatrix rows = rows_in_place(matrix, first, count);
  matrix.communicator().sum(span_of(rows));
  return rows;
}

CsrRows sparse_rows(const RowMajorMatrix& dense) {
  CsrRows rows;
  rows.columns = dense.cols();
  for (Index i = 0; i < dense.rows(); ++i) {
    for (Index j = 0; j < dense.cols(); ++j) {
      if (dense(i, j) == 0) continue;
      rows.indices.push_back(static_cast<std::int32_t>(j));
      rows.values.push_back(dense(i, j));
    }
    rows.offsets.push_back(static_cast<std::int64_t>(rows.indices.size()));
  }
  return rows;
}

}  // namespace attnreg
