#include "apply/key_blocks.hpp"

#include <omp.h>

#include <algorithm>

#include <string>
#include <vector>

#include "errors/refuse.hpp"
#include "kernels/gram_kernels.hpp"
#include "rows/dense_rows.hpp"

namespace attnreg {

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
