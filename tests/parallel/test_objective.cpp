#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "losses/losses.hpp"
#include "objective/regression_objective.hpp"
#include "support/reference.hpp"

namespace attnreg::test_objective {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::eps;

/// A problem spread over the ranks, and its objective.
struct Placed {
  reference::Problem problem;
  reference::Distributed data;
  RegressionObjective objective;

  explicit Placed(reference::Problem whole, reference::Layout layout = reference::Layout::random)
      : problem(std::move(whole)),
        data(reference::distribute(Communicator(MPI_COMM_WORLD), problem, layout)),
        objective(data.A, data.b, data.w, make_loss(problem.loss)) {}

  double value_at(const VectorXd& x) const { return static_cast<double>(reference::evaluate(problem, x).value); }
};

class Objectives : public testing::TestWithParam<const char*> {
 protected:
  static constexpr Index kColumns = 7;

  static reference::Problem problem(std::uint64_t seed = 1) {
    auto result = reference::random_problem(1500, kColumns, 1, 1e-2, seed);
    result.loss = GetParam();
    return result;
  }
  const VectorXd x_ = reference::random_vector(kColumns, 21);
  const VectorXd s_ = reference::random_vector(kColumns, 22);
};

INSTANTIATE_TEST_SUITE_P(Losses, Objectives, testing::Values("softmax", "cross-entropy"));

TEST_P(Objectives, ValueGradientAndHessianAgreeWithTheReference) {
  for (const auto layout : reference::layouts) {
    Placed placed(problem(), layout);
    auto& objective = placed.objective;
    Point point = objective.evaluate(x_);
    const auto hessian = objective.hessian(point);
    Direction along{s_};
    const VectorXd product = objective.hessian_product(point, along);
    const auto expected = reference::evaluate(placed.problem, x_);
    const auto expected_hessian = expected.hessian.cast<double>();
    const double floor = objective.gradient_floor(point, objective.norm(point.gradient));
    EXPECT_EQ(objective.dimension(), kColumns);
    EXPECT_NEAR(point.value, static_cast<double>(expected.value), 100 * eps * std::abs(point.value));
    EXPECT_LE((point.gradient - reference::to_double(expected.gradient)).norm(), floor);
    // 1500 rows of norm 3: sums of 1500 terms, as random sums, in the size of the Hessian of |delta|
    const double tolerance = 1e3 * eps * expected_hessian.norm();
    EXPECT_LE((product - expected_hessian * s_).norm(), tolerance * s_.norm());
    if (hessian.communicator.is_root()) {
      EXPECT_LE((hessian.exact - expected_hessian).norm(), tolerance);
      const MatrixXd negative = hessian.positive_part - hessian.exact;  // H <= M
      EXPECT_GE(negative.diagonal().minCoeff(), -tolerance);
    }
  }
}

TEST_P(Objectives, OneWeightIsThatOfEveryRow) {
  constexpr double kWeight = 0.3;
  for (const Index columns : {2, 7, 20}) {  // rows that have kernels of their own, and others
    auto numbers = reference::random_problem(1500, columns, 1, 1e-2, 3);
    numbers.loss = GetParam();
    numbers.w.setConstant(kWeight);
    const VectorXd x = reference::random_vector(columns, 21), s = reference::random_vector(columns, 22);
    for (const auto layout : reference::layouts) {
      Placed placed(numbers, layout);
      RegressionObjective& of_rows = placed.objective;
      RegressionObjective of_all(placed.data.A, placed.data.b, kWeight, make_loss(GetParam()));
      const Point point = of_rows.evaluate(x), same = of_all.evaluate(x);
      Direction first{s}, second{s};
      EXPECT_NEAR(point.value, same.value, 8 * eps * point.value);  // sums of 1024 positive terms in another order
      EXPECT_EQ(point.gradient, same.gradient);
      EXPECT_EQ(of_rows.hessian_product(point, first), of_all.hessian_product(same, second));
      const double change = of_rows.try_steps(point, first, std::array{0.5})[0].change;
      EXPECT_NEAR(change, of_all.try_steps(same, second, std::array{0.5})[0].change, 1e-13 * point.value);
      EXPECT_EQ(of_rows.ridge_gram_on_root(), of_all.ridge_gram_on_root());
    }
  }
}

TEST_P(Objectives, ChangeAlongIsTheDifferenceOfValues) {
  Placed placed(problem());
  auto& objective = placed.objective;
  const Point point = objective.evaluate(x_);
  const Direction direction = objective.direction(s_);
  const std::array steps{1.0, 0.1, -0.5, 1e-3};
  const auto trials = objective.try_steps(point, direction, steps);
  const double here = placed.value_at(x_), slope = point.gradient.dot(s_);
  for (std::size_t k = 0; k < steps.size(); ++k) {
    // x + t s rounds in double, |slope| |x| eps; the values' difference has 2 eps |L|
    const double tolerance = 100 * eps * (std::abs(here) + std::abs(slope) * x_.norm());
    EXPECT_NEAR(trials[k].change, placed.value_at(x_ + steps[k] * s_) - here, tolerance) << "t = " << steps[k];
  }
  // Where differences of values are rounding: the slope, up to t / 2 s^T H s
  const double tiny = objective.try_steps(point, direction, std::array{1e-12})[0].change;
  EXPECT_NEAR(tiny, 1e-12 * slope,
              1e-10 * std::abs(1e-12 * slope) +
                  1e-12 * objective.gradient_floor(point, objective.norm(point.gradient)) * s_.norm());
}

TEST_P(Objectives, ChangeAlongSurvivesOverflow) {
  Placed placed(problem());
  auto& objective = placed.objective;
  const Point point = objective.evaluate(x_);
  const auto trials = objective.try_steps(point, objective.direction(s_), std::array{1e3, 1.0, -1e4, 1e300});
  for (const auto& [k, t] : {std::pair{0u, 1e3}, {1u, 1.0}, {2u, -1e4}}) {
    const double expected = placed.value_at(x_ + t * s_) - placed.value_at(x_);
    EXPECT_NEAR(trials[k].change, expected, 1e-13 * std::abs(expected))
        << "t = " << t;  // rounding of z ~ t, and of t^2
  }
  EXPECT_EQ(trials[3].change, std::numeric_limits<double>::infinity());
}

TEST_P(Objectives, CommonShiftsOfTheLogitsChangeTheRegulariserOnly) {
  auto shifted = problem();
  shifted.A.col(0).setOnes();
  Placed placed(shifted);
  auto& objective = placed.objective;
  const Point point = objective.evaluate(x_);
  const Direction direction = objective.direction(VectorXd::Unit(kColumns, 0));
  for (const double t : {-1e4, -250.0, -30.0, 30.0, 250.0, 1e4}) {
    const double change = objective.try_steps(point, direction, std::array{t})[0].change;
    const double expected = placed.value_at(x_ + VectorXd::Unit(kColumns, 0) * t) - placed.value_at(x_);
    EXPECT_NEAR(change, expected, 1e-12 * std::abs(expected)) << "t = " << t;  // expected is of the size of t^2
  }
}

TEST_P(Objectives, StepIsEvaluate) {
  Placed placed(problem());
  auto& objective = placed.objective;
  Point point = objective.evaluate(x_);
  for (const double t : {1.0, 0.25, -0.5, 300.0}) {  // 300: the references come from scratch
    Direction direction = objective.direction(s_);
    const auto trials = objective.try_steps(point, direction, std::array{t, 2 * t});
    point = objective.step(std::move(point), std::move(direction), trials[0]);
    const Point fresh = objective.evaluate(point.x);
    const double floor = objective.gradient_floor(fresh, objective.norm(fresh.gradient));
    EXPECT_NEAR(point.value, fresh.value, 1e-12 * std::abs(point.value));
    EXPECT_LE((point.gradient - fresh.gradient).norm(), 2 * floor);
  }
}

TEST_P(Objectives, StepWithoutATrialWorksToo) {
  Placed placed(problem());
  auto& objective = placed.objective;
  const Point point = objective.step(objective.evaluate(x_), objective.direction(s_), {.t = 0.5});
  const VectorXd expected = x_ + 0.5 * s_;
  EXPECT_TRUE(point.x == expected);
  EXPECT_NEAR(point.value, placed.value_at(expected), 1e-13 * point.value);
}

TEST_P(Objectives, DirectionsAddUpFromProducts) {
  Placed placed(problem());
  auto& objective = placed.objective;
  const VectorXd q = reference::random_vector(kColumns, 30), s = 0.5 * s_ - 0.25 * q;
  const Point point = objective.evaluate(x_);
  Direction sum = objective.direction(VectorXd::Zero(kColumns)), p{s_};
  objective.hessian_product(point, p);
  sum.add(0.5, p);
  p.s = q;
  objective.hessian_product(point, p);
  sum.add(-0.25, p);
  const double reads = objective.reads_of_a();
  const double change = objective.try_steps(point, sum, std::array{1.0})[0].change;
  const double expected = objective.try_steps(point, objective.direction(s), std::array{1.0})[0].change;
  EXPECT_EQ(reads, 4);  // two for the point, one per product
  EXPECT_LE((sum.s - s).norm(), 4 * eps * s.norm());
  EXPECT_NEAR(change, expected, 1e-13 * (1 + std::abs(expected)));
}

TEST_P(Objectives, PointsAndDirectionsDoNotDependOnOneAnother) {
  Placed placed(problem());
  auto& objective = placed.objective;
  const Direction direction = objective.direction(s_);
  const Point here = objective.evaluate(x_), there = objective.evaluate(-x_);
  Direction along{s_};
  const VectorXd before = objective.hessian_product(here, along);
  objective.hessian_product(there, along);
  objective.hessian(there);
  const VectorXd after = objective.hessian_product(here, along);
  EXPECT_TRUE(before == after);
  for (const Point* point : {&here, &there}) {
    const double change = objective.try_steps(*point, direction, std::array{0.1})[0].change;
    const double expected = placed.value_at(point->x + 0.1 * s_) - placed.value_at(point->x);
    EXPECT_NEAR(change, expected, 1e-12 * (1 + std::abs(expected)));
  }
}

TEST_P(Objectives, RefreshesTheLogitsNowAndThen) {
  Placed placed(problem());
  auto& objective = placed.objective;
  Point point = objective.evaluate(x_);
  std::vector<int> fresh;
  for (int k = 1; k <= 24; ++k) {
    Direction direction = objective.direction(s_);
    const double t = 0.1 * (k % 2 == 0 ? -1 : 1), reads = objective.reads_of_a();
    const Trial trial = objective.try_steps(point, direction, std::array{t})[0];
    point = objective.step(std::move(point), std::move(direction), trial);
    EXPECT_EQ(objective.reads_of_a() - reads, 1);  // the read of the gradient makes A x anew
    if (objective.state_of(point).is_fresh()) fresh.push_back(k);
  }
  EXPECT_EQ(fresh, (std::vector<int>{11, 22}));
}

TEST_P(Objectives, DriftOfTheLogitsEndsWithARefresh) {
  Placed placed(problem());
  auto& objective = placed.objective;
  Point point = objective.evaluate(x_), fresh = objective.evaluate(x_);
  // Far away and back: z keeps the rounding of the largest A x on the way, 1e6 |A s|, in every step.
  double largest_error = 0;
  for (int k = 1; k <= 11; ++k) {
    point = objective.step(std::move(point), objective.direction(1e6 * s_), {.t = 1});
    point = objective.step(std::move(point), objective.direction(-1e6 * s_), {.t = 1});
    fresh = objective.evaluate(point.x);
    const double error = (point.gradient - fresh.gradient).norm();
    largest_error = std::max(largest_error, error);
    if (objective.state_of(point).is_fresh()) {
      EXPECT_LE(error, 1e-12 * fresh.gradient.norm());
    }
  }
  EXPECT_GE(largest_error, 1e-12 * fresh.gradient.norm());
}

TEST_P(Objectives, ALikelyStepIsEvaluatedInTheReadOfItsDirection) {
  for (const double size : {1e-3, 0.1, 100.0}) {  // at 100 the reference is off by more than 1: evaluated again
    Placed placed(problem());
    auto& objective = placed.objective;
    Point point = objective.evaluate(x_), direct = objective.evaluate(x_);
    const VectorXd s = size * s_;
    const double reads = objective.reads_of_a(), before = point.value;
    const auto take = [&](Point& at, Direction direction) {
      const Trial trial = objective.try_steps(at, direction, std::array{1.0})[0];
      at = objective.step(std::move(at), std::move(direction), trial);
      return trial.change;
    };
    const double change = take(point, objective.likely_direction(point, s));
    const double after = objective.reads_of_a() - reads;
    const double expected_change = take(direct, objective.direction(s));
    const RegressionState &state = objective.state_of(point), &expected = objective.state_of(direct);

    EXPECT_EQ(after, size < 1 ? 1 : 2);
    EXPECT_NEAR(change, expected_change, 1e-12 * (std::abs(before) + std::abs(expected_change)));
    // rho <= e multiplies rounding by about e^2, rows add up as sqrt(n)
    const double scale = 100 * eps * std::sqrt(1500);
    EXPECT_NEAR(point.value, direct.value, scale * (1 + direct.value));
    EXPECT_LE((point.gradient - direct.gradient).norm(), scale * (1 + direct.gradient.norm()));
    EXPECT_LE((state.centre - expected.centre).norm(), scale * (1 + expected.centre.norm()));
    const VectorXd &delta = objective.curvatures(point).delta, &expected_delta = objective.curvatures(direct).delta;
    EXPECT_LE((delta - expected_delta).norm(), scale * (1 + expected_delta.norm()));
  }
}

TEST_P(Objectives, ReadsAndCollectivesOfEveryOperation) {
  Placed placed(problem());
  auto& objective = placed.objective;
  const auto cost = [&](const std::function<void()>& operation) {
    const double reads = objective.reads_of_a();
    const auto collectives = objective.collectives();
    operation();
    return std::pair(objective.reads_of_a() - reads, objective.collectives() - collectives);
  };
  using Cost = std::pair<double, std::int64_t>;
  // From scratch: the largest logit, the value at it, the value at the right reference, the gradient.
  Point point;
  Direction direction, p{s_};
  Trial trial;
  const Cost at_zero = cost([&] { objective.evaluate(VectorXd::Zero(kColumns)); });
  const Cost anywhere = cost([&] { point = objective.evaluate(x_); });
  const Cost first_hessian = cost([&] { objective.hessian(point); });  // and A^T W^2 A, once
  const Cost next_hessian = cost([&] { objective.hessian(point); });
  const Cost product = cost([&] { objective.hessian_product(point, p); });
  const Cost zero = cost([&] { direction = objective.direction(VectorXd::Zero(kColumns)); });
  const Cost elsewhere = cost([&] { direction = objective.direction(s_); });
  const Cost change = cost([&] { trial = objective.try_steps(point, direction, std::array{1.0, 2.0, 4.0})[0]; });
  const Cost step = cost([&] { point = objective.step(std::move(point), std::move(direction), trial); });
  const Cost floor = cost([&] { objective.gradient_floor(point, objective.norm(point.gradient)); });
  const Cost again = cost([&] { point = objective.refreshed(std::move(point)); });
  const Cost likely = cost([&] { direction = objective.likely_direction(point, 1e-3 * s_); });
  const Cost likely_step = cost([&] { point = objective.step(std::move(point), std::move(direction), {.t = 1}); });
  EXPECT_EQ(at_zero, Cost(1, objective.loss().is_shift_invariant() ? 2 : 4));
  EXPECT_EQ(anywhere, Cost(2, 4));
  EXPECT_EQ(first_hessian, Cost(2, 2));
  EXPECT_EQ(next_hessian, Cost(1, 1));
  EXPECT_EQ(product, Cost(1, 1));
  EXPECT_EQ(zero, Cost(0, 0));
  EXPECT_EQ(elsewhere, Cost(1, 0));
  EXPECT_EQ(change, Cost(0, 1));
  EXPECT_EQ(step, Cost(1, 2));
  EXPECT_EQ(floor, Cost(0, 0));  // |g| is far from it
  EXPECT_EQ(again, Cost(1, 1));
  EXPECT_EQ(likely, Cost(1, 1));
  EXPECT_EQ(likely_step, Cost(0, 0));
}

TEST_P(Objectives, GradientFloorBoundsTheRounding) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    auto random = reference::random_problem(200, 5, 0.3 * static_cast<double>(seed), seed % 3 == 0 ? 0 : 1e-2, seed);
    random.loss = GetParam();
    Placed placed(random);
    auto& objective = placed.objective;
    const VectorXd x = std::pow(2, static_cast<double>(seed) - 6) * reference::random_vector(5, seed);
    const Point point = objective.evaluate(x);
    const double floor = objective.gradient_floor(point, objective.norm(point.gradient));
    const auto expected = reference::evaluate(random, x);
    EXPECT_LE((point.gradient - reference::to_double(expected.gradient)).norm(), floor) << "seed " << seed;
    // and it is not an empty bound: eps times the rows' terms, of which |x| |A| can be a few hundred
    EXPECT_LE(floor, 1e-9 * (1 + x.norm() * placed.problem.w.squaredNorm())) << "seed " << seed;
  }
}

TEST_P(Objectives, NearAMinimumTheGradientFloorIsTheSharperOne) {
  auto exact = problem();
  exact.w.setZero();
  exact.b = reference::softmax(exact.A, x_);
  Placed placed(exact);
  auto& objective = placed.objective;
  const Point point = objective.evaluate(x_);  // x_ minimises: the gradient is rounding
  const double reads = objective.reads_of_a();
  const double floor = objective.gradient_floor(point, objective.norm(point.gradient));
  EXPECT_LE(point.gradient.norm(), floor);
  EXPECT_EQ(objective.reads_of_a() - reads, 1);
  EXPECT_LE(floor, 1e-13);
}

TEST_P(Objectives, LogitsOf800) {
  auto large = problem();
  large.A *= 800 / (large.A * x_).cwiseAbs().maxCoeff();
  Placed placed(large);
  auto& objective = placed.objective;
  const Point point = objective.evaluate(x_);
  const auto trials = objective.try_steps(point, objective.direction(s_), std::array{1.0, 1e3});
  const double here = placed.value_at(x_);
  EXPECT_NEAR(point.value, here, 1e-12 * here);
  EXPECT_TRUE(point.gradient.allFinite());
  for (const auto& [k, t] : {std::pair{0u, 1.0}, {1u, 1e3}}) {
    const double expected = placed.value_at(x_ + t * s_) - here;
    EXPECT_NEAR(trials[k].change, expected, 1e-11 * (here + std::abs(expected))) << "t = " << t;
  }
}

}  // namespace attnreg::test_objective
