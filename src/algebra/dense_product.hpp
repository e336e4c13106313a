#pragma once

#include <cstddef>

namespace attnreg {

/// A dense matrix in memory: element (i, j) at data[i + j * stride], or at data[i * stride + j] where it is stored by
/// rows. A vector whose elements are `stride` apart is a matrix of one column that is stored by rows.
template <class Number>
struct DensePart {
  Number* data;
  std::ptrdiff_t rows, columns, stride;
  bool by_rows;

  DensePart transposed() const { return {data, columns, rows, stride, !by_rows}; }
};

/// C += alpha A B by Eigen's kernels, so the bits do not depend on the CPU that runs them. Local.
void add_dense_product(double alpha, const DensePart<const double>& A, const DensePart<const double>& B,
                       const DensePart<double>& C);

}  // namespace attnreg
