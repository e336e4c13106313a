#include "apply/key_blocks.hpp"
#include "rows/row_passes.hpp"

#include <omp.h>

#include <numeric>
#include <string>
#include <vector>

#include "errors/refuse.hpp"
#include "kernels/gram_kernels.hpp"
#include "ranks/span_of.hpp"

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

void check_attention_shapes(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix* values) {
  if (queries.columns() != keys.columns())
    refuse("the queries have " + std::to_string(queries.columns()) + " columns and the keys " +
           std::to_string(keys.columns()) + "; inner products need as many");
  if (values != nullptr && values->rows_global() != keys.rows_global())
    refuse("there are " + std::to_string(keys.rows_global()) + " keys and " + std::to_string(values->rows_global()) +
           " values; each key needs one");
}

void add_weighted_values(const RowMajorMatrix& W, const RowMajorMatrix& V, Index first_row, RowMajorMatrix& out) {
  kernels::add_matrix_product(W.data(), W.rows(), W.cols(), V.data(), V.cols(), false, out.row(first_row).data());
}

void visit_attention_blocks(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix& values,
                            const std::function<void(const AttentionBlock&)>& add) {
  const RowMajorMatrix Q = dense_rows(queries, 0, queries.rows_local());
  const Index query_blocks = (Q.rows() + kQueryBlockRows - 1) / kQueryBlockRows;
  std::vector<RowMajorMatrix> products(static_cast<std::size_t>(omp_get_max_threads()));
  for (std::int64_t first = 0; first < keys.rows_global(); first += kKeyBlockRows) {
    const auto count = static_cast<Index>(std::min<std::int64_t>(kKeyBlockRows, keys.rows_global() - first));
    const RowMajorMatrix K = shared_rows(keys, first, count).transpose(), V = shared_rows(values, first, count);
#pragma omp parallel for schedule(static)
    for (Index block = 0; block < query_blocks; ++block) {
      const Index begin = block * kQueryBlockRows, rows = std::min(kQueryBlockRows, Q.rows() - begin);
      RowMajorMatrix& S = products[static_cast<std::size_t>(omp_get_thread_num())];
      S.setZero(rows, count);
      kernels::add_matrix_product(Q.row(begin).data(), rows, Q.cols(), K.data(), count, false, S.data());
      add({begin, S, V, first});
    }
  }
}

}  // namespace attnreg
