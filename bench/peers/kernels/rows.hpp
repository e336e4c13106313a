// The rows of A that one process holds (all of them without MPI), and products with blocks of them.
#pragma once
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "npy.hpp"

namespace peers {

using Vector = std::vector<double>;

// Doubles that are not initialised, so that the threads that will use a page are the first to touch it.
class RawArray {
 public:
  RawArray() = default;
  explicit RawArray(std::size_t size)
      : data_(static_cast<double*>(std::aligned_alloc(64, (size * sizeof(double) + 63) / 64 * 64))) {
    if (data_ == nullptr) throw std::bad_alloc();
  }
  RawArray(RawArray&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  RawArray& operator=(RawArray&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  ~RawArray() { std::free(data_); }
  double* data() { return data_; }
  const double* data() const { return data_; }

 private:
  double* data_ = nullptr;
};

struct Rows {
  std::size_t count = 0;  // local
  int d = 0;
  bool sparse = false;
  RawArray dense;                         // count x d, row major
  std::vector<std::int64_t> row_pointer;  // CSR
  std::vector<std::int32_t> column;
  Vector value;

  // Rows first .. first + count - 1 of A.npy, or of A_indptr.npy, A_indices.npy, A_data.npy.
  void load(const std::string& directory, std::size_t first, std::size_t row_count, int columns) {
    count = row_count;
    d = columns;
    sparse = !npy::exists(directory + "/A.npy");
    if (sparse)
      load_sparse(directory, first);
    else
      load_dense(directory + "/A.npy", first);
  }

  // Rows of a block: dense ones fill 256 KB, so that the second product with a block finds it in the L2 cache.
  std::size_t block_rows() const {
    if (sparse) return 1024;
    return std::max<std::size_t>(8, (std::size_t(256) << 10) / (8 * std::size_t(d)) / 4 * 4);
  }

  const double* row(std::size_t i) const { return dense.data() + i * std::size_t(d); }

  // z = A[begin..end) x
  void multiply(std::size_t begin, std::size_t end, const double* x, double* z) const {
    if (sparse) {
      for (std::size_t i = begin; i < end; ++i) {
        double sum = 0;
        for (std::int64_t k = row_pointer[i]; k < row_pointer[i + 1]; ++k) sum += value[k] * x[column[k]];
        z[i - begin] = sum;
      }
      return;
    }
    std::size_t i = begin;
    for (; i + 4 <= end; i += 4) {
      const double *a0 = row(i), *a1 = a0 + d, *a2 = a1 + d, *a3 = a2 + d;
      double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
      for (int k = 0; k < d; ++k) {
        s0 += a0[k] * x[k];
        s1 += a1[k] * x[k];
        s2 += a2[k] * x[k];
        s3 += a3[k] * x[k];
      }
      z[i - begin] = s0, z[i - begin + 1] = s1, z[i - begin + 2] = s2, z[i - begin + 3] = s3;
    }
    for (; i < end; ++i) {
      const double* a = row(i);
      double sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int k = 0; k < d; ++k) sum += a[k] * x[k];
      z[i - begin] = sum;
    }
  }

  // y += A[begin..end)^T c
  void add_transposed(std::size_t begin, std::size_t end, const double* c, double* __restrict y) const {
    if (sparse) {
      for (std::size_t i = begin; i < end; ++i)
        for (std::int64_t k = row_pointer[i]; k < row_pointer[i + 1]; ++k) y[column[k]] += c[i - begin] * value[k];
      return;
    }
    std::size_t i = begin;
    for (; i + 4 <= end; i += 4) {
      const double *a0 = row(i), *a1 = a0 + d, *a2 = a1 + d, *a3 = a2 + d;
      const double c0 = c[i - begin], c1 = c[i - begin + 1], c2 = c[i - begin + 2], c3 = c[i - begin + 3];
#pragma omp simd
      for (int k = 0; k < d; ++k) y[k] += (c0 * a0[k] + c1 * a1[k]) + (c2 * a2[k] + c3 * a3[k]);
    }
    for (; i < end; ++i) {
      const double* a = row(i);
      const double factor = c[i - begin];
#pragma omp simd
      for (int k = 0; k < d; ++k) y[k] += factor * a[k];
    }
  }

  // Y[q] += A[begin..end)^T C[q], q = 0..3; C is 4 x stride, Y is 4 x d.
  void add_four_transposed(std::size_t begin, std::size_t end, const double* C, std::size_t stride,
                           double* __restrict Y) const {
    if (sparse) {
      for (std::size_t i = begin; i < end; ++i) {
        const double* c = C + (i - begin);
        const double c0 = c[0], c1 = c[stride], c2 = c[2 * stride], c3 = c[3 * stride];
        for (std::int64_t k = row_pointer[i]; k < row_pointer[i + 1]; ++k) {
          double* y = Y + column[k];
          y[0] += c0 * value[k], y[d] += c1 * value[k], y[2 * d] += c2 * value[k], y[3 * d] += c3 * value[k];
        }
      }
      return;
    }
    double* __restrict y0 = Y, * __restrict y1 = Y + d, * __restrict y2 = Y + 2 * d, * __restrict y3 = Y + 3 * d;
    std::size_t i = begin;
    for (; i + 4 <= end; i += 4) {
      const double *a0 = row(i), *a1 = a0 + d, *a2 = a1 + d, *a3 = a2 + d;
      const double *p = C + (i - begin), *q = p + stride, *s = q + stride, *t = s + stride;
#pragma omp simd
      for (int k = 0; k < d; ++k) {
        const double v0 = a0[k], v1 = a1[k], v2 = a2[k], v3 = a3[k];
        y0[k] += (p[0] * v0 + p[1] * v1) + (p[2] * v2 + p[3] * v3);
        y1[k] += (q[0] * v0 + q[1] * v1) + (q[2] * v2 + q[3] * v3);
        y2[k] += (s[0] * v0 + s[1] * v1) + (s[2] * v2 + s[3] * v3);
        y3[k] += (t[0] * v0 + t[1] * v1) + (t[2] * v2 + t[3] * v3);
      }
    }
    for (; i < end; ++i) {
      const double *a = row(i), *c = C + (i - begin);
      const double c0 = c[0], c1 = c[stride], c2 = c[2 * stride], c3 = c[3 * stride];
      for (int k = 0; k < d; ++k) y0[k] += c0 * a[k], y1[k] += c1 * a[k], y2[k] += c2 * a[k], y3[k] += c3 * a[k];
    }
  }

 private:
  void load_dense(const std::string& path, std::size_t first) {
    const std::size_t width = std::size_t(d);
    dense = RawArray(count * width);
#pragma omp parallel
    {
      const std::size_t threads = std::size_t(omp_get_num_threads()), thread = std::size_t(omp_get_thread_num());
      const std::size_t begin = count * thread / threads, end = count * (thread + 1) / threads;
      if (end > begin)
        npy::read(path, "<f8", (first + begin) * width, (end - begin) * width, dense.data() + begin * width);
    }
  }

  void load_sparse(const std::string& directory, std::size_t first) {
    row_pointer.resize(count + 1);
    npy::read(directory + "/A_indptr.npy", "<i8", first, count + 1, row_pointer.data());
    const std::int64_t offset = row_pointer.front();
    const std::size_t nonzeros = std::size_t(row_pointer.back() - offset);
    column.resize(nonzeros), value.resize(nonzeros);
    npy::read(directory + "/A_indices.npy", "<i4", std::size_t(offset), nonzeros, column.data());
    npy::read(directory + "/A_data.npy", "<f8", std::size_t(offset), nonzeros, value.data());
    for (std::int64_t& pointer : row_pointer) pointer -= offset;
  }
};

}  // namespace peers
