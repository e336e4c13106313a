// Whole solves of the losses that grow: exp, cosh and sinh, plain and rescaled.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "attnreg/regression.hpp"
#include "losses/losses.hpp"
#include "objective/regression_objective.hpp"
#include "support/reference.hpp"

namespace attnreg::test_family {

using Eigen::VectorXd;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

class Family : public testing::TestWithParam<const char*> {
 protected:
  const Communicator comm_{MPI_COMM_WORLD};
  static constexpr Index kRows = 500, kColumns = 6;

  const std::string loss_ = GetParam();
  const VectorXd x_true_ = reference::random_vector(kColumns, 3);

  /// b is what the loss gives at x_true.
  reference::Problem planted(double weight = 0) const {
    reference::Problem problem{0.5 * reference::random_matrix(kRows, kColumns, 1), VectorXd::Zero(kRows),
                               VectorXd::Constant(kRows, weight), loss_};
    problem.b = reference::to_double(reference::evaluate(problem, x_true_).f);
    return problem;
  }
  /// Starts near x_true: there are other minima.
  RegressionOptions options(const RowMatrix& A, Method method) const {
    RegressionOptions options;
    options.loss = loss_;
    options.method = method;
    options.start = Start::given;
    options.x0 = x_true_ + VectorXd::Constant(A.columns(), 0.1);
    options.sampling.oversampling = 10;
    return options;
  }
};

INSTANTIATE_TEST_SUITE_P(Named, Family,
                         testing::Values("exp", "cosh", "sinh", "rescaled-exp", "rescaled-cosh", "rescaled-sinh"));

// The scale of u is not in the target of the rescaled losses: with w = 0, and no column of ones, it is still in A x.
TEST_P(Family, PlantedSolutionIsRecovered) {
  const auto problem = planted();
  for (const auto layout : {reference::Layout::tiled, reference::Layout::all_on_last})
    for (const auto holding : {reference::Holding::float64, reference::Holding::sparse64}) {
      const auto data = reference::distribute(comm_, problem, layout, holding);
      for (const auto method : {Method::newton, Method::newton_cg}) {
        auto solver = options(data.A, method);
        for (const auto kind : {LinearSolver::rank0, LinearSolver::scalapack}) {
          solver.linear_solver.kind = kind;
          const auto result = solve_regression(data.A, data.b, data.w, solver);
          EXPECT_TRUE(result.summary.termination == Termination::converged ||
                      result.summary.termination == Termination::converged_rounding)
              << termination_name(result.summary.termination);
          EXPECT_LE(result.summary.relative_gradient, 1e-9);
          // |g| <= 1e-10 |g(0)|, and condition numbers are moderate
          EXPECT_LE((result.x - x_true_).norm(), 1e-6);
          EXPECT_LE(result.fit.relative_residual, 1e-7);
        }
      }
    }
}

TEST_P(Family, CertificateCallsTheSolutionAMinimum) {
  const auto data = reference::distribute(comm_, planted(), reference::Layout::random);
  auto solver = options(data.A, Method::automatic);
  solver.certificate = CertificateLevel::full;
  const auto result = solve_regression(data.A, data.b, data.w, solver);
  EXPECT_EQ(result.certificate.kind, StationaryKind::local_minimum);
  EXPECT_LT(result.certificate.distance_bound.value_or(1), 1e-6) << result.certificate.distance_reason;
  EXPECT_GE(result.certificate.distance_bound.value_or(0), (result.x - x_true_).norm());
}

TEST_P(Family, PapersMethodServesToo) {
  const auto problem = planted(0.1);
  const auto data = reference::distribute(comm_, problem, reference::Layout::tiled);
  auto solver = options(data.A, Method::sketched_newton);
  solver.x0 = x_true_;
  solver.newton.max_iterations = 40;
  solver.newton.relative_tolerance = 1e-6;
  const auto sketched = solve_regression(data.A, data.b, data.w, solver);
  solver.method = Method::newton;
  const auto exact = solve_regression(data.A, data.b, data.w, solver);
  EXPECT_LE((sketched.x - exact.x).norm(), 1e-4 * exact.x.norm());
}

/// Every step of a solve, with what one read or differences of L found, is where an evaluation from scratch is.
TEST_P(Family, StepsStayTrue) {
  const auto problem = planted(1e-3);
  const auto data = reference::distribute(comm_, problem, reference::Layout::random);
  RegressionObjective objective(data.A, data.b, data.w, make_loss(loss_));
  Point point = objective.evaluate(0.5 * x_true_);
  const double first = point.value;
  for (int k = 0; k < 4; ++k) {
    const VectorXd s = 0.1 * (x_true_ - point.x);
    const double before = point.value;
    Direction direction = k % 2 == 0 ? objective.likely_direction(point, s) : objective.direction(s);
    const Trial trial = objective.try_steps(point, direction, std::array{1.0})[0];
    point = objective.step(std::move(point), std::move(direction), trial);
    const Point fresh = objective.evaluate(point.x);
    const auto scale = 1e-12 * (1 + first);  // sums of 500 terms that are below L(x0) together
    EXPECT_NEAR(point.value, before + trial.change, scale);
    EXPECT_NEAR(point.value, fresh.value, scale);
    EXPECT_LE((point.gradient - fresh.gradient).norm(), 1e-12 * (1 + fresh.gradient.norm()));
  }
}

TEST_P(Family, StepsThatOverflowAreRejected) {
  const auto data = reference::distribute(comm_, planted(), reference::Layout::tiled);
  RegressionObjective objective(data.A, data.b, data.w, make_loss(loss_));
  const Point point = objective.evaluate(x_true_);
  const Direction direction = objective.direction(x_true_);
  const auto trials = objective.try_steps(point, direction, std::array{1e3, 1e5, 1e300});
  for (const Trial& trial : trials) EXPECT_EQ(trial.change, std::numeric_limits<double>::infinity());
  EXPECT_LT(objective.longest_step(direction), 1e3);
}

TEST_P(Family, AStartThatOverflowsIsABreakdown) {
  const auto data = reference::distribute(comm_, planted(), reference::Layout::tiled);
  auto solver = options(data.A, Method::automatic);
  solver.x0 = 1e4 * x_true_;
  const auto result = solve_regression(data.A, data.b, data.w, solver);
  EXPECT_EQ(result.summary.termination, Termination::breakdown);
  EXPECT_EQ(result.x, solver.x0);
}

TEST_P(Family, AutomaticStartIsNotStationary) {
  const auto data = reference::distribute(comm_, planted(), reference::Layout::even);
  auto solver = options(data.A, Method::automatic);
  solver.start = Start::automatic;
  const auto result = solve_regression(data.A, data.b, data.w, solver);
  const bool drawn_in = result.x.isZero(0);  // L(0) is lower than that of the random point
  EXPECT_EQ(drawn_in, loss_ == "rescaled-cosh");
  EXPECT_EQ(result.summary.iterations > 0, !drawn_in);
  EXPECT_EQ(result.summary.gradient_reference > 0, !drawn_in);
  const bool random = loss_.ends_with("cosh") || loss_ == "rescaled-sinh";
  EXPECT_EQ(result.start == Start::random, random);
  if (loss_ == "rescaled-exp") {
    EXPECT_EQ(result.start, Start::cross_entropy);
  }
  if (loss_.ends_with("cosh")) {
    EXPECT_THAT(result.notes, Contains(HasSubstr("-x is a minimiser as good as x")));
  }
}

TEST_P(Family, WarningsSayWhatTheLossCannotDo) {
  auto problem = planted();
  const auto warnings = [&] {
    const auto data = reference::distribute(comm_, problem, reference::Layout::random);
    auto solver = options(data.A, Method::automatic);
    solver.newton.max_iterations = 0;
    return solve_regression(data.A, data.b, data.w, solver).warnings;
  };
  const bool rescaled = loss_.starts_with("rescaled-"), sinh = loss_.ends_with("sinh");
  EXPECT_THAT(warnings(), testing::SizeIs(loss_ == "rescaled-sinh" ? 1 : 0));
  problem.b *= 2;
  problem.b[7] = -0.5;
  const auto of_bad_target = warnings();
  if (rescaled) {
    EXPECT_THAT(of_bad_target, Contains(HasSubstr("not to 1")));
  }
  if (!sinh) {
    EXPECT_THAT(of_bad_target, Contains(HasSubstr(loss_ == "cosh" ? "below 1" : "1 values of b are negative")));
  }
  if (sinh) {
    EXPECT_THAT(of_bad_target, Not(Contains(HasSubstr("negative"))));
  }
  problem.A.col(2).setOnes();
  if (loss_ == "rescaled-exp") {
    EXPECT_THAT(warnings(), Contains(HasSubstr("A v = 1 has a solution")));
  }
}

TEST_P(Family, AnyNumberOfRowsAndColumns) {
  for (const Index n : {1, 2, 5}) {
    reference::Problem problem{reference::random_matrix(n, 1, 4), VectorXd::Constant(n, 1.0 / static_cast<double>(n)),
                               VectorXd::Constant(n, 0.1), loss_};
    const auto data = reference::distribute(comm_, problem);
    RegressionOptions solver;
    solver.loss = loss_;
    const auto result = solve_regression(data.A, data.b, data.w, solver);
    EXPECT_TRUE(result.x.allFinite());
    EXPECT_TRUE(std::isfinite(result.summary.value));
    EXPECT_TRUE(result.summary.termination == Termination::converged ||
                result.summary.termination == Termination::converged_rounding)
        << termination_name(result.summary.termination) << " for n = " << n;
  }
}

TEST_P(Family, PredictGivesWhatIsFitted) {
  const auto problem = planted();
  const auto data = reference::distribute(comm_, problem, reference::Layout::all_on_last);
  const VectorXd f = reference::gather(comm_, predict(data.A, x_true_, loss_));
  EXPECT_LE((f - problem.b).cwiseAbs().maxCoeff(), 1e-13 * problem.b.cwiseAbs().maxCoeff());
}

TEST_P(Family, TheStartCrossEntropyServesSoftmaxOnly) {
  const auto data = reference::distribute(comm_, planted());
  RegressionOptions solver;
  solver.loss = loss_;
  solver.start = Start::cross_entropy;
  if (loss_ == "rescaled-exp")
    EXPECT_NO_THROW(solve_regression(data.A, data.b, data.w, solver));
  else
    EXPECT_THROW(solve_regression(data.A, data.b, data.w, solver), InvalidArgument);
}

}  // namespace attnreg::test_family
