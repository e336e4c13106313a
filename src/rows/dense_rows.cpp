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

RowMajorMatrix shared_rows(const RowMatrix& matrix, std::int64_t first, Index count) {
  RowMajorMatrix rows = RowMajorMatrix::Zero(count, matrix.columns());
  const std::int64_t mine = matrix.first_row(), begin = std::max(first, mine);
  const std::int64_t end = std::min(first + count, mine + matrix.rows_local());
  if (begin < end) rows.middleRows(begin - first, end - begin) = dense_rows(matrix, begin - mine, end - begin);
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
