#include "attnreg/leverage.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "files/sparse_file.hpp"
#include "sampling/leverage_basis.hpp"
#include "support/score_problems.hpp"

namespace attnreg::test_leverage {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::Layout;
using reference::Rows;

constexpr ExactRoute routes[] = {ExactRoute::gram, ExactRoute::qr};
constexpr double kTolerance = 1e-10;  // n d eps is 1e-12 here, and the condition numbers are below 10

/// The scores of all rows.
VectorXd gathered(const RowMatrix& A, const LeverageScores& found) {
  return reference::gather(A.communicator(), found.scores);
}

void expect_scores(const RowMatrix& A, const LeverageScores& found, const VectorXd& expected, Index rank) {
  const VectorXd scores = gathered(A, found);
  EXPECT_LE((scores - expected).cwiseAbs().maxCoeff(), kTolerance);
  EXPECT_EQ(found.rank, rank);
  EXPECT_NEAR(found.sum, static_cast<double>(rank), kTolerance * static_cast<double>(expected.size()));
  EXPECT_NEAR(found.largest, expected.maxCoeff(), kTolerance);
  const double coherence =
      rank == 0 ? 0 : found.largest * static_cast<double>(expected.size()) / static_cast<double>(rank);
  EXPECT_NEAR(found.coherence, coherence, 1e-12 * coherence);
}

TEST(ExactLeverage, AgreesWithDenseQr) {
  const Communicator world(MPI_COMM_WORLD);
  constexpr Index n = 700, d = 40;
  const VectorXd weights = reference::random_vector(n, 3).cwiseAbs2();
  for (const Rows rows : reference::all_rows) {
    const RowMajorMatrix dense = reference::score_problem(rows, n, d);
    for (const Layout layout : reference::layouts)
      for (const auto route : routes) {
        SCOPED_TRACE("rows " + std::to_string(static_cast<int>(rows)) + ", route " +
                     std::to_string(static_cast<int>(route)));
        const auto A = reference::distribute(world, dense, layout);
        expect_scores(A, exact_leverage_scores(A, {}, route), reference::dense_scores(dense), d);
        expect_scores(A, exact_leverage_scores(A, reference::local_part(A, weights), route),
                      reference::dense_scores(dense, weights), d);
        EXPECT_EQ(A.reads(), 4);
      }
  }
}

struct DeficientCase {
  std::string name;
  RowMajorMatrix A;
  VectorXd weights;  ///< may be empty
  Index rank;
};

std::vector<DeficientCase> deficient_cases() {
  constexpr Index n = 300, d = 12;
  const RowMajorMatrix A = reference::random_matrix(n, d, 5);
  std::vector<DeficientCase> cases;
  cases.push_back({"duplicate columns", A, {}, d - 3});
  for (Index j = 0; j < 3; ++j) cases.back().A.col(d - 1 - j) = A.col(j);
  cases.push_back({"zero columns", A, {}, d - 2});
  cases.back().A.col(0).setZero();
  cases.back().A.col(7).setZero();
  cases.push_back({"dependent column", A, {}, d - 1});
  cases.back().A.col(4) = A.col(1) - 0.5 * A.col(9);
  cases.push_back({"fewer rows than columns", A.topRows(5), {}, 5});
  cases.push_back({"zero matrix", RowMajorMatrix::Zero(n, d), {}, 0});
  cases.push_back({"zero weights", A, VectorXd::Zero(n), 0});
  cases.push_back({"few positive weights", A, VectorXd::Zero(n), 6});
  for (Index i = 0; i < 6; ++i) cases.back().weights[40 * i] = 1 + static_cast<double>(i);
  cases.push_back({"columns of very different units", A, {}, d});
  for (Index j = 0; j < d; ++j) cases.back().A.col(j) *= std::pow(10.0, 12.0 * static_cast<double>(j) - 70);
  cases.push_back({"one column", A.leftCols(1), {}, 1});
  cases.push_back({"one row", A.topRows(1), {}, 1});
  return cases;
}

TEST(ExactLeverage, RankDeficientMatricesHaveTheScoresOfTheirRowSpace) {
  const Communicator world(MPI_COMM_WORLD);
  for (const auto& test : deficient_cases())
    for (const auto route : routes) {
      SCOPED_TRACE(test.name + ", route " + std::to_string(static_cast<int>(route)));
      const auto A = reference::distribute(world, test.A, Layout::random);
      const VectorXd weights = test.weights.size() == 0 ? VectorXd() : reference::local_part(A, test.weights);
      RowMajorMatrix scaled = test.A;  // the reference does not scale columns
      for (Index j = 0; j < scaled.cols(); ++j)
        if (scaled.col(j).norm() > 0) scaled.col(j) /= scaled.col(j).norm();
      const VectorXd all = test.weights.size() == 0 ? VectorXd(VectorXd::Ones(test.A.rows())) : test.weights;
      expect_scores(A, exact_leverage_scores(A, weights, route), reference::dense_scores(scaled, all), test.rank);
    }
}

TEST(Leverage, RankDeficientMatricesHaveTheScoresOfTheirRowSpace) {
  const Communicator world(MPI_COMM_WORLD);
  for (const auto& test : deficient_cases())
    for (const int jl_columns : {0, 2, 16}) {
      SCOPED_TRACE(test.name + ", JL columns " + std::to_string(jl_columns));
      const auto A = reference::distribute(world, test.A, Layout::even);
      const VectorXd weights = test.weights.size() == 0 ? VectorXd() : reference::local_part(A, test.weights);
      const auto found = leverage_scores(A, weights, {.jl_columns = jl_columns});
      const auto exact = exact_leverage_scores(A, weights, ExactRoute::qr);
      EXPECT_EQ(found.rank, test.rank);
      EXPECT_TRUE(found.scores.allFinite() && (found.scores.array() >= 0).all() && (found.scores.array() <= 1).all());
      if (jl_columns == 2) continue;
      // 72 rows of the sketch for 12 columns: 6 d. With 16 > rank columns the row norms are exact, too.
      for (Index i = 0; i < A.rows_local(); ++i) {
        EXPECT_LE(found.scores[i], 2 * exact.scores[i] + 1e-12);
        EXPECT_GE(found.scores[i], 0.5 * exact.scores[i] - 1e-12);
      }
    }
}

TEST(Leverage, SmallMatricesNeedNoSketch) {
  const Communicator world(MPI_COMM_WORLD);
  const RowMajorMatrix dense = reference::random_matrix(60, 10, 1);
  const VectorXd weights = reference::random_vector(60, 2).cwiseAbs();
  const auto A = reference::distribute(world, dense, Layout::even);
  expect_scores(A, leverage_scores(A, reference::local_part(A, weights), LeverageOptions{}),
                reference::dense_scores(dense, weights), 10);
}

TEST(Leverage, TwoReadsAndFourCollectives) {
  const Communicator world(MPI_COMM_WORLD);
  const auto A = reference::distribute(world, reference::random_matrix(2000, 30, 1), Layout::tiled);
  const auto before = A.communicator().collectives();
  leverage_scores(A, VectorXd::Ones(A.rows_local()), LeverageOptions{});
  EXPECT_EQ(A.reads(), 2);
  EXPECT_EQ(A.communicator().collectives() - before, 4);
}

TEST(Leverage, IsTheSameOnAnyNumberOfRanks) {
  const Communicator world(MPI_COMM_WORLD), self(MPI_COMM_SELF);
  constexpr Index n = 3000, d = 30;
  const RowMajorMatrix dense = reference::score_problem(Rows::cauchy, n, d);
  const VectorXd weights = reference::random_vector(n, 2).cwiseAbs();
  const auto alone = reference::distribute(self, dense, Layout::tiled);
  const auto expected = leverage_scores(alone, weights, LeverageOptions{});
  for (const Layout layout : reference::layouts) {
    const auto A = reference::distribute(world, dense, layout);
    const auto found = leverage_scores(A, reference::local_part(A, weights), LeverageOptions{});
    EXPECT_LE((gathered(A, found) - expected.scores).cwiseAbs().maxCoeff(), 1e-12);
    EXPECT_EQ(found.rank, expected.rank);
    EXPECT_NEAR(found.sum, expected.sum, 1e-12 * n);
  }
}

TEST(Leverage, DoesNotDependOnTheBasisOfTheColumns) {
  // For one sketch, S A M has the row space of S A: exact row norms are equal up to cond(M) n eps.
  const Communicator world(MPI_COMM_WORLD);
  constexpr Index n = 2000, d = 15;
  const RowMajorMatrix dense = reference::score_problem(Rows::spiky, n, d);
  const MatrixXd M = reference::random_matrix(d, d, 9);
  const auto A = reference::distribute(world, dense, Layout::random);
  const auto AM = reference::distribute(world, RowMajorMatrix(dense * M), Layout::random);
  const LeverageOptions options{.jl_columns = 0};
  EXPECT_LE((leverage_scores(A, {}, options).scores - leverage_scores(AM, {}, options).scores).lpNorm<1>(), 1e-9);
}

TEST(Leverage, WeightsScaleTheRows) {
  const Communicator world(MPI_COMM_WORLD);
  constexpr Index n = 2000, d = 15;
  const RowMajorMatrix dense = reference::random_matrix(n, d, 4);
  const VectorXd root = reference::random_vector(n, 5).cwiseAbs();
  const auto A = reference::distribute(world, dense, Layout::random);
  const auto scaled = reference::distribute(world, RowMajorMatrix(root.asDiagonal() * dense), Layout::random);
  for (const int jl_columns : {0, 8}) {
    const LeverageOptions options{.jl_columns = jl_columns};
    const auto found = leverage_scores(A, reference::local_part(A, root.cwiseAbs2()), options);
    EXPECT_LE((found.scores - leverage_scores(scaled, {}, options).scores).lpNorm<1>(), 1e-10);
  }
}

TEST(Leverage, RowNormsDoNotDependOnTheOtherRows) {
  const Communicator world(MPI_COMM_WORLD), self(MPI_COMM_SELF);
  constexpr Index n = 1003, d = 33;
  const RowMajorMatrix dense = reference::random_matrix(n, d, 4);
  for (const Index columns : {Index{0}, Index{1}, Index{7}, Index{16}, d}) {
    const MatrixXd N = reference::random_matrix(d, columns, 6);
    const VectorXd all = row_norms_squared(reference::distribute(self, dense, Layout::tiled), N);
    const VectorXd expected = (dense * N).rowwise().squaredNorm();
    EXPECT_LE((all - expected).cwiseAbs().maxCoeff(), 4 * d * reference::eps * d * 25);
    for (const Layout layout : reference::layouts) {
      const auto A = reference::distribute(world, dense, layout);
      EXPECT_EQ(row_norms_squared(A, N), reference::local_part(A, all));
    }
  }
}

TEST(Leverage, RowsOfFewerBits) {
  const Communicator world(MPI_COMM_WORLD);
  const RowMajorMatrix dense = reference::rounded_for_all(reference::random_matrix(900, 20, 4));
  const auto expected = leverage_scores(reference::distribute(world, dense, Layout::tiled), {}, LeverageOptions{});
  for (const auto holding : reference::dense_holdings) {
    const auto A = reference::distribute(world, dense, Layout::tiled, holding);
    EXPECT_EQ(leverage_scores(A, {}, LeverageOptions{}).scores, expected.scores);
  }
}

TEST(Leverage, SparseRows) {
  const Communicator world(MPI_COMM_WORLD);
  RowMajorMatrix dense = reference::random_matrix(900, 20, 4);
  for (Index k = 0; k < dense.size(); ++k)
    if (k % 5 != 0) dense.data()[k] = 0;
  const auto A = reference::distribute(world, dense, Layout::random);
  const auto sparse = reference::distribute(world, dense, Layout::random, reference::Holding::sparse64);
  const auto difference = [](const LeverageScores& a, const LeverageScores& b) {
    return a.scores.size() == 0 ? 0.0 : (a.scores - b.scores).lpNorm<Eigen::Infinity>();
  };
  // sums of 900 rows in another order, times the condition of the matrix, below 10
  EXPECT_LE(difference(leverage_scores(A, {}, {}), leverage_scores(sparse, {}, {})), 1e4 * reference::eps);
  for (const auto route : {ExactRoute::qr, ExactRoute::gram})
    EXPECT_LE(difference(exact_leverage_scores(A, {}, route), exact_leverage_scores(sparse, {}, route)),
              1e4 * reference::eps);
}

TEST(Leverage, ScoresDoNotDependOnTheScale) {
  const Communicator world(MPI_COMM_WORLD);
  constexpr Index n = 300, d = 5;
  const RowMajorMatrix dense = reference::random_matrix(n, d, 4);
  const VectorXd expected = reference::dense_scores(dense), ones = VectorXd::Ones(n);
  for (const double scale : {1e-300, 1e-160, 1e160, 1e300})
    for (const auto route : routes) {
      const auto A = reference::distribute(world, RowMajorMatrix(scale * dense), Layout::random);
      expect_scores(A, exact_leverage_scores(A, {}, route), expected, d);
      const LeverageOptions exact_norms{.sketch_rows = n, .jl_columns = 0};  // of all rows
      EXPECT_LE((leverage_scores(A, {}, exact_norms).scores - reference::local_part(A, expected)).lpNorm<1>(), 1e-10);
      const auto B = reference::distribute(world, dense, Layout::random);
      const VectorXd roots = reference::local_part(B, VectorXd(scale * ones));
      expect_scores(B, exact_leverage_scores(B, roots, route, RowWeights::roots), expected, d);
    }
}

TEST(Leverage, RefusesBadArgumentsOnAllRanks) {
  const Communicator world(MPI_COMM_WORLD);
  constexpr Index n = 500, d = 6;
  const RowMajorMatrix dense = reference::random_matrix(n, d, 1);
  const auto A = reference::distribute(world, dense, Layout::even);
  const bool mine = world.rank() == world.size() - 1;
  EXPECT_THROW(leverage_scores(A, {}, {.sketch_rows = 2 * d - 1}), InvalidArgument);
  EXPECT_THROW(leverage_scores(A, {}, {.nonzeros = 0}), InvalidArgument);
  EXPECT_THROW(leverage_scores(A, {}, {.jl_columns = -1}), InvalidArgument);
  VectorXd weights = VectorXd::Ones(A.rows_local());
  for (const double bad : {-1.0, std::numeric_limits<double>::infinity(), std::nan("")}) {
    if (mine) weights[3] = bad;
    EXPECT_THROW(leverage_scores(A, weights, LeverageOptions{}), InvalidArgument);
    for (const auto route : routes) EXPECT_THROW(exact_leverage_scores(A, weights, route), InvalidArgument);
  }
  weights = VectorXd::Ones(mine ? 1 : A.rows_local());
  EXPECT_THROW(leverage_scores(A, weights, LeverageOptions{}), InvalidArgument);
  for (const double bad : {std::numeric_limits<double>::infinity(), std::nan(""), 1e308}) {
    RowMajorMatrix broken = dense;
    broken.row(n - 1).setConstant(bad);
    const auto B = reference::distribute(world, broken, Layout::even);
    EXPECT_THROW(exact_leverage_scores(B, {}, ExactRoute::gram), InvalidArgument) << bad;
    if (bad == 1e308) continue;  // only its square overflows
    EXPECT_THROW(exact_leverage_scores(B, {}, ExactRoute::qr), InvalidArgument) << bad;
    EXPECT_THROW(leverage_scores(B, {}, LeverageOptions{}), InvalidArgument) << bad;
  }
}

}  // namespace attnreg::test_leverage
