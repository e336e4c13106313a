#pragma once

#include <Eigen/Core>

namespace attnreg::kernels {

using Eigen::Index;

// Dense kernels on a block of rows that is in cache; A is row-major, rows x d. All sums run in a fixed order.

/// z_i = a_i . x
void multiply(const double* A, Index rows, Index d, const double* x, double* z);

/// out += sum_i u_i a_i
void add_transpose_multiply(const double* A, Index rows, Index d, const double* u, double* out);

/// out += sum_i u_i |a_i|
void add_absolute_transpose_multiply(const double* A, Index rows, Index d, const double* u, double* out);

}  // namespace attnreg::kernels
