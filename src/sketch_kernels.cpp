#include "sketch_kernels.hpp"

#include <algorithm>

#include "vector_clones.hpp"

namespace attnreg::kernels {

namespace {

// Four doubles, of which the compiler keeps a dozen in registers; it would not keep an array there.
typedef double Lanes __attribute__((vector_size(32)));

// Through memcpy: GCC 12 takes a vector type of lesser alignment for an aligned one inside clones.
#define ATTNREG_LOAD(lanes, from) __builtin_memcpy(&(lanes), from, sizeof(Lanes))
#define ATTNREG_STORE(to, lanes) __builtin_memcpy(to, &(lanes), sizeof(Lanes))

}  // namespace

ATTNREG_CLONES
void scatter_rows(const double* A, Index d, std::span<const Scatter> entries, double* out) {
  for (const auto& entry : entries) {
    const double* a = A + entry.source * d;
    double* to = out + entry.target * d;
    const double value = entry.value;
#pragma omp simd
    for (Index j = 0; j < d; ++j) to[j] += value * a[j];
  }
}

ATTNREG_CLONES
void multiply_block(const double* A, Index rows, Index d, const double* N, double* Y) {
  for (Index i = 0; i < rows; i += 6) {  // the last row is done again where there are fewer than 6
    const auto row = [&](Index k) { return std::min(i + k, rows - 1); };
    const double *a0 = A + row(0) * d, *a1 = A + row(1) * d, *a2 = A + row(2) * d;
    const double *a3 = A + row(3) * d, *a4 = A + row(4) * d, *a5 = A + row(5) * d;
    Lanes s0{}, s1{}, s2{}, s3{}, s4{}, s5{}, t0{}, t1{}, t2{}, t3{}, t4{}, t5{}, s, t;
    for (Index j = 0; j < d; ++j) {
      ATTNREG_LOAD(s, N + kBlockColumns * j);
      ATTNREG_LOAD(t, N + kBlockColumns * j + 4);
      s0 += a0[j] * s, t0 += a0[j] * t;
      s1 += a1[j] * s, t1 += a1[j] * t;
      s2 += a2[j] * s, t2 += a2[j] * t;
      s3 += a3[j] * s, t3 += a3[j] * t;
      s4 += a4[j] * s, t4 += a4[j] * t;
      s5 += a5[j] * s, t5 += a5[j] * t;
    }
    const auto y = [&](Index k) { return Y + row(k) * kBlockColumns; };
    ATTNREG_STORE(y(0), s0), ATTNREG_STORE(y(0) + 4, t0);
    ATTNREG_STORE(y(1), s1), ATTNREG_STORE(y(1) + 4, t1);
    ATTNREG_STORE(y(2), s2), ATTNREG_STORE(y(2) + 4, t2);
    ATTNREG_STORE(y(3), s3), ATTNREG_STORE(y(3) + 4, t3);
    ATTNREG_STORE(y(4), s4), ATTNREG_STORE(y(4) + 4, t4);
    ATTNREG_STORE(y(5), s5), ATTNREG_STORE(y(5) + 4, t5);
  }
}

}  // namespace attnreg::kernels
