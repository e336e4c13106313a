// Several targets that share A: the results of single solves, for fewer reads and messages.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "attnreg/regression.hpp"
#include "newton/progress.hpp"
#include "rows/joint_passes.hpp"
#include "rows/row_passes.hpp"
#include "support/reference.hpp"

namespace attnreg::test_targets {

using Eigen::MatrixXd;
using Eigen::VectorXd;

class Targets : public testing::Test {
 protected:
  static constexpr Index kRows = 3000, kColumns = 8, kTargets = 5;
  const Communicator comm_{MPI_COMM_WORLD};
  const RowMajorMatrix A_ = reference::random_matrix(kRows, kColumns, 1);

  MatrixXd targets() const {
    MatrixXd B(kRows, kTargets);
    for (Index k = 0; k < kTargets; ++k)
      B.col(k) = reference::softmax(A_, reference::random_vector(kColumns, 10 + static_cast<std::uint64_t>(k)));
    return B;
  }
};

TEST_F(Targets, HaveTheResultsOfSingleSolves) {
  const MatrixXd B = targets();
  for (const auto layout : {reference::Layout::tiled, reference::Layout::all_on_last})
    for (const auto holding :
         {reference::Holding::float64, reference::Holding::float32, reference::Holding::sparse64}) {
      const RowMatrix A = reference::distribute(comm_, A_, layout, holding);
      const MatrixXd own = B.middleRows(A.first_row(), A.rows_local());
      const VectorXd w = VectorXd::Constant(A.rows_local(), 1e-4);
      for (const auto* const loss : {"softmax", "rescaled-exp", "sinh"}) {
        RegressionOptions options;
        options.loss = loss;
        options.sampling.oversampling = 20;
        if (options.loss == "softmax") {  // as one target would be solved on all rows: samples are shared by none
          options.method = Method::newton_cg;
          options.start = Start::cross_entropy;
        }
        const double reads_before = A.reads();
        const auto collectives_before = comm_.collectives();
        const auto together = solve_targets(A, own, w, options);
        const double reads = A.reads() - reads_before;
        double shares = 0, alone = 0;
        ASSERT_EQ(together.size(), static_cast<std::size_t>(kTargets));
        for (Index k = 0; k < kTargets; ++k) {
          const auto single = solve_regression(A, own.col(k), w, options);
          const auto& result = together[static_cast<std::size_t>(k)];
          EXPECT_TRUE(is_converged(result.summary) && is_converged(single.summary));  // one may end at rounding
          EXPECT_NEAR(result.summary.value, single.summary.value, 1e-9 * std::abs(single.summary.value) + 1e-20);
          // |g| <= 1e-10 |g(0)| on both sides
          EXPECT_LE((result.x - single.x).norm(), 1e-6 * single.x.norm()) << loss << ", target " << k;
          shares += result.summary.reads_of_a;
          alone += single.summary.reads_of_a;
        }
        EXPECT_LT(shares, 0.6 * alone);
        EXPECT_GE(reads + 1e-9, 0.3 * shares);  // of which sketches and models are counted by the targets' own views
        EXPECT_GT(comm_.collectives(), collectives_before);
      }
    }
}

TEST_F(Targets, RecordsComeFromAllTargets) {
  const RowMatrix A = reference::distribute(comm_, A_, reference::Layout::even);
  const MatrixXd own = targets().middleRows(A.first_row(), A.rows_local());
  std::vector<int> records(static_cast<std::size_t>(kTargets));
  const auto results = solve_targets(A, own, VectorXd::Constant(A.rows_local(), 1e-4), {},
                                     [&](int target, const auto&) { ++records[static_cast<std::size_t>(target)]; });
  for (std::size_t k = 0; k < results.size(); ++k) EXPECT_EQ(records[k], results[k].summary.iterations + 1);
}

TEST_F(Targets, ExactNewtonSharesToo) {
  const RowMatrix A = reference::distribute(comm_, A_, reference::Layout::tiled);
  const MatrixXd own = targets().middleRows(A.first_row(), A.rows_local());
  const VectorXd w = VectorXd::Constant(A.rows_local(), 1e-4);
  RegressionOptions options;
  options.method = Method::newton;
  const auto together = solve_targets(A, own, w, options);
  for (Index k = 0; k < kTargets; ++k)
    EXPECT_LE((together[static_cast<std::size_t>(k)].x - solve_regression(A, own.col(k), w, options).x).norm(), 1e-7);
}

/// By surrogates: one Gram matrix of the regulariser serves all targets, and each read. The minima are those of single
/// solves.
TEST_F(Targets, ShareTheGramMatrixOfTheRegulariser) {
  const MatrixXd B = targets();
  RegressionOptions options;
  options.method = Method::surrogate;
  for (const auto layout : {reference::Layout::all_on_last, reference::Layout::random})
    for (const double weight : {0.0, 1e-4}) {
      const RowMatrix A = reference::distribute(comm_, A_, layout, reference::Holding::float32);
      const MatrixXd own = B.middleRows(A.first_row(), A.rows_local());
      const VectorXd w = VectorXd::Constant(A.rows_local(), weight);
      const auto before = A.communicator().collectives();
      const auto together = solve_targets(A, own, w, options);
      const auto collectives = A.communicator().collectives() - before;
      double reads = 0, reads_alone = 0;
      std::int64_t collectives_alone = 0;
      for (Index k = 0; k < kTargets; ++k) {
        const auto& result = together[static_cast<std::size_t>(k)];
        const auto single = solve_regression(A, own.col(k), w, options);
        EXPECT_EQ(result.method, Method::surrogate);
        EXPECT_TRUE(is_converged(result.summary) && is_converged(single.summary)) << k;
        EXPECT_NEAR(result.summary.value, single.summary.value, 1e-9 * single.summary.value + 1e-20) << k;
        EXPECT_LE((result.x - single.x).norm(), 1e-6 * single.x.norm()) << k;
        reads += result.summary.reads_of_a;
        reads_alone += single.summary.reads_of_a;
        collectives_alone += single.summary.collectives;
      }
      EXPECT_LT(reads, 0.6 * reads_alone);
      EXPECT_LT(collectives, collectives_alone);
    }
}

/// More than run at once.
TEST_F(Targets, ManyAreSolvedInBatches) {
  constexpr Index kFew = 60, kMany = 70;
  const RowMatrix A = reference::distribute(comm_, A_.topLeftCorner(kFew, 3), reference::Layout::even);
  MatrixXd B(kFew, kMany);
  for (Index k = 0; k < kMany; ++k)
    B.col(k) =
        reference::softmax(A_.topLeftCorner(kFew, 3), reference::random_vector(3, static_cast<std::uint64_t>(k)));
  const MatrixXd own = B.middleRows(A.first_row(), A.rows_local());
  const VectorXd w = VectorXd::Constant(A.rows_local(), 1e-3);
  std::vector<int> records(static_cast<std::size_t>(kMany));
  const auto results =
      solve_targets(A, own, w, {}, [&](int target, const auto&) { ++records[static_cast<std::size_t>(target)]; });
  ASSERT_EQ(results.size(), static_cast<std::size_t>(kMany));
  for (std::size_t k = 0; k < results.size(); ++k) {
    EXPECT_TRUE(is_converged(results[k].summary)) << k;
    EXPECT_EQ(records[k], results[k].summary.iterations + 1) << k;
  }
  for (const Index k : {Index{0}, Index{63}, Index{64}, kMany - 1}) {
    const auto single = solve_regression(A, own.col(k), w, {});
    EXPECT_LE((results[static_cast<std::size_t>(k)].x - single.x).norm(), 1e-6 * single.x.norm()) << k;
  }

  RegressionOptions hurried;
  hurried.newton.time_limit_seconds = 1e-9;
  for (const auto& result : solve_targets(A, own, w, hurried)) {
    EXPECT_EQ(result.summary.termination, Termination::time_limit);
    EXPECT_TRUE(result.x.allFinite());
  }
}

TEST_F(Targets, WrongOnesAreRefusedOnAllRanks) {
  const RowMatrix A = reference::distribute(comm_, A_, reference::Layout::tiled);
  const VectorXd w = VectorXd::Constant(A.rows_local(), 1e-4);
  const Index rows = A.rows_local();
  EXPECT_THROW(solve_targets(A, MatrixXd(rows, 0), w, {}), InvalidArgument);
  EXPECT_THROW(solve_targets(A, MatrixXd::Zero(rows + 1, 2), w, {}), InvalidArgument);
  MatrixXd bad = MatrixXd::Constant(rows, 3, 1.0 / kRows);
  RegressionOptions options;
  options.loss = "cross-entropy";
  bad.col(1).setConstant(-1);  // refused by one of the tasks, while the others wait
  EXPECT_THROW(solve_targets(A, bad, w, options), InvalidArgument);
  bad.col(1).setConstant(1);
  EXPECT_NO_THROW(solve_targets(A, bad, w, options));
}

TEST_F(Targets, OneTargetIsASolve) {
  const RowMatrix A = reference::distribute(comm_, A_, reference::Layout::random);
  const MatrixXd own = targets().leftCols(1).middleRows(A.first_row(), A.rows_local());
  const VectorXd w = VectorXd::Constant(A.rows_local(), 1e-4);
  const auto one = solve_targets(A, own, w, {});
  const auto single = solve_regression(A, own.col(0), w, {});
  EXPECT_EQ(one[0].x, single.x);
  EXPECT_DOUBLE_EQ(one[0].summary.reads_of_a, single.summary.reads_of_a);
}

/// Tasks of different lengths that sum, multiply and map in different orders.
TEST_F(Targets, JointPassesGiveEveryTaskItsOwn) {
  const RowMatrix A = reference::distribute(comm_, A_, reference::Layout::tiled);
  JointPasses passes(A);
  std::vector<RowMatrix> views(12, RowMatrix(A.passes().joined(passes)));
  std::vector<double> found(views.size()), expected(views.size());
  std::vector<std::function<void()>> tasks;
  const auto work = [&](const RowMatrix& matrix, std::size_t k) {
    VectorXd x = reference::random_vector(kColumns, k);
    const VectorXd one = VectorXd::Ones(matrix.rows_local());
    double sum = 0;
    for (std::size_t step = 0; step <= k % 5; ++step) {
      VectorXd y;
      VectorXd product =
          (step + k) % 2 == 0
              ? VectorXd(matrix.passes().normal_product(x, {one.data(), one.data(), 0.5}, y).head(kColumns))
              : VectorXd(matrix.passes().transpose_multiply(matrix.multiply(x)));
      matrix.communicator().sum({product.data(), static_cast<std::size_t>(product.size())});
      x = product.normalized();
      sum += matrix.communicator().sum(y.size() == 0 ? 1.0 : y.sum());
    }
    return sum + x.sum();
  };
  for (std::size_t k = 0; k < views.size(); ++k) {
    expected[k] = work(A, k);
    tasks.emplace_back([&, k] { found[k] = work(views[k], k); });
  }
  passes.run(tasks);
  for (std::size_t k = 0; k < views.size(); ++k)
    EXPECT_NEAR(found[k], expected[k], 1e-12 * kRows * (1 + std::abs(expected[k])));  // sums in another order
}

}  // namespace attnreg::test_targets
