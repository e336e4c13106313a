#include "rows/packed_columns.hpp"

#include <algorithm>

#include "kernels/gram_kernels.hpp"

namespace attnreg {

PackedColumns::PackedColumns(const Eigen::MatrixXd& N) {
  for (Index first = 0; first < N.cols(); first += kernels::kBlockColumns) {
    const Index width = std::min(kernels::kBlockColumns, N.cols() - first);
    groups_.emplace_back(RowMajorMatrix::Zero(N.rows(), kernels::kBlockColumns));
    groups_.back().leftCols(width) = N.middleCols(first, width);
  }
}

void add_product(const RowMajorMatrix& S, const Eigen::Ref<const RowMajorMatrix>& P, Part part, RowMajorMatrix& out) {
  if (P.outerStride() != P.cols()) return add_product(S, RowMajorMatrix(P), part, out);
  kernels::add_matrix_product(S.data(), S.rows(), S.cols(), P.data(), P.cols(), part == Part::lower, out.data());
}

}  // namespace attnreg
