#include "algebra/blas_products.hpp"

#include <omp.h>

#include "algebra/lapack.hpp"
#include "ranks/memory.hpp"

namespace attnreg {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::MatrixXf;

namespace {

void gemm(const char* a, const char* b, const int* m, const int* n, const int* k, const double* A, const int* lda,
          const double* B, const int* ldb, double* C, const int* ldc) {
  const double one = 1;
  dgemm_(a, b, m, n, k, &one, A, lda, B, ldb, &one, C, ldc);
}

void gemm(const char* a, const char* b, const int* m, const int* n, const int* k, const float* A, const int* lda,
          const float* B, const int* ldb, float* C, const int* ldc) {
  const float one = 1;
  sgemm_(a, b, m, n, k, &one, A, lda, B, ldb, &one, C, ldc);
}

/// sum += op(A) op(B), where `a` and `b` are "N", or "T" for the transposed matrix.
template <class Matrix, class Sum>
void add_product_of(const char* a, const Matrix& A, const char* b, const Matrix& B, Sum& sum) {
  const int m = static_cast<int>(sum.rows()), n = static_cast<int>(sum.cols());
  const int k = static_cast<int>(*a == 'N' ? A.cols() : A.rows());
  if (m == 0 || n == 0 || k == 0) return;
  const int stride_a = static_cast<int>(A.outerStride()), stride_b = static_cast<int>(B.outerStride()),
            stride = static_cast<int>(sum.outerStride());
  gemm(a, b, &m, &n, &k, A.data(), &stride_a, B.data(), &stride_b, sum.data(), &stride);
}

}  // namespace

void start_blas(const Communicator& communicator, int threads) {
  constexpr double kBuffers = 160 << 20;  // OpenBLAS takes 128 MB of address space on x86-64
  constexpr double kStack = 8 << 20;      // of a thread, as is usual
  try_address_space(communicator, kBuffers + kStack * (threads - 1), "buffers of BLAS and stacks of threads");
#pragma omp parallel num_threads(threads)
  {}  // the threads start
  const MatrixXd A = MatrixXd::Ones(64, 64);
  gram_of_rows(A);  // products of small matrices may do without buffers, this one does not
}

void add_times(MatrixPart A, MatrixPart B, Eigen::Ref<MatrixXd> sum) { add_product_of("N", A, "N", B, sum); }
void add_transposed_times(MatrixPart A, MatrixPart B, Eigen::Ref<MatrixXd> sum) { add_product_of("T", A, "N", B, sum); }
void add_times_transposed(MatrixPart A, MatrixPart B, Eigen::Ref<MatrixXd> sum) { add_product_of("N", A, "T", B, sum); }

MatrixXd times(MatrixPart A, MatrixPart B) {
  MatrixXd result = MatrixXd::Zero(A.rows(), B.cols());
  add_times(A, B, result);
  return result;
}

MatrixXd transposed_times(MatrixPart A, MatrixPart B) {
  MatrixXd result = MatrixXd::Zero(A.cols(), B.cols());
  add_transposed_times(A, B, result);
  return result;
}

MatrixXd times_transposed(MatrixPart A, MatrixPart B) {
  MatrixXd result = MatrixXd::Zero(A.rows(), B.rows());
  add_times_transposed(A, B, result);
  return result;
}

MatrixXf float_transposed_times(const MatrixXf& A, const MatrixXf& B) {
  MatrixXf result = MatrixXf::Zero(A.cols(), B.cols());
  add_product_of("T", A, "N", B, result);
  return result;
}

MatrixXf float_times_transposed(const MatrixXf& A, const MatrixXf& B) {
  MatrixXf result = MatrixXf::Zero(A.rows(), B.rows());
  add_product_of("N", A, "T", B, result);
  return result;
}

void add_gram_of_rows(MatrixPart A, MatrixXd& sum) {
  const int d = static_cast<int>(A.rows()), n = static_cast<int>(A.cols()), stride = static_cast<int>(A.outerStride());
  if (d == 0 || n == 0) return;
  const double one = 1;
  dsyrk_("L", "N", &d, &n, &one, A.data(), &stride, &one, sum.data(), &d);
}

MatrixXd gram_of_rows(MatrixPart A) {
  MatrixXd gram = MatrixXd::Zero(A.rows(), A.rows());
  add_gram_of_rows(A, gram);
  mirror(gram);
  return gram;
}

void mirror(MatrixXd& lower) { lower.triangularView<Eigen::StrictlyUpper>() = lower.transpose(); }

}  // namespace attnreg
