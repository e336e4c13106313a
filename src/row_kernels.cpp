#include "row_kernels.hpp"

#include <cmath>

#include "vector_clones.hpp"

namespace attnreg::kernels {

namespace {
constexpr Index kBlock = 4;  // rows handled together: their dot products share the loads of x
}

ATTNREG_CLONES
void multiply(const double* A, Index rows, Index d, const double* x, double* z) {
  Index i = 0;
  for (; i + kBlock <= rows; i += kBlock) {
    const double *a0 = A + i * d, *a1 = a0 + d, *a2 = a1 + d, *a3 = a2 + d;
    double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (Index j = 0; j < d; ++j) {
      s0 += a0[j] * x[j];
      s1 += a1[j] * x[j];
      s2 += a2[j] * x[j];
      s3 += a3[j] * x[j];
    }
    z[i] = s0, z[i + 1] = s1, z[i + 2] = s2, z[i + 3] = s3;
  }
  for (; i < rows; ++i) {
    const double* a = A + i * d;
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (Index j = 0; j < d; ++j) s += a[j] * x[j];
    z[i] = s;
  }
}

ATTNREG_CLONES
void add_transpose_multiply(const double* A, Index rows, Index d, const double* u, double* out) {
  Index i = 0;
  for (; i + kBlock <= rows; i += kBlock) {
    const double *a0 = A + i * d, *a1 = a0 + d, *a2 = a1 + d, *a3 = a2 + d;
    const double u0 = u[i], u1 = u[i + 1], u2 = u[i + 2], u3 = u[i + 3];
#pragma omp simd
    for (Index j = 0; j < d; ++j) out[j] += (u0 * a0[j] + u1 * a1[j]) + (u2 * a2[j] + u3 * a3[j]);
  }
  for (; i < rows; ++i) {
    const double* a = A + i * d;
#pragma omp simd
    for (Index j = 0; j < d; ++j) out[j] += u[i] * a[j];
  }
}

ATTNREG_CLONES
void add_absolute_transpose_multiply(const double* A, Index rows, Index d, const double* u, double* out) {
  for (Index i = 0; i < rows; ++i) {
    const double* a = A + i * d;
#pragma omp simd
    for (Index j = 0; j < d; ++j) out[j] += u[i] * std::abs(a[j]);
  }
}

}  // namespace attnreg::kernels
