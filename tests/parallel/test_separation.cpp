// Where no minimiser exists, and where one does, on any number of ranks.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>

#include "attnreg/regression.hpp"
#include "certificate/separation.hpp"
#include "losses/losses.hpp"
#include "support/reference.hpp"

namespace attnreg::test_separation {

using Eigen::VectorXd;
using testing::StartsWith;

constexpr Index kRows = 60, kColumns = 4;

struct Case {
  std::string loss = "cross-entropy";
  Eigen::MatrixXd A = reference::random_matrix(kRows, kColumns, 1);
  VectorXd b = VectorXd::Zero(kRows), w = VectorXd::Zero(kRows);
};

Separation separation(const Communicator& comm, const Case& problem, const VectorXd& candidate,
                      reference::Holding holding = reference::Holding::float64) {
  const reference::Problem whole{problem.A, problem.b, problem.w, problem.loss};
  const auto data = reference::distribute(comm, whole, reference::Layout::random, holding);
  const RegressionObjective objective(data.A, data.b, data.w, make_loss(problem.loss));
  return find_separation(objective, candidate);
}

class Separated : public testing::Test {
 protected:
  const Communicator comm_{MPI_COMM_WORLD};
  const VectorXd v_ = reference::random_vector(kColumns, 2);

  /// Row 5 in the middle of the others.
  static void put_in_the_middle(Eigen::MatrixXd& A) {
    A.row(5).setZero();
    A.row(5) = A.colwise().sum() / static_cast<double>(kRows - 1);
  }

  /// The claim itself, in extended precision.
  static void expect_separates(const Case& problem, const Separation& found) {
    using Real = long double;
    const Eigen::Matrix<Real, Eigen::Dynamic, 1> y = problem.A.cast<Real>() * found.direction.cast<Real>();
    const Real top = y.maxCoeff();
    Index held = 0;
    for (Index i = 0; i < kRows; ++i) {
      const bool is_held = y[i] >= top - 1e-13L;
      held += is_held;
      EXPECT_TRUE(is_held || problem.b[i] == 0) << i;
      EXPECT_TRUE(is_held || y[i] <= top - static_cast<Real>(found.gap) * 0.999L) << i;
    }
    EXPECT_EQ(held, found.held);
    EXPECT_EQ(found.falling, kRows - held);
  }

  static Index top(const Eigen::MatrixXd& A, const VectorXd& v) {
    Index row = 0;
    (A * v).maxCoeff(&row);
    return row;
  }
};

TEST_F(Separated, OneRowThatSticksOut) {
  for (const char* loss : {"cross-entropy", "softmax"})
    for (const auto holding : {reference::Holding::float64, reference::Holding::sparse64}) {
      Case problem{loss};
      problem.b[top(problem.A, v_)] = 1;
      const Separation found = separation(comm_, problem, v_, holding);
      EXPECT_TRUE(found.exists) << loss;
      EXPECT_TRUE(found.is_exact);
      EXPECT_EQ(found.held, 1);
      EXPECT_EQ(found.falling, kRows - 1);
      EXPECT_GT(found.gap, 0);
      expect_separates(problem, found);
      EXPECT_THAT(found.reason, StartsWith("no minimiser exists"));
      EXPECT_FALSE(separation(comm_, problem, -v_).exists);
      const VectorXd nothing = VectorXd::Zero(kColumns);
      EXPECT_FALSE(separation(comm_, problem, nothing).exists);
    }
}

TEST_F(Separated, NotByADirectionThatIsNone) {
  Case problem;
  put_in_the_middle(problem.A);
  problem.b[5] = 1;
  for (const std::uint64_t seed : {2, 3, 4, 5}) {
    EXPECT_FALSE(separation(comm_, problem, reference::random_vector(kColumns, seed)).exists);
  }
  problem.b.setConstant(1.0 / kRows);
  EXPECT_FALSE(separation(comm_, problem, v_).exists);
}

// Two rows whose logits are equal along v; the candidate is v plus something that is not.
TEST_F(Separated, TwoRowsAfterAProjection) {
  for (const char* loss : {"cross-entropy", "softmax"}) {
    Case problem{loss};
    VectorXd v = VectorXd::Unit(kColumns, 0);
    problem.A.col(0) = problem.A.col(0).cwiseMin(2);
    problem.A(7, 0) = problem.A(31, 0) = 3;
    problem.b[7] = 0.25;
    problem.b[31] = 0.75;
    v += 0.02 * v_;
    const Separation found = separation(comm_, problem, v);
    EXPECT_TRUE(found.exists) << loss;
    EXPECT_TRUE(found.is_exact);
    EXPECT_EQ(found.held, 2);
    expect_separates(problem, found);
    problem.w.setConstant(1e-3);  // with weights on all rows L grows along every direction
    EXPECT_FALSE(separation(comm_, problem, v).exists);
  }
}

// A row with b = 0 that has the same values as the one with b = 1 stays beside it.
TEST_F(Separated, RowsThatStayBesideAreHeld) {
  Case problem;
  const Index row = top(problem.A, v_);
  problem.b[row] = 1;
  problem.A.row((row + 9) % kRows) = problem.A.row(row);
  const Separation found = separation(comm_, problem, v_);
  EXPECT_TRUE(found.exists);
  EXPECT_EQ(found.held, 2);
  expect_separates(problem, found);
  problem.loss = "softmax";  // and b is out of reach
  EXPECT_FALSE(separation(comm_, problem, v_).exists);
}

TEST_F(Separated, RescaledExponentialsThatVanish) {
  Case problem{"rescaled-exp"};
  problem.A.col(0).setOnes();
  problem.b.setConstant(0.5 / kRows);
  const VectorXd down = -VectorXd::Unit(kColumns, 0);
  EXPECT_TRUE(separation(comm_, problem, down).exists);
  EXPECT_FALSE(separation(comm_, problem, -down).exists);
  problem.b.setConstant(1.0 / kRows);  // x = 0 fits it
  EXPECT_FALSE(separation(comm_, problem, down).exists);
}

// What a solve ends with.
TEST_F(Separated, CertificateSaysSo) {
  for (const bool separable : {true, false}) {
    Case problem;
    if (!separable) put_in_the_middle(problem.A);
    problem.b[separable ? top(problem.A, v_) : 5] = 1;
    const reference::Problem whole{problem.A, problem.b, problem.w, problem.loss};
    const auto data = reference::distribute(comm_, whole, reference::Layout::tiled);
    RegressionOptions options;
    options.loss = problem.loss;
    options.certificate = CertificateLevel::full;
    const auto result = solve_regression(data.A, data.b, data.w, options);
    EXPECT_EQ(!result.certificate.no_minimiser.empty(), separable) << result.certificate.distance_reason;
    EXPECT_EQ(result.certificate.distance_bound.has_value(), !separable) << result.certificate.distance_reason;
    EXPECT_FALSE(result.certificate.minimiser_exists);  // not by b and w alone
  }
}

}  // namespace attnreg::test_separation
