#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "attnreg/error.hpp"
#include "newton/minimise.hpp"
#include "support/solve.hpp"
#include "support/stub_objective.hpp"

namespace attnreg::test_termination {

using Eigen::VectorXd;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

TEST(Termination, RoundingWhenTheToleranceIsBelowIt) {
  const auto problem = reference::random_problem(300, 5, 1, 1e-2, 9);
  NewtonOptions options;
  options.relative_tolerance = 1e-30;
  const auto out = solve(problem, options);
  EXPECT_EQ(out.summary.termination, Termination::converged_rounding);
  EXPECT_LE(out.summary.gradient_norm, out.summary.gradient_floor);
  EXPECT_GT(out.summary.gradient_floor, 0);
}

/// A fresh evaluation finds a gradient of about 1e-8, but for the first and the n-th one; after a step it looks
/// smaller.
struct NoisyFloor : StubObjective {
  explicit NoisyFloor(int good) : good_(good) { floor = 1e-7; }
  Point evaluate(const VectorXd& x) override {
    Point point = StubObjective::evaluate(x);
    ++fresh_;
    point.gradient[0] = fresh_ == 1 ? 1 : fresh_ == good_ ? 1e-14 : 1e-8 + 1e-9 * (fresh_ % 3);
    return point;
  }
  Point step(Point point, Direction direction, const Trial& trial) override {
    ++steps;
    point = StubObjective::evaluate(point.x + trial.t * direction.s);
    point.gradient[0] = 1e-13;
    return point;
  }
  double change(const Point&, double) const override { return 0; }

 private:
  int good_, fresh_ = 0;
};

/// From x, which becomes the point where it ends.
NewtonSummary minimise(StubObjective& stub, double& x, const NewtonOptions& options = {}) {
  Point point = stub.evaluate(VectorXd::Constant(1, x));
  const NewtonSummary summary = newton(stub, point, options);
  x = point.x[0];
  return summary;
}

NewtonSummary minimise_from(double x, StubObjective& stub, const NewtonOptions& options = {}) {
  return minimise(stub, x, options);
}

TEST(Termination, AFewMoreStepsAreTriedAtTheFloor) {
  NewtonOptions options;
  options.gradient_reference = 1e4;
  options.relative_tolerance = 1e-16;  // 1e-12
  NoisyFloor passes(4);
  const auto passed = minimise_from(0, passes, options);
  EXPECT_EQ(passed.termination, Termination::converged);
  EXPECT_EQ(passed.gradient_norm, 1e-14);
  NoisyFloor stays(100);
  const auto stayed = minimise_from(0, stays, options);
  EXPECT_EQ(stayed.termination, Termination::converged_rounding);
  EXPECT_LT(stays.steps, 10);
}

TEST(Termination, IterationLimit) {
  const auto problem = reference::random_problem(300, 5, 1, 1e-2, 9);
  for (const int limit : {0, 1, 2}) {
    NewtonOptions options;
    options.max_iterations = limit;
    options.relative_tolerance = 1e-14;
    const auto out = solve(problem, options);
    EXPECT_EQ(out.summary.termination, Termination::iteration_limit);
    EXPECT_EQ(out.summary.iterations, limit);
  }
}

TEST(Termination, TimeLimitIsLookedAtOnceAnIteration) {
  StubObjective stub;  // a step takes a second
  NewtonOptions options;
  options.time_limit_seconds = 2;
  options.relative_tolerance = 1e-15;
  EXPECT_EQ(minimise_from(10, stub, options).termination, Termination::time_limit);
  EXPECT_EQ(stub.steps, 2);
  options.time_limit_seconds = 1e-9;
  const auto out = solve(reference::random_problem(300, 5, 1, 1e-2, 9), options);
  EXPECT_EQ(out.summary.termination, Termination::time_limit);
  EXPECT_EQ(out.summary.iterations, 0);
}

/// No step lowers L, whatever the gradient says.
struct Ascending : StubObjective {
  double change(const Point&, double) const override { return 1e-3; }
};

TEST(Termination, StagnatedWhenNoStepLowersTheValue) {
  Ascending stub;
  double x = 1;
  const auto summary = minimise(stub, x);
  EXPECT_EQ(summary.termination, Termination::stagnated);
  EXPECT_EQ(summary.iterations, 0);
  EXPECT_EQ(x, 1);
  Ascending at_the_floor;
  at_the_floor.floor = 2.5;  // above |g| = 2
  EXPECT_EQ(minimise_from(1, at_the_floor).termination, Termination::converged_rounding);
}

/// Claims a tiny gain in every step and stays where it is.
struct Creeping : StubObjective {
  Point step(Point point, Direction, const Trial&) override {
    ++steps;
    return evaluate(point.x);
  }
  double change(const Point&, double) const override { return -1e-20; }
  Hessian hessian(const Point&) override { return hessian_of(1e30); }  // so steep that 1e-20 passes for enough
};

TEST(Termination, StagnatedWhenStepsChangeNothing) {
  Creeping stub;
  const auto summary = minimise_from(1, stub);
  EXPECT_EQ(summary.termination, Termination::stagnated);
  EXPECT_LE(summary.iterations, 10);
}

struct BadHessian : StubObjective {
  Hessian hessian(const Point&) override { return hessian_of(steps > 0 ? kNaN : 10.0); }
};
struct BadValue : StubObjective {
  double value_at(double x) const override { return x < 0.9 ? kNaN : StubObjective::value_at(x); }
  double change(const Point&, double) const override { return -1; }
};
struct BadStart : StubObjective {
  double slope_at(double) const override { return kInfinity; }
};

TEST(Termination, BreakdownKeepsTheLastGoodPoint) {
  BadHessian hessian;
  double x = 1;
  const auto after_step = minimise(hessian, x);
  EXPECT_EQ(after_step.termination, Termination::breakdown);
  EXPECT_EQ(after_step.iterations, 1);
  EXPECT_NEAR(x, 0.8, 1e-12);  // 1 - g / 10
  BadValue value;
  x = 1;
  const auto in_step = minimise(value, x);
  EXPECT_EQ(in_step.termination, Termination::breakdown);
  EXPECT_EQ(x, 1);
  EXPECT_EQ(in_step.value, 0.75);
  BadStart start;
  EXPECT_EQ(minimise_from(1, start).termination, Termination::breakdown);
}

TEST(Termination, HaveTheirNames) {
  EXPECT_EQ(termination_name(Termination::converged), "converged");
  EXPECT_EQ(termination_name(Termination::converged_rounding), "converged_rounding");
  EXPECT_EQ(termination_name(Termination::stagnated), "stagnated");
  EXPECT_EQ(termination_name(Termination::iteration_limit), "iteration_limit");
  EXPECT_EQ(termination_name(Termination::time_limit), "time_limit");
  EXPECT_EQ(termination_name(Termination::breakdown), "breakdown");
}

TEST(GradientReferences, GivenLargestAndNone) {
  const auto problem = reference::random_problem(300, 5, 1, 1e-2, 9);
  const VectorXd x0 = reference::random_vector(5, 10);
  NewtonOptions options;
  const auto start = solve(problem, x0, options);
  options.gradient_reference = 123;
  const auto given = solve(problem, x0, options);
  options.gradient_reference = 0;
  options.reference = GradientReference::largest;
  const auto largest = solve(problem, x0, options);
  double largest_norm = 0;
  for (const auto& record : largest.records) largest_norm = std::max(largest_norm, record.gradient_norm);
  EXPECT_DOUBLE_EQ(start.summary.gradient_reference, start.records[0].gradient_norm);
  EXPECT_EQ(given.summary.gradient_reference, 123);
  EXPECT_DOUBLE_EQ(largest.summary.gradient_reference, largest_norm);
  for (const auto* out : {&start, &given, &largest})
    EXPECT_LE(out->summary.gradient_norm, 1e-10 * out->summary.gradient_reference);
}

TEST(NewtonOptions, WrongOnesThrowOnAllRanks) {
  const auto problem = reference::random_problem(30, 2, 1, 0.1, 11);
  const auto throws = [&](auto&& change) {
    NewtonOptions options;
    change(options);
    try {
      solve(problem, options);
    } catch (const InvalidArgument& error) {
      return error.scope() == Error::Scope::all_ranks;
    }
    return false;
  };
  for (const double bad : {0.0, -1.0, kNaN, kInfinity})
    EXPECT_TRUE(throws([=](NewtonOptions& options) { options.relative_tolerance = bad; })) << bad;
  for (const double bad : {-1.0, kNaN})
    EXPECT_TRUE(throws([=](NewtonOptions& options) { options.gradient_reference = bad; })) << bad;
  for (const double bad : {0.0, -1.0, kNaN})
    EXPECT_TRUE(throws([=](NewtonOptions& options) { options.time_limit_seconds = bad; })) << bad;
  EXPECT_TRUE(throws([](NewtonOptions& options) { options.max_iterations = -1; }));
}

}  // namespace attnreg::test_termination
