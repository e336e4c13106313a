#include "scalapack.hpp"

#include <mpi.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <utility>

#include "attnreg/error.hpp"
#include "distributed_matrix.hpp"

extern "C" {
int Csys2blacs_handle(MPI_Comm communicator);
void Cfree_blacs_system_handle(int handle);
void Cblacs_gridmap(int* context, int* ranks, int leading_dimension, int rows, int columns);
void Cblacs_gridexit(int context);

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
void pdtrsv_(const char* uplo, const char* trans, const char* diag, const int* n, const double* a, const int* ia,
             const int* ja, const int* desc, double* x, const int* ix, const int* jx, const int* desc_x,
             const int* increment);
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

constexpr Index kLargestBlock = Index{1} << 20;
constexpr std::int64_t kLargestInt = std::numeric_limits<int>::max();
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

/// Collective. Whether it holds on all ranks.
bool everywhere(const ProcessGrid& grid, bool here) { return grid.communicator().min(std::int64_t{here}) != 0; }

/// Collective. B, distributed, is changed by `routine` on the processes of the grid; then it is replicated.
template <class Routine>
MatrixXd changed(const std::shared_ptr<const ProcessGrid>& grid, const MatrixXd& replicated, Routine&& routine) {
  DistributedMatrix B = DistributedMatrix::of(grid, replicated);
  if (!grid->is_idle()) routine(B.local().data(), descriptor(B).data());
  return B.replicated();
}

}  // namespace

LinearSolverOptions with_grid(int ranks, LinearSolverOptions options) {
  if (options.block_size < 1 || options.block_size > kLargestBlock)
    refuse("block size " + std::to_string(options.block_size) + ": give 1 to " + std::to_string(kLargestBlock));
  if (options.grid_rows == 0 && options.grid_columns == 0) {
    options.grid_rows = static_cast<int>(std::sqrt(static_cast<double>(ranks)));
    options.grid_columns = ranks / options.grid_rows;
  }
  const auto processes = std::int64_t{options.grid_rows} * options.grid_columns;
  if (options.grid_rows < 1 || options.grid_columns < 1 || processes > ranks)
    refuse("a process grid of " + std::to_string(options.grid_rows) + " x " + std::to_string(options.grid_columns) +
           " for " + std::to_string(ranks) + " ranks: give 1 to " + std::to_string(ranks) + " processes");
  return options;
}

ProcessGrid::ProcessGrid(const Communicator& communicator, const LinearSolverOptions& options)
    : communicator_(communicator.handle()) {
  const LinearSolverOptions complete = with_grid(communicator.size(), options);
  rows_ = complete.grid_rows;
  columns_ = complete.grid_columns;
  block_size_ = complete.block_size;
  std::vector<int> ranks;  // column by column
  for (int column = 0; column < columns_; ++column)
    for (int row = 0; row < rows_; ++row) ranks.push_back(row * columns_ + column);
  context_ = system_handle_ = Csys2blacs_handle(communicator_.handle());
  Cblacs_gridmap(&context_, ranks.data(), rows_, rows_, columns_);
}

ProcessGrid::~ProcessGrid() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized != 0) return;
  if (!is_idle()) Cblacs_gridexit(context_);
  Cfree_blacs_system_handle(system_handle_);
}

namespace scalapack {

bool factor_cholesky(DistributedMatrix& A) {
  if (!A.is_finite()) return false;
  const int d = static_cast<int>(A.rows());
  int info = 0;
  if (!A.grid().is_idle()) pdpotrf_("L", &d, A.local().data(), &kOne, &kOne, descriptor(A).data(), &info, 1);
  check(info, "pdpotrf");
  return everywhere(A.grid(), info == 0 && A.local().allFinite());
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

VectorXd multiply_transpose(const DistributedMatrix& L, const VectorXd& v) {
  return changed(L.shared_grid(), v, [&](double* x, const int* desc_x) {
    const int d = static_cast<int>(L.rows());
    pdtrmv_("L", "T", "N", &d, L.local().data(), &kOne, &kOne, descriptor(L).data(), x, &kOne, &kOne, desc_x, &kOne);
  });
}

VectorXd solve_transpose(const DistributedMatrix& L, const VectorXd& v) {
  return changed(L.shared_grid(), v, [&](double* x, const int* desc_x) {
    const int d = static_cast<int>(L.rows());
    pdtrsv_("L", "T", "N", &d, L.local().data(), &kOne, &kOne, descriptor(L).data(), x, &kOne, &kOne, desc_x, &kOne);
  });
}

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
  grid.communicator().sum(std::span<double>(all.data(), static_cast<std::size_t>(all.size())));
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

void require_32_bits(std::int64_t local_rows, std::int64_t local_columns, std::int64_t block) {
  const bool fits = local_rows <= kLargestInt && local_columns <= kLargestInt &&
                    (local_columns == 0 || local_rows <= kLargestInt / local_columns) &&
                    local_rows + local_columns + 2 * block <= kLargestInt / block;
  if (fits) return;
  throw OutOfMemory("a process would hold " + std::to_string(local_rows) + " x " + std::to_string(local_columns) +
                        " entries in blocks of " + std::to_string(block) +
                        ": ScaLAPACK counts entries and work space in 32 bits; use more ranks or smaller blocks",
                    Error::Scope::all_ranks);
}

}  // namespace scalapack

}  // namespace attnreg
