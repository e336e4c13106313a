// attnreg as a library: every rank holds its rows of A in memory, as in a program that computes them; no files. Run it
// with mpirun, on any number of ranks.

#include <mpi.h>

#include <cmath>
#include <cstdio>
#include <vector>

#include "attnreg/regression.hpp"

namespace {

constexpr int kColumns = 4;
constexpr std::int64_t kRows = 3000;

/// The entry of A in row i and column j: here waves of different lengths.
double entry(std::int64_t i, int j) { return std::sin(1.0 + 0.37 * static_cast<double>(i) * (j + 1)); }

/// Any split will do; here later ranks get more, and not in multiples of anything.
std::int64_t first_row(int rank, int ranks) { return kRows * rank * rank / (ranks * ranks); }

/// Whether the solve converged.
bool run(MPI_Comm mpi_communicator) {
  const attnreg::Communicator communicator(mpi_communicator);
  const int rank = communicator.rank(), ranks = communicator.size();
  const std::int64_t first = first_row(rank, ranks), rows = first_row(rank + 1, ranks) - first;

  std::vector<double> A_local;  // row after row
  for (std::int64_t i = first; i < first + rows; ++i)
    for (int j = 0; j < kColumns; ++j) A_local.push_back(entry(i, j));
  const auto partition = attnreg::RowPartition::from_local(communicator, rows);
  const auto A = attnreg::RowMatrix::view(communicator, partition, A_local.data(), kColumns);

  // A target that softmax(A x) can match exactly, to see x again; and hardly any regularisation.
  const Eigen::Vector4d x_true(1, -2, 0.5, 3);
  const Eigen::VectorXd b = attnreg::predict(A, x_true);
  const Eigen::VectorXd w = Eigen::VectorXd::Constant(b.size(), 1e-7);

  attnreg::RegressionOptions options;
  options.start = attnreg::Start::cross_entropy;
  const auto result = attnreg::solve_regression(A, b, w, options);

  const bool converged = result.summary.termination == attnreg::Termination::converged;
  if (!communicator.is_root()) return converged;
  std::printf("%s after %d iterations, %d rows on rank 0 of %d: L = %.3e\n",
              attnreg::termination_name(result.summary.termination).data(), result.summary.iterations,
              static_cast<int>(rows), ranks, result.summary.value);
  for (int j = 0; j < kColumns; ++j) std::printf("x[%d] = %8.5f, should be %8.5f\n", j, result.x[j], x_true[j]);
  std::printf("the fit differs from the target by %.1e in total variation\n", result.fit.total_variation);
  return converged;
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int code = 0;
  try {
    if (!run(MPI_COMM_WORLD)) code = static_cast<int>(attnreg::ExitCode::limit);
  } catch (const attnreg::Error& error) {  // the same one on all ranks
    std::fprintf(stderr, "library_example: %s\n", error.what());
    code = static_cast<int>(error.code());
  }
  MPI_Finalize();
  return code;
}
