#pragma once

#include <Eigen/Core>

#include "kernels/row_block.hpp"

namespace attnreg::kernels {

using Eigen::Index;

// Dense kernels; A is row-major with d columns, in double or float; sums in double. A block that is read from memory
// should have four pieces some ten kilobytes apart: four streams are read faster than one (docs/performance.md). The
// sum of a row does not depend on the row's place.

/// z_i = a_i . x for the rows of the block, in its order.
void multiply(const double* A, const RowBlock& block, Index d, const double* x, double* z);
void multiply(const float* A, const RowBlock& block, Index d, const double* x, double* z);

/// z_i = a_i . x - shift, rounded about once: the products' and the sums' errors are summed too (Ogita, Rump, Oishi
/// 2005; the products' only where the CPU has fused multiply-add).
void multiply_compensated(const double* A, const RowBlock& block, Index d, const double* x, double shift, double* z);
void multiply_compensated(const float* A, const RowBlock& block, Index d, const double* x, double shift, double* z);

/// out += sum_i a_i u_i^T. U: rows x k, row-major, in the block's order; out: d x k, column-major.
void add_transpose_multiply(const double* A, const RowBlock& block, Index d, const double* U, Index k, double* out);
void add_transpose_multiply(const float* A, const RowBlock& block, Index d, const double* U, Index k, double* out);

/// y_i = a_i . x, by local row, and out += sum_i u_i a_i, u_i as in `RowCurvature`: each row is used twice while it is
/// in cache. out has d + 1 numbers; the last one gets sum_i curvature_i (y_i - centre).
void add_normal_product(const double* A, const RowBlock& block, Index d, const double* x, const RowCurvature& weights,
                        double* y, double* out);
void add_normal_product(const float* A, const RowBlock& block, Index d, const double* x, const RowCurvature& weights,
                        double* y, double* out);

/// out += sum_i u_i |a_i|
void add_absolute_transpose_multiply(const double* A, const RowBlock& block, Index d, const double* u, double* out);
void add_absolute_transpose_multiply(const float* A, const RowBlock& block, Index d, const double* u, double* out);

/// squares_i = |a_i o factor|^2. factor: d
void squared_norms(const double* A, const RowBlock& block, Index d, const double* factor, double* squares);
void squared_norms(const float* A, const RowBlock& block, Index d, const double* factor, double* squares);

}  // namespace attnreg::kernels
