// L(x) = 1/2 |f - b|^2 + 1/2 |diag(w) A x|^2, f = softmax(A x), on the rows of one process.
//
// Every pass reads A once: a block of rows that fits the L2 cache is multiplied by x and, while it is still there, used
// for the transposed product. A peer that is given these kernels is faster than one that calls gemv twice.
//   softmax_pass     z = A x with a running maximum, and four sums that give value, gradient, A^T f and A^T v
//   curvature_pass   A^T D A p
//   gram_pass        A^T D A by dsyrk, n d^2 operations
// The Hessian is A^T D A - (A^T v)(A^T f)^T - (A^T f)(A^T v)^T + t (A^T f)(A^T f)^T with
// v = f (2 f - b), D = v - s f + w^2, s = <f - b, f>, t = <3 f - 2 b, f>: the low-rank part costs no read of A.
#pragma once
#include <cblas.h>

#include <cmath>
#include <limits>

#include "rows.hpp"

namespace peers {

// The sums of softmax_pass, with e = exp(z - maximum).
struct SoftmaxSums {
  double maximum = -std::numeric_limits<double>::infinity();
  double e = 0, e_squared = 0, e_target = 0, penalty = 0;  // sum e, sum e^2, sum e b, sum w^2 z^2
  Vector columns;                                          // A^T e^2, A^T (e b), A^T e, A^T (w^2 z)

  explicit SoftmaxSums(int d) : columns(4 * std::size_t(d), 0.0) {}

  // Makes the sums relative to a maximum that is at least the present one.
  void rescale(double new_maximum) {
    if (new_maximum == maximum) return;
    const double factor = std::isinf(maximum) ? 0.0 : std::exp(maximum - new_maximum);
    const std::size_t d = columns.size() / 4;
    for (std::size_t k = 0; k < d; ++k) columns[k] *= factor * factor;
    for (std::size_t k = d; k < 3 * d; ++k) columns[k] *= factor;
    e *= factor, e_squared *= factor * factor, e_target *= factor;
    maximum = new_maximum;
  }

  void add(SoftmaxSums other) {
    const double new_maximum = std::max(maximum, other.maximum);
    rescale(new_maximum), other.rescale(new_maximum);
    e += other.e, e_squared += other.e_squared, e_target += other.e_target, penalty += other.penalty;
    for (std::size_t k = 0; k < columns.size(); ++k) columns[k] += other.columns[k];
  }
};

// sum (f - b)^2 and sum f (f - b). SoftmaxSums would give them too, but by cancellation.
struct ResidualSums {
  double squared = 0, fitted = 0;
};

// All about one point x, the same on every process.
struct Point {
  double value = 0, s = 0, t = 0, f_squared = 0;
  Vector gradient, Af, Av, Af_squared;  // the last three: A^T f, A^T v, A^T f^2

  void set(const SoftmaxSums& sums, const ResidualSums& residual) {
    const std::size_t d = sums.columns.size() / 4;
    const double inverse = 1 / sums.e;
    f_squared = sums.e_squared * inverse * inverse;
    s = residual.fitted;
    t = 3 * f_squared - 2 * sums.e_target * inverse;
    value = 0.5 * residual.squared + 0.5 * sums.penalty;
    gradient.resize(d), Af.resize(d), Av.resize(d), Af_squared.resize(d);
    for (std::size_t k = 0; k < d; ++k) {
      const double Afb = sums.columns[d + k] * inverse;
      Af_squared[k] = sums.columns[k] * inverse * inverse;
      Af[k] = sums.columns[2 * d + k] * inverse;
      Av[k] = 2 * Af_squared[k] - Afb;
      gradient[k] = (Af_squared[k] - Afb) - s * Af[k] + sums.columns[3 * d + k];
    }
  }

  // y += (low-rank part of the Hessian) p
  void add_low_rank_product(const double* p, double* y) const {
    double fp = 0, vp = 0;
    for (std::size_t k = 0; k < Af.size(); ++k) fp += Af[k] * p[k], vp += Av[k] * p[k];
    for (std::size_t k = 0; k < Af.size(); ++k) y[k] -= Av[k] * fp + Af[k] * (vp - t * fp);
  }

  // H += low-rank part; the lower triangle, row major
  void add_low_rank(double* H) const { add_low_rank(H, Av, t); }

  // The same of the Gauss-Newton matrix, whose D is f^2 + w^2.
  void add_gauss_newton_low_rank(double* H) const { add_low_rank(H, Af_squared, f_squared); }

 private:
  void add_low_rank(double* H, const Vector& cross, double square) const {
    const std::size_t d = Af.size();
    for (std::size_t i = 0; i < d; ++i)
      for (std::size_t j = 0; j <= i; ++j) H[i * d + j] += square * Af[i] * Af[j] - cross[i] * Af[j] - Af[i] * cross[j];
  }
};

inline double norm(const Vector& a) {
  double sum = 0;
  for (double entry : a) sum += entry * entry;
  return std::sqrt(sum);
}

struct Problem {
  std::size_t n = 0, first_row = 0;
  int d = 0;
  Rows A;
  Vector b, w_squared, z, f, D;  // of the local rows

  static Problem shape_of(const std::string& directory) {
    Problem problem;
    if (npy::exists(directory + "/A.npy")) {
      const npy::Header header = npy::read_header(directory + "/A.npy");
      problem.n = header.shape.at(0), problem.d = int(header.shape.at(1));
    } else {
      problem.n = npy::read_header(directory + "/A_indptr.npy").shape.at(0) - 1;
      problem.d = int(npy::read_header(directory + "/x_true.npy").shape.at(0));
    }
    return problem;
  }

  // The rows of one part of `parts`.
  static Problem load(const std::string& directory, int part = 0, int parts = 1) {
    Problem problem = shape_of(directory);
    problem.first_row = problem.n * std::size_t(part) / std::size_t(parts);
    const std::size_t rows = problem.n * std::size_t(part + 1) / std::size_t(parts) - problem.first_row;
    problem.A.load(directory, problem.first_row, rows, problem.d);
    problem.b.resize(rows), problem.w_squared.resize(rows);
    problem.z.resize(rows), problem.f.resize(rows), problem.D.resize(rows);
    npy::read(directory + "/b.npy", "<f8", problem.first_row, rows, problem.b.data());
    npy::read(directory + "/w.npy", "<f8", problem.first_row, rows, problem.w_squared.data());
    for (double& w : problem.w_squared) w *= w;
    return problem;
  }

  std::size_t rows() const { return A.count; }
  std::size_t blocks() const { return (rows() + A.block_rows() - 1) / A.block_rows(); }
  std::size_t block_begin(std::size_t block) const { return std::min(rows(), block * A.block_rows()); }

  // Local sums at x. Leaves z, and exp(z - the maximum so far) in f: see normalise.
  SoftmaxSums softmax_pass(const double* x) {
    SoftmaxSums total(d);
    maximum_so_far_.resize(blocks());
#pragma omp parallel
    {
      SoftmaxSums mine(d);
      Vector coefficients(4 * A.block_rows());
#pragma omp for schedule(static)
      for (std::size_t block = 0; block < blocks(); ++block) softmax_block(block, x, mine, coefficients);
#pragma omp critical
      total.add(std::move(mine));
    }
    return total;
  }

  // Makes f the softmax, given the maximum of z and the sum of exp(z - maximum) over all processes. Local sums.
  ResidualSums normalise(double maximum, double sum) {
    double squared = 0, fitted = 0;
#pragma omp parallel for schedule(static) reduction(+ : squared, fitted)
    for (std::size_t block = 0; block < blocks(); ++block) {
      const double factor = std::exp(maximum_so_far_[block] - maximum) / sum;
      double block_squared = 0, block_fitted = 0;
#pragma omp simd reduction(+ : block_squared, block_fitted)
      for (std::size_t i = block_begin(block); i < block_begin(block + 1); ++i) {
        const double fi = f[i] * factor, residual = fi - b[i];
        f[i] = fi;
        block_squared += residual * residual, block_fitted += fi * residual;
      }
      squared += block_squared, fitted += block_fitted;
    }
    return {squared, fitted};
  }

  // One process: everything about x. One read of A.
  void evaluate(const double* x, Point& point) {
    const SoftmaxSums sums = softmax_pass(x);
    point.set(sums, normalise(sums.maximum, sums.e));
  }

  void set_hessian_diagonal(double s) {
#pragma omp parallel for simd schedule(static)
    for (std::size_t i = 0; i < rows(); ++i) D[i] = f[i] * (2 * f[i] - b[i] - s) + w_squared[i];
  }

  void set_gauss_newton_diagonal() {
#pragma omp parallel for simd schedule(static)
    for (std::size_t i = 0; i < rows(); ++i) D[i] = f[i] * f[i] + w_squared[i];
  }

  // y = A^T D A p, local rows
  void curvature_pass(const double* p, double* y) {
    std::fill(y, y + d, 0.0);
#pragma omp parallel
    {
      Vector mine(std::size_t(d), 0.0), u(A.block_rows());
#pragma omp for schedule(static)
      for (std::size_t block = 0; block < blocks(); ++block) {
        const std::size_t begin = block_begin(block), end = block_begin(block + 1);
        A.multiply(begin, end, p, u.data());
        for (std::size_t i = begin; i < end; ++i) u[i - begin] *= D[i];
        A.add_transposed(begin, end, u.data(), mine.data());
      }
#pragma omp critical
      for (int k = 0; k < d; ++k) y[k] += mine[std::size_t(k)];
    }
  }

  // u = A p, local rows
  void multiply(const double* p, double* u) const {
#pragma omp parallel for schedule(static)
    for (std::size_t block = 0; block < blocks(); ++block)
      A.multiply(block_begin(block), block_begin(block + 1), p, u + block_begin(block));
  }

  // Lower triangle, row major, of A^T D A, local rows. Rows with D = 0 cost nothing.
  void gram_pass(double* H) const {
    const std::size_t entries = std::size_t(d) * std::size_t(d);
    std::fill(H, H + entries, 0.0);
#pragma omp parallel
    {
      Vector mine(entries, 0.0);
      if (A.sparse)
        add_sparse_gram(mine.data());
      else
        add_dense_gram(mine.data());
#pragma omp critical
      for (std::size_t k = 0; k < entries; ++k) H[k] += mine[k];
    }
  }

  // diag(A^T D A), local rows
  void diagonal_pass(double* diagonal) const {
    std::fill(diagonal, diagonal + d, 0.0);
#pragma omp parallel
    {
      Vector mine(std::size_t(d), 0.0);
#pragma omp for schedule(static)
      for (std::size_t i = 0; i < rows(); ++i) {
        if (A.sparse) {
          for (std::int64_t k = A.row_pointer[i]; k < A.row_pointer[i + 1]; ++k)
            mine[std::size_t(A.column[k])] += D[i] * A.value[k] * A.value[k];
        } else {
          for (int k = 0; k < d; ++k) mine[std::size_t(k)] += D[i] * A.row(i)[k] * A.row(i)[k];
        }
      }
#pragma omp critical
      for (int k = 0; k < d; ++k) diagonal[k] += mine[std::size_t(k)];
    }
  }

 private:
  void softmax_block(std::size_t block, const double* x, SoftmaxSums& sums, Vector& coefficients) {
    const std::size_t begin = block_begin(block), size = block_begin(block + 1) - begin, stride = A.block_rows();
    double* zb = z.data() + begin;
    double* fb = f.data() + begin;
    const double *bb = b.data() + begin, *wb = w_squared.data() + begin;
    A.multiply(begin, begin + size, x, zb);
    double maximum = sums.maximum;
    for (std::size_t i = 0; i < size; ++i) maximum = std::max(maximum, zb[i]);
    sums.rescale(maximum);
    maximum_so_far_[block] = maximum;
    double *c0 = coefficients.data(), *c1 = c0 + stride, *c2 = c1 + stride, *c3 = c2 + stride;
    double e_sum = 0, e_squared = 0, e_target = 0, penalty = 0;
#pragma omp simd reduction(+ : e_sum, e_squared, e_target, penalty)
    for (std::size_t i = 0; i < size; ++i) {
      const double e = std::exp(zb[i] - maximum);
      fb[i] = e;
      c0[i] = e * e, c1[i] = e * bb[i], c2[i] = e, c3[i] = wb[i] * zb[i];
      e_sum += e, e_squared += e * e, e_target += e * bb[i], penalty += wb[i] * zb[i] * zb[i];
    }
    sums.e += e_sum, sums.e_squared += e_squared, sums.e_target += e_target, sums.penalty += penalty;
    A.add_four_transposed(begin, begin + size, coefficients.data(), stride, sums.columns.data());
  }

  // Called by all threads of a parallel region, as add_dense_gram.
  void add_sparse_gram(double* G) const {
#pragma omp for schedule(static)
    for (std::size_t i = 0; i < rows(); ++i) {
      if (D[i] == 0) continue;
      for (std::int64_t k = A.row_pointer[i]; k < A.row_pointer[i + 1]; ++k) {
        const double factor = D[i] * A.value[k];
        double* row = G + std::size_t(A.column[k]) * std::size_t(d);
        for (std::int64_t l = A.row_pointer[i]; l <= k; ++l) row[A.column[l]] += factor * A.value[l];
      }
    }
  }

  // dsyrk on panels of sqrt|D| a, one for each sign of D.
  void add_dense_gram(double* G) const {
    constexpr std::size_t panel_rows = 512;
    const std::size_t width = std::size_t(d);
    Vector panel[2] = {Vector(panel_rows * width), Vector(panel_rows * width)};
    std::size_t filled[2] = {0, 0};
    const auto flush = [&](int negative) {
      if (filled[negative] > 0)
        cblas_dsyrk(CblasRowMajor, CblasLower, CblasTrans, d, int(filled[negative]), negative ? -1.0 : 1.0,
                    panel[negative].data(), d, 1.0, G, d);
      filled[negative] = 0;
    };
#pragma omp for schedule(static) nowait
    for (std::size_t i = 0; i < rows(); ++i) {
      if (D[i] == 0) continue;
      const int negative = D[i] < 0;
      const double factor = std::sqrt(std::fabs(D[i]));
      const double* a = A.row(i);
      double* scaled = panel[negative].data() + filled[negative] * width;
      for (int k = 0; k < d; ++k) scaled[k] = factor * a[k];
      if (++filled[negative] == panel_rows) flush(negative);
    }
    flush(0), flush(1);
  }

  Vector maximum_so_far_;  // per block, of the thread that had it
};

}  // namespace peers
