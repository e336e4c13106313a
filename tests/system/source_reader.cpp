// source_reader LIST DIRECTORY: reads every matrix that a line of LIST names, as solve reads A, and a second time as it
// reads targets; behind "T " its columns, as sparsify reads X. Line k of the output says what came of line k: "read",
// its values being in DIRECTORY/k.npy, or the exit code and the message. One job for many matrices.

#include <mpi.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "attnreg/error.hpp"
#include "attnreg/files.hpp"
#include "files/sparse_file.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {
namespace {

RowMajorMatrix values_of(const RowMatrix& A) {
  RowMajorMatrix rows(A.rows_local(), A.columns());
  for (Index j = 0; j < A.columns(); ++j) rows.col(j) = A.multiply(Eigen::VectorXd::Unit(A.columns(), j));
  return rows;
}

/// Collective. The matrix in double.
std::string read(const Communicator& communicator, const std::string& path, const std::string& copy) {
  const bool transposed = path.starts_with("T ");
  const RowMatrix A = transposed ? load_transpose(communicator, path.substr(2), StorageChoice::float64)
                                 : load_matrix(communicator, path, StorageChoice::float64);
  const RowMajorMatrix rows = values_of(A);
  write_npy(communicator, copy, {A.rows_global(), A.columns()}, A.first_row(), span_of(rows));
  if (A.is_sparse() || transposed) return "read";
  // As few rows on the first rank as there can be, so that other ranges are read than above.
  std::vector<std::int64_t> first(static_cast<std::size_t>(communicator.size()) + 1, A.rows_global());
  first[0] = 0;
  for (int k = 1; k < communicator.size(); ++k)
    first[static_cast<std::size_t>(k)] = std::min<std::int64_t>(k, A.rows_global());
  const RowPartition uneven(first);
  const auto again = load_matrix_rows(communicator, path, "targets", uneven, A.columns());
  const auto all = communicator.all_gather(span_of(again)), expected = communicator.all_gather(span_of(rows));
  return all == expected ? "read" : "other values at a second reading";
}

int run(const std::string& list, const std::string& directory) {
  const Communicator communicator(MPI_COMM_WORLD);
  std::ifstream lines(list);
  std::string path;
  for (int k = 0; std::getline(lines, path); ++k) {
    std::string outcome;
    try {
      outcome = read(communicator, path, directory + "/" + std::to_string(k) + ".npy");
    } catch (const Error& error) {
      outcome = std::to_string(static_cast<int>(error.code())) + " " + error.what();
      if (error.scope() != Error::Scope::all_ranks) outcome += " (on one rank)";
    }
    if (outcome != communicator.broadcast(outcome)) outcome += " (the ranks differ)";
    if (communicator.is_root()) std::printf("%s\n", outcome.c_str());
  }
  return 0;
}

}  // namespace
}  // namespace attnreg

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  const int code = argc == 3 ? attnreg::run(argv[1], argv[2]) : 2;
  MPI_Finalize();
  return code;
}
