// Gram matrices of so many columns that the rows of a thread are visited in several pieces.

#include <gtest/gtest.h>
#include <omp.h>

#include <array>
#include <memory>
#include <vector>

#include "algebra/distributed_matrix.hpp"
#include "attnreg/row_matrix.hpp"
#include "rows/gram.hpp"
#include "support/reference.hpp"

namespace attnreg::test_gram {

using Eigen::MatrixXd;
using Eigen::VectorXd;

TEST(WideGram, EveryRowIsThereOnceWhateverTheThreads) {
  const Communicator comm(MPI_COMM_WORLD);
  constexpr Index d = 1500;
  constexpr Index n = 2600;  // 1024 rows make a piece
  const RowMajorMatrix whole = reference::random_matrix(n, d, 1);
  const VectorXd weights = reference::random_vector(n, 2), centre = reference::random_vector(d, 3);
  const RowMatrix A = reference::distribute(comm, whole, reference::Layout::even, reference::Holding::float64);
  const MatrixXd probes = reference::random_matrix(d, 3, 4);
  const MatrixXd seen = (whole * probes).rowwise() - (centre.transpose() * probes).row(0);
  const int before = omp_get_max_threads();
  for (const int threads : {1, 2}) {
    omp_set_num_threads(threads);
    const SignedGram part = signed_gram(A, {reference::local_part(A, weights)}, centre);
    const MatrixXd difference = reference::summed(comm, MatrixXd(part.positive - part.negative));
    const MatrixXd found = probes.transpose() * difference * probes;
    const MatrixXd expected = seen.transpose() * weights.asDiagonal() * seen;
    const double size = (seen.transpose() * weights.cwiseAbs().asDiagonal() * seen).trace();
    EXPECT_LE((found - expected).cwiseAbs().maxCoeff(), 10 * static_cast<double>(n) * reference::eps * size) << threads;
  }
  omp_set_num_threads(before);
}

/// All rows, all with a ridge, every second one.
std::array<WeightedRows, 3> kinds_of_rows(const RowMatrix& A, const VectorXd& weights) {
  const WeightedRows all{reference::local_part(A, weights)};
  WeightedRows ridged = all;
  ridged.ridge = VectorXd::Constant(A.rows_local(), 0.1);
  std::vector<Index> some;
  for (Index i = 0; i < A.rows_local(); i += 2) some.push_back(i);
  return {all, ridged, all.choose(some, VectorXd::Ones(static_cast<Index>(some.size())))};
}

TEST(PositiveGram, LeavesOutRowsOfTheOtherSign) {
  const Communicator comm(MPI_COMM_WORLD);
  constexpr Index d = 7, n = 90;
  const RowMajorMatrix whole = reference::random_matrix(n, d, 1);
  const VectorXd weights = reference::random_vector(n, 2), centre = reference::random_vector(d, 3);
  for (const auto holding : {reference::Holding::float64, reference::Holding::float32, reference::Holding::sparse64}) {
    const RowMatrix A = reference::distribute(comm, whole, reference::Layout::even, holding);
    const auto kinds = kinds_of_rows(A, weights);
    for (const WeightedRows& rows : kinds)
      for (const VectorXd& about : {centre, VectorXd()})
        EXPECT_TRUE(positive_gram(A, rows, about) == signed_gram(A, rows, about).positive);
    // Added to what is there, in the lower triangle by rows.
    RowMajorMatrix twice = RowMajorMatrix::Zero(d, d);
    add_signed_gram(A, kinds[0], centre, twice.data());
    const MatrixXd once = full_symmetric(twice.data(), d);
    add_signed_gram(A, kinds[0], centre, twice.data());
    EXPECT_LE((full_symmetric(twice.data(), d) - 2 * once).norm(), 100 * reference::eps * once.norm());
    EXPECT_TRUE(once == once.transpose());
  }
}

TEST(Gram, LeavesOutRowsOnceItsRankWasAskedToStop) {
  constexpr Index d = 7, n = 90;
  const RowMajorMatrix whole = reference::random_matrix(n, d, 1);
  const VectorXd weights = reference::random_vector(n, 2);
  for (const auto holding : {reference::Holding::float64, reference::Holding::float32, reference::Holding::sparse64}) {
    const Communicator comm(MPI_COMM_WORLD);
    const RowMatrix A = reference::distribute(comm, whole, reference::Layout::even, holding);
    const auto rows = kinds_of_rows(A, weights);
    std::array<MatrixXd, 3> before;
    for (std::size_t k = 0; k < rows.size(); ++k) before[k] = signed_gram(A, rows[k], {}, OnStop::leave).positive;
    const auto grid = std::make_shared<const ProcessGrid>(comm, LinearSolverOptions{.kind = LinearSolver::scalapack});
    const WeightedRows positive{VectorXd::Ones(A.rows_local())};
    const double trace = distributed_gram(A, grid, positive, VectorXd::Zero(d), OnStop::leave).diagonal().sum();
    EXPECT_GT(trace, 0);
    EXPECT_FALSE(is_left(A, OnStop::leave));
    const bool is_asked = comm.rank() == comm.size() - 1;
    if (is_asked) comm.ask_to_stop();
    EXPECT_FALSE(is_left(A, OnStop::finish));
    for (std::size_t k = 0; k < rows.size(); ++k) {
      EXPECT_TRUE(before[k] == signed_gram(A, rows[k]).positive);
      const MatrixXd left = signed_gram(A, rows[k], {}, OnStop::leave).positive;
      EXPECT_TRUE(is_asked ? left.isZero(0) : left == before[k]) << k;
    }
    const double rest = distributed_gram(A, grid, positive, VectorXd::Zero(d), OnStop::leave).diagonal().sum();
    EXPECT_LT(rest, trace);
    if (comm.size() == 1) {
      EXPECT_EQ(0, rest);
    }
    EXPECT_TRUE(is_left(A, OnStop::leave));
    EXPECT_TRUE(comm.is_stopped());
  }
}

}  // namespace attnreg::test_gram
