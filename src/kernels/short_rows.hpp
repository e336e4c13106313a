#pragma once

#include "kernels/row_kernels.hpp"

namespace attnreg::kernels {

// The kernels of row_kernels.hpp for rows of a few columns, which are bound by what is done once for a row: here that
// is done for as many rows as a vector has lanes, and sums over rows stay in registers for a whole block.

constexpr Index kShortColumns = 8;

/// Whether there are such kernels for these rows.
inline bool are_short(const DenseBlock& A) {
  const bool is_known = std::holds_alternative<const double*>(A.rows) || std::holds_alternative<const float*>(A.rows);
  return is_known && A.columns <= kShortColumns;
}

void multiply_short(const DenseBlock& A, const double* x, double* z);
void add_transpose_multiply_short(const DenseBlock& A, const double* U, Index k, double* out);
void add_normal_product_short(const DenseBlock& A, const double* x, const RowCurvature& weights, double* y,
                              double* out);

}  // namespace attnreg::kernels
