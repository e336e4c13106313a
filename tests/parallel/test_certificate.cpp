// The same certificate however the rows are spread over the ranks.

#include <gtest/gtest.h>
#include <mpi.h>

#include <cmath>
#include <vector>

#include "attnreg/solver.hpp"
#include "certificate/certify.hpp"
#include "losses/losses.hpp"
#include "newton/minimise.hpp"
#include "numbers/random.hpp"

namespace attnreg::test_certificate {

using Eigen::Index;
using Eigen::VectorXd;

constexpr Index kRows = 300, kColumns = 6;

/// Softmax regression of a noisy target, all rows.
struct Problem {
  RowMajorMatrix A{kRows, kColumns};
  VectorXd b{kRows}, w = VectorXd::Constant(kRows, 3e-3), x{kColumns};

  Problem() {
    const RandomStream rows(1, Purpose::problem_rows), noise(1, Purpose::problem_noise);
    for (Index i = 0; i < kRows; ++i) {
      std::vector<double> values(kColumns + 1);
      rows.normals(i, values);
      A.row(i) = Eigen::Map<const Eigen::RowVectorXd>(values.data(), kColumns);
      b[i] = std::exp(A(i, 0) - A(i, 1) + 0.3 * values.back());
    }
    b /= b.sum();
    x.setConstant(0.1);
  }
};

/// All rows on this rank, or a few, none, and many in turn.
RowPartition partition(const Communicator& communicator) {
  const int ranks = communicator.size();
  std::vector<std::int64_t> first(static_cast<std::size_t>(ranks) + 1, 0);
  for (int k = 1; k < ranks; ++k)
    first[static_cast<std::size_t>(k)] = k % 2 == 1 ? 7 * k : first[static_cast<std::size_t>(k) - 1];
  first.back() = kRows;
  return RowPartition(first);
}

struct Outcome {
  Certificate at_start, at_end;
};

Outcome solve_and_certify(MPI_Comm group) {
  const Problem problem;
  const Communicator communicator(group);
  const RowPartition rows = partition(communicator);
  const Index first = rows.begin(communicator.rank()), count = rows.rows_local(communicator.rank());
  const RowMatrix A(communicator, rows, RowMajorMatrix(problem.A.middleRows(first, count)));
  const VectorXd b = problem.b.segment(first, count), w = problem.w.segment(first, count);
  RegressionObjective objective(A, b, w, make_loss("softmax"));
  CertificateOptions options;
  options.level = CertificateLevel::full;
  options.gradient_reference = 1;
  options.x0 = problem.x;
  Outcome outcome;
  Point point = objective.evaluate(problem.x);
  outcome.at_start = certify(objective, point, options);
  NewtonOptions newton_options;
  newton(objective, point, newton_options);
  // A fixed distance from the minimum: at the minimum itself every figure would be rounding.
  point = objective.evaluate(point.x + VectorXd::Constant(kColumns, 1e-5));
  outcome.at_end = certify(objective, point, options);
  return outcome;
}

// Sums in another order: the minimum moves by some 1e-13, which is 1e-8 of the 1e-5 that it is away.
void expect_same(const Certificate& a, const Certificate& b) {
  const auto same = [](double left, double right) {
    return (std::isnan(left) && std::isnan(right)) || left == right || std::abs(left - right) <= 1e-7 * std::abs(left);
  };
  EXPECT_PRED2(same, a.gradient_norm, b.gradient_norm);
  EXPECT_PRED2(same, a.newton_decrement, b.newton_decrement);
  EXPECT_PRED2(same, a.smallest_eigenvalue, b.smallest_eigenvalue);
  EXPECT_PRED2(same, a.largest_eigenvalue, b.largest_eigenvalue);
  EXPECT_PRED2(same, a.convexity, b.convexity);
  EXPECT_PRED2(same, a.figures.row_distance, b.figures.row_distance);
  EXPECT_PRED2(same, a.figures.third_derivative, b.figures.third_derivative);
  EXPECT_PRED2(same, a.figures.radius, b.figures.radius);
  EXPECT_PRED2(same, a.distance_bound.value_or(-1), b.distance_bound.value_or(-1));
  EXPECT_EQ(a.kind, b.kind);
  EXPECT_EQ(a.reads, b.reads);
  EXPECT_EQ(a.assumptions.size(), b.assumptions.size());
  for (std::size_t k = 0; k < std::min(a.assumptions.size(), b.assumptions.size()); ++k) {
    EXPECT_PRED2(same, a.assumptions[k].value, b.assumptions[k].value);
    EXPECT_EQ(a.assumptions[k].holds, b.assumptions[k].holds);
  }
}

TEST(Certificate, IsTheSameOnAnyNumberOfRanks) {
  const Outcome together = solve_and_certify(MPI_COMM_WORLD);
  const Outcome alone = solve_and_certify(MPI_COMM_SELF);
  expect_same(together.at_start, alone.at_start);
  expect_same(together.at_end, alone.at_end);
  EXPECT_EQ(together.at_end.kind, StationaryKind::local_minimum);
  EXPECT_TRUE(together.at_end.distance_bound.has_value());
  EXPECT_LT(together.at_end.distance_bound.value_or(1), 1e-3);
}

TEST(Certificate, IsReplicated) {
  const Communicator world(MPI_COMM_WORLD);
  const Outcome outcome = solve_and_certify(MPI_COMM_WORLD);
  const Certificate& c = outcome.at_end;
  const double figures[] = {c.gradient_norm,
                            c.newton_decrement,
                            c.smallest_eigenvalue,
                            c.convexity,
                            c.figures.third_derivative,
                            c.figures.radius,
                            c.distance_bound.value_or(-1),
                            c.reads};
  const bool replicated = world.is_replicated(figures);
  EXPECT_TRUE(replicated);
}

}  // namespace attnreg::test_certificate
