#include "packed_columns.hpp"

#include <algorithm>

namespace attnreg {

PackedColumns::PackedColumns(const Eigen::MatrixXd& N) {
  for (Index first = 0; first < N.cols(); first += kernels::kBlockColumns) {
    const Index width = std::min(kernels::kBlockColumns, N.cols() - first);
    groups_.emplace_back(RowMajorMatrix::Zero(N.rows(), kernels::kBlockColumns));
    groups_.back().leftCols(width) = N.middleCols(first, width);
  }
}

void add_product(const RowMajorMatrix& S, const Eigen::Ref<const RowMajorMatrix>& P, Part part, RowMajorMatrix& out) {
  RowMajorMatrix panel = RowMajorMatrix::Zero(P.rows(), kernels::kBlockColumns), Y(S.rows(), kernels::kBlockColumns);
  for (Index first = 0; first < P.cols(); first += kernels::kBlockColumns) {
    const Index width = std::min(kernels::kBlockColumns, P.cols() - first), top = part == Part::lower ? first : 0;
    const Index rows = S.rows() - top;
    panel.leftCols(width) = P.middleCols(first, width);
    kernels::multiply_block(S.data() + top * S.cols(), rows, S.cols(), panel.data(), Y.data());
    out.block(top, first, rows, width) += Y.topLeftCorner(rows, width);
  }
}

}  // namespace attnreg
