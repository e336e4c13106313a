#include "algebra/scalapack.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "attnreg/error.hpp"
#include "ranks/span_of.hpp"

extern "C" {
// ScaLAPACK, in Fortran: the lengths of character arguments come last.
void pdpotrf_(const char* uplo, const int* n, double* a, const int* ia, const int* ja, const int* desc, int* info,
              std::size_t uplo_length);
void pdpotrs_(const char* uplo, const int* n, const int* columns, const double* a, const int* ia, const int* ja,
              const int* desc, double* b, const int* ib, const int* jb, const int* desc_b, int* info,
              std::size_t uplo_length);
void pdgeqrf_(const int* m, const int* n, double* a, const int* ia, const int* ja, const int* desc, double* tau,
              double* work, const int* work_size, int* info);
void pdgeqpf_(const int* m, const int* n, double* a, const int* ia, const int* ja, const int* desc, int* pivots,
              double* tau, double* work, const int* work_size, int* info);

// PBLAS, in C.
void pdtrmv_(const char* uplo, const char* trans, const char* diag, const int* n, const double* a, const int* ia,
             const int* ja, const int* desc, double* x, const int* ix, const int* jx, const int* desc_x,
             const int* increment);
decltype(pdtrmv_) pdtrsv_;
void pdtrsm_(const char* side, const char* uplo, const char* trans, const char* diag, const int* m, const int* n,
             const double* alpha, const double* a, const int* ia, const int* ja, const int* desc, double* b,
             const int* ib, const int* jb, const int* desc_b);
void pdsymv_(const char* uplo, const int* n, const double* alpha, const double* a, const int* ia, const int* ja,
             const int* desc, const double* x, const int* ix, const int* jx, const int* desc_x, const int* increment_x,
             const double* beta, double* y, const int* iy, const int* jy, const int* desc_y, const int* increment_y);
}

namespace attnreg {

using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

constexpr int kOne = 1;

/// ScaLAPACK's description of a matrix: dense, context, shape, blocks, first process, local rows.
std::array<int, 9> descriptor(const DistributedMatrix& A) {
  const auto as_int = [](Index value) { return static_cast<int>(value); };
  const int block = as_int(A.grid().block_size());
  return {1,
          A.grid().context(),
          as_int(A.rows()),
          as_int(A.columns()),
          block,
          block,
          0,
          0,
          as_int(std::max<Index>(1, A.local().rows()))};
}

/// Wrong arguments are our own bug.
void check(int info, const char* routine) {
  if (info < 0) throw InternalError(std::string(routine) + ": argument " + std::to_string(-info) + " is wrong");
}

/// Collective. B, distributed, is changed by `routine` on the processes of the grid; then it is replicated.
template <class Routine>
MatrixXd changed(const std::shared_ptr<const ProcessGrid>& grid, const MatrixXd& replicated, Routine&& routine) {
  DistributedMatrix B = DistributedMatrix::of(grid, replicated);
  if (!grid->is_idle()) routine(B.local().data(), descriptor(B).data());
  return B.replicated();
}

/// Collective. What `routine` makes of v with L ("N") or L^T ("T").
VectorXd with_factor(decltype(&pdtrmv_) routine, const char* transpose, const DistributedMatrix& L, const VectorXd& v) {
  return changed(L.shared_grid(), v, [&](double* x, const int* desc_x) {
    const int d = static_cast<int>(L.rows());
    routine("L", transpose, "N", &d, L.local().data(), &kOne, &kOne, descriptor(L).data(), x, &kOne, &kOne, desc_x,
            &kOne);
  });
}

}  // namespace

namespace scalapack {

bool factor_cholesky(DistributedMatrix& A) {
  if (!A.is_finite()) return false;
  const int d = static_cast<int>(A.rows());
  int info = 0;
  if (!A.grid().is_idle()) pdpotrf_("L", &d, A.local().data(), &kOne, &kOne, descriptor(A).data(), &info, 1);
  check(info, "pdpotrf");
  return A.grid().communicator().min(std::int64_t{info == 0 && A.local().allFinite()}) != 0;
}

MatrixXd solve_cholesky(const DistributedMatrix& L, const MatrixXd& B) {
  return changed(L.shared_grid(), B, [&](double* b, const int* desc_b) {
    const int d = static_cast<int>(L.rows()), columns = static_cast<int>(B.cols());
    int info = 0;
    pdpotrs_("L", &d, &columns, L.local().data(), &kOne, &kOne, descriptor(L).data(), b, &kOne, &kOne, desc_b, &info,
             1);
    check(info, "pdpotrs");
  });
}

VectorXd multiply(const DistributedMatrix& L, const VectorXd& v) { return with_factor(pdtrmv_, "N", L, v); }
VectorXd multiply_transpose(const DistributedMatrix& L, const VectorXd& v) { return with_factor(pdtrmv_, "T", L, v); }
VectorXd solve_transpose(const DistributedMatrix& L, const VectorXd& v) { return with_factor(pdtrsv_, "T", L, v); }

VectorXd multiply_symmetric(const DistributedMatrix& A, const VectorXd& v) {
  const DistributedMatrix x = DistributedMatrix::of(A.shared_grid(), v);
  return changed(A.shared_grid(), VectorXd::Zero(v.size()), [&](double* y, const int* desc_y) {
    const int d = static_cast<int>(A.rows());
    const double alpha = 1, beta = 0;
    pdsymv_("L", &d, &alpha, A.local().data(), &kOne, &kOne, descriptor(A).data(), x.local().data(), &kOne, &kOne,
            descriptor(x).data(), &kOne, &beta, y, &kOne, &kOne, desc_y, &kOne);
  });
}

void factor_qr(DistributedMatrix& M) {
  if (M.grid().is_idle()) return;
  const int m = static_cast<int>(M.rows()), n = static_cast<int>(M.columns());
  const Index block = M.grid().block_size();
  VectorXd tau(std::max<Index>(1, M.local().cols()));
  VectorXd work(block * (M.local().rows() + M.local().cols() + 2 * block));
  const int work_size = static_cast<int>(work.size());
  int info = 0;
  pdgeqrf_(&m, &n, M.local().data(), &kOne, &kOne, descriptor(M).data(), tau.data(), work.data(), &work_size, &info);
  check(info, "pdgeqrf");
}

std::vector<Index> factor_pivoted_qr(DistributedMatrix& M, Index rows) {
  const int m = static_cast<int>(rows), n = static_cast<int>(M.columns());
  std::vector<int> local_pivots(static_cast<std::size_t>(M.local().cols()) + 1);
  if (!M.grid().is_idle()) {
    VectorXd tau(std::max<Index>(1, M.local().cols()));
    VectorXd work(3 + 2 * (M.local().rows() + 2 * M.local().cols() + M.grid().block_size()));
    const int work_size = static_cast<int>(work.size());
    int info = 0;
    pdgeqpf_(&m, &n, M.local().data(), &kOne, &kOne, descriptor(M).data(), local_pivots.data(), tau.data(), work.data(),
             &work_size, &info);
    check(info, "pdgeqpf");
  }
  VectorXd all = VectorXd::Zero(M.columns());  // a whole process row has them
  const ProcessGrid& grid = M.grid();
  if (!grid.is_idle() && grid.row_of(grid.communicator().rank()) == 0)
    for (Index c = 0; c < M.local().cols(); ++c) all[M.column(c)] = local_pivots[static_cast<std::size_t>(c)];
  grid.communicator().sum(span_of(all));
  std::vector<Index> pivots;
  for (const double pivot : all) pivots.push_back(static_cast<Index>(pivot) - 1);
  return pivots;
}

MatrixXd solve_upper(const DistributedMatrix& R, const MatrixXd& B) {
  return changed(R.shared_grid(), B, [&](double* b, const int* desc_b) {
    const int rank = static_cast<int>(B.rows()), columns = static_cast<int>(B.cols());
    const double alpha = 1;
    pdtrsm_("L", "U", "N", "N", &rank, &columns, &alpha, R.local().data(), &kOne, &kOne, descriptor(R).data(), b, &kOne,
            &kOne, desc_b);
  });
}

}  // namespace scalapack

}  // namespace attnreg
