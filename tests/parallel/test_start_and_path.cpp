#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "attnreg/regression.hpp"
#include "errors/printable.hpp"
#include "objective/regression_objective.hpp"
#include "support/dense_algebra.hpp"
#include "support/reference.hpp"

namespace attnreg::test_start_and_path {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

const Communicator& world() {
  static const Communicator communicator(MPI_COMM_WORLD);
  return communicator;
}

RegressionResult solve(const reference::Problem& problem, const RegressionOptions& options,
                       MPI_Comm group = MPI_COMM_WORLD) {
  const Communicator communicator(group);
  const auto data = reference::distribute(communicator, problem, reference::Layout::random);
  return solve_regression(data.A, data.b, data.w, options);
}

RegressionOptions method(Method which) {
  RegressionOptions options;
  options.method = which;
  return options;
}

/// max |A s| for the first step s = -M^-1 g of the model with all rows, from x = 0, by the formulas: delta_i is
/// f_i (2 f_i - b_i) - f^T (f - b) f_i, and 0 where negative.
double first_move(const reference::Problem& problem) {
  const double n = static_cast<double>(problem.A.rows());
  const VectorXd f = VectorXd::Constant(problem.A.rows(), 1 / n);
  const VectorXd delta = f.array() * (2 * f - problem.b).array() - f.dot(f - problem.b) * f.array();
  const MatrixXd centred = problem.A.rowwise() - problem.A.colwise().mean();
  const MatrixXd M = centred.transpose() * delta.cwiseMax(0).asDiagonal() * centred +
                     problem.A.transpose() * problem.w.cwiseAbs2().asDiagonal() * problem.A;
  const VectorXd g = reference::to_double(reference::evaluate(problem, VectorXd::Zero(problem.A.cols())).gradient);
  return (problem.A * reference::solved(M, g)).cwiseAbs().maxCoeff();
}

// 200 rows: the model uses all of them, so the decision can be made again by the formulas.
TEST(Start, IsDecidedByTheFirstMove) {
  for (const double weight : {1.0, 1e-1, 1e-2, 1e-3, 1e-5}) {
    const auto problem = reference::random_problem(200, 8, 1, weight, 1);
    const double move = first_move(problem);
    const bool near = move <= 0.1;
    for (const auto which : {Method::newton, Method::newton_cg}) {
      const auto result = solve(problem, method(which));
      const auto replicated =
          world().is_replicated(std::vector<double>{static_cast<double>(result.start), result.x[0], result.x[7]});
      SCOPED_TRACE("w " + text_of(weight) + ", move " + text_of(move));
      EXPECT_TRUE(replicated);
      EXPECT_EQ(result.start, near ? Start::zero : Start::cross_entropy);
      // six digits of the move may round differently: four are compared
      const std::string text = ": the first model step from x = 0 moves the logits by up to ";
      EXPECT_THAT(result.notes, Contains(testing::AllOf(HasSubstr(text + text_of(move).substr(0, 4)),
                                                        HasSubstr(near ? " <= 0.1" : " > 0.1"))));
      EXPECT_EQ(result.summary.termination, Termination::converged);
    }
  }
  EXPECT_LE(first_move(reference::random_problem(200, 8, 1, 1.0, 1)), 0.1);  // the list of weights has both kinds
  EXPECT_GT(first_move(reference::random_problem(200, 8, 1, 1e-5, 1)), 0.1);
}

TEST(Start, IsTheSameWithSampledRowsOnAnyNumberOfRanks) {
  for (const double weight : {1.0, 1e-5}) {
    const auto problem = reference::random_problem(3000, 8, 1, weight, 2);
    const auto together = solve(problem, method(Method::newton_cg));
    const auto alone = solve(problem, method(Method::newton_cg), MPI_COMM_SELF);
    EXPECT_EQ(together.start, weight == 1 ? Start::zero : Start::cross_entropy);
    EXPECT_EQ(together.start, alone.start);
    EXPECT_LE((together.x - alone.x).norm(), 1e-9 * alone.x.norm());
  }
}

TEST(Start, NeedsAPositiveTargetAndTheSoftmaxLoss) {
  auto problem = reference::random_problem(200, 8, 1, 1e-3, 1);
  auto options = method(Method::newton_cg);
  options.loss = "cross-entropy";
  const auto convex = solve(problem, options);
  problem.b = -problem.b;
  const auto negative = solve(problem, method(Method::newton_cg));
  EXPECT_EQ(convex.start, Start::zero);
  EXPECT_EQ(negative.start, Start::zero);
  EXPECT_THAT(negative.notes, Contains(HasSubstr("no value of b is positive")));
}

TEST(Start, RandomOnesListTheMinimaAndTheBestIsReturned) {
  reference::Problem problem{RowMajorMatrix(4, 1), VectorXd(4), VectorXd::Constant(4, 1e-3)};
  problem.A << 1, -1, 0.5, -0.5;
  problem.b << 1.1, 1, -0.5, -0.5;  // a minimum on either side of 0; the one on the right is lower
  const double at_zero = static_cast<double>(reference::evaluate(problem, VectorXd::Zero(1)).value);
  for (const auto which : {Method::newton, Method::newton_cg}) {
    auto options = method(which);
    options.start = Start::zero;
    const auto one = solve(problem, options);
    options.random_starts = 6;
    const auto best = solve(problem, options), again = solve(problem, options);
    int starts = 0;
    bool from_zero = false;
    for (std::size_t k = 0; k < best.minima.size(); ++k) {
      const auto& minimum = best.minima[k];
      starts += minimum.starts;
      EXPECT_EQ(static_cast<std::size_t>(minimum.starts), minimum.from.size());
      EXPECT_TRUE(k == 0 || minimum.value > best.minima[k - 1].value + 1e-6 * at_zero);
      for (const auto& name : minimum.from) from_zero = from_zero || name == "zero";
    }
    EXPECT_EQ(starts, 7);
    EXPECT_TRUE(from_zero);
    EXPECT_EQ(best.minima.size(), 2u);  // of 6 random starts all are on one side with probability 1/32
    EXPECT_GT(best.x[0], 0);
    EXPECT_TRUE(one.minima.empty());
    EXPECT_LE(best.summary.value, one.summary.value + 1e-12 * at_zero);
    EXPECT_NEAR(best.summary.value, best.minima.front().value, 1e-6 * at_zero);
    EXPECT_NEAR(static_cast<double>(reference::evaluate(problem, best.x).value), best.summary.value, 1e-12 * at_zero);
    EXPECT_GT(best.summary.reads_of_a, 6 * one.summary.reads_of_a / 2);  // those of all starts
    EXPECT_EQ(best.x, again.x);
  }
}

constexpr double kPath[] = {1e-1, 1e-2, 1e-3, 1e-4};

std::vector<RegressionResult> path(const reference::Distributed& data, const RegressionOptions& options) {
  return solve_path(data.A, data.b, std::vector<double>(std::begin(kPath), std::end(kPath)), options);
}

TEST(Path, EachEntryIsTheSolveFromTheOneBefore) {
  for (const Index rows : {200, 3000}) {  // all rows, and sampled ones
    auto problem = reference::random_problem(rows, 6, 1, 1, 3);
    for (const auto which : {Method::newton, Method::newton_cg}) {
      auto options = method(which);
      options.newton.relative_tolerance = 1e-12;  // |x - x*| <= |g| / lambda_min is below 1e-9 |x|
      const auto data = reference::distribute(world(), problem, reference::Layout::random);
      const double before = data.A.reads();
      const auto results = path(data, options);
      const double reads = data.A.reads() - before;
      double sum = 0;
      EXPECT_EQ(results.size(), std::size(kPath));
      for (std::size_t k = 0; k < results.size(); ++k) {
        problem.w.setConstant(kPath[k]);
        const auto alone = solve(problem, options);
        SCOPED_TRACE("rows " + std::to_string(rows) + ", w " + text_of(kPath[k]));
        EXPECT_TRUE(results[k].summary.termination == Termination::converged ||
                    results[k].summary.termination == Termination::converged_rounding);
        EXPECT_LE((results[k].x - alone.x).norm(), 1e-9 * alone.x.norm());
        EXPECT_EQ(results[k].start, k == 0 ? alone.start : Start::given);
        EXPECT_EQ(results[k].summary.gradient_reference, alone.summary.gradient_reference);  // |g(0)| of its own
        EXPECT_TRUE(k == 0 || results[k].summary.value < results[k - 1].summary.value);
        EXPECT_GE(results[k].summary.reads_of_a, 3);
        sum += results[k].summary.reads_of_a + results[k].certificate.reads;
        options.start = Start::given;
        options.x0 = results[k].x;
      }
      EXPECT_NEAR(sum, reads, 1e-9 * reads);
    }
  }
}

TEST(Path, KeepsTheScores) {
  const auto problem = reference::random_problem(20000, 6, 1, 1, 4);
  const auto data = reference::distribute(world(), problem);
  auto options = method(Method::newton_cg);
  options.start = Start::zero;
  std::vector<double> products{0};  // the products and gradients of each entry, from the second place on
  options.newton.on_iteration = [&](const IterationRecord& record) {
    if (record.iteration == 0) products.push_back(0);
    products.back() += record.cg_iterations + (record.iteration > 0 ? 1 : 0);
  };
  const auto results = solve_path(data.A, data.b, {1e-1, 7e-2}, options);  // the scores sum to about d / 2
  EXPECT_EQ(products.size(), 3u);
  // Besides: the gradients at 0 and at the start, the confirmation, a few samples and a fresh z; a sketch is two more.
  const auto rest = [&](std::size_t k) { return results[k].summary.reads_of_a - products[k + 1]; };
  EXPECT_GE(rest(0), 4);
  EXPECT_LE(rest(0), 4.5);  // 1 + 1 + a sketch
  EXPECT_LE(rest(1), 4.5);  // 1 + 2 + 1, no sketch
}

TEST(Certificates, HaveTheLevelThatWasAskedFor) {
  const auto problem = reference::random_problem(3000, 6, 1, 1e-2, 5);
  for (const auto which : {Method::newton, Method::newton_cg}) {
    std::vector<RegressionResult> results;
    for (const auto level : {CertificateLevel::none, CertificateLevel::gradient, CertificateLevel::full}) {
      auto options = method(which);
      options.certificate = level;
      results.push_back(solve(problem, options));
      EXPECT_EQ(results.back().certificate.level, level);
    }
    const auto &none = results[0].certificate, &gradient = results[1].certificate, &full = results[2].certificate;
    EXPECT_EQ(none.reads, 0);
    EXPECT_EQ(gradient.reads, 0);  // the solve ended with a fresh A x
    EXPECT_GT(full.reads, 0);
    EXPECT_LE(full.reads, 10);
    EXPECT_TRUE(std::isnan(none.gradient_norm));
    EXPECT_LE(gradient.relative_gradient, 1e-10);
    EXPECT_EQ(gradient.kind, StationaryKind::unknown);
    EXPECT_FALSE(gradient.distance_bound.has_value());
    EXPECT_EQ(full.kind, StationaryKind::local_minimum);
    EXPECT_TRUE(full.distance_bound.has_value());
    EXPECT_FALSE(full.assumptions.empty());
    EXPECT_EQ(results[0].x, results[2].x);
  }
}

TEST(Certificates, EpsilonIsReached) {
  const auto problem = reference::random_problem(3000, 6, 1, 1e-2, 5);
  auto options = method(Method::newton);
  options.newton.relative_tolerance = 1e-14;
  const auto best = solve(problem, options);
  for (const auto which : {Method::newton, Method::newton_cg}) {
    for (const double epsilon : {1e-2, 1e-6, 1e-9}) {
      options = method(which);
      options.newton.relative_tolerance = 0.1;  // far from enough: it has to go on
      options.epsilon = epsilon;
      const auto result = solve(problem, options);
      SCOPED_TRACE("epsilon " + text_of(epsilon));
      EXPECT_EQ(result.summary.termination, Termination::converged);
      EXPECT_EQ(result.certificate.level, CertificateLevel::full);
      EXPECT_LE(result.certificate.distance_bound.value_or(1), epsilon);
      EXPECT_LE((result.x - best.x).norm(), result.certificate.distance_bound.value_or(0) + 1e-12 * best.x.norm());
    }
  }
}

TEST(Certificates, AnEpsilonOutOfReachIsSaidToBe) {
  const auto problem = reference::random_problem(3000, 6, 1, 1e-2, 5);
  for (const auto which : {Method::newton, Method::newton_cg}) {
    auto options = method(which);
    options.epsilon = 1e-300;
    const auto result = solve(problem, options);
    EXPECT_EQ(result.summary.termination, Termination::uncertified);
    EXPECT_TRUE(result.certificate.distance_bound.has_value());
    EXPECT_LE(result.certificate.distance_bound.value_or(1), 1e-8);
    EXPECT_TRUE(result.x.allFinite());
  }
}

}  // namespace attnreg::test_start_and_path
