#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "objective/regression_objective.hpp"
#include "support/reference.hpp"
#include "losses/losses.hpp"

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
    objective.move_to(x_);
    const auto hessian = objective.hessian();
    const VectorXd product = objective.hessian_product(s_);
    const auto expected = reference::evaluate(placed.problem, x_);
    const auto expected_hessian = expected.hessian.cast<double>();
    const double floor = objective.gradient_floor();
    EXPECT_EQ(objective.dimension(), kColumns);
    EXPECT_NEAR(objective.value(), static_cast<double>(expected.value), 100 * eps * std::abs(objective.value()));
    EXPECT_LE((objective.gradient() - reference::to_double(expected.gradient)).norm(), floor);
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

TEST_P(Objectives, ChangeAlongIsTheDifferenceOfValues) {
  Placed placed(problem());
  auto& objective = placed.objective;
  objective.move_to(x_);
  objective.set_direction(s_);
  const std::array steps{1.0, 0.1, -0.5, 1e-3};
  const auto changes = objective.change_along(steps);
  const double here = placed.value_at(x_), slope = objective.gradient().dot(s_);
  for (std::size_t k = 0; k < steps.size(); ++k) {
    // x + t s rounds in double, |slope| |x| eps; the values' difference has 2 eps |L|
    const double tolerance = 100 * eps * (std::abs(here) + std::abs(slope) * x_.norm());
    EXPECT_NEAR(changes[k], placed.value_at(x_ + steps[k] * s_) - here, tolerance) << "t = " << steps[k];
  }
  // Where differences of values are rounding: the slope, up to t / 2 s^T H s
  const double tiny = objective.change_along(std::array{1e-12})[0];
  EXPECT_NEAR(tiny, 1e-12 * slope, 1e-10 * std::abs(1e-12 * slope) + 1e-12 * objective.gradient_floor() * s_.norm());
}

TEST_P(Objectives, ChangeAlongSurvivesOverflow) {
  Placed placed(problem());
  auto& objective = placed.objective;
  objective.move_to(x_);
  objective.set_direction(s_);
  const auto changes = objective.change_along(std::array{1e3, 1.0, -1e4, 1e300});
  for (const auto& [k, t] : {std::pair{0u, 1e3}, {1u, 1.0}, {2u, -1e4}}) {
    const double expected = placed.value_at(x_ + t * s_) - placed.value_at(x_);
    EXPECT_NEAR(changes[k], expected, 1e-13 * std::abs(expected)) << "t = " << t;  // rounding of z ~ t, and of t^2
  }
  EXPECT_EQ(changes[3], std::numeric_limits<double>::infinity());
}

TEST_P(Objectives, CommonShiftsOfTheLogitsChangeTheRegulariserOnly) {
  auto shifted = problem();
  shifted.A.col(0).setOnes();
  Placed placed(shifted);
  auto& objective = placed.objective;
  objective.move_to(x_);
  objective.set_direction(VectorXd::Unit(kColumns, 0));
  for (const double t : {-1e4, -250.0, -30.0, 30.0, 250.0, 1e4}) {
    const double change = objective.change_along(std::array{t})[0];
    const double expected = placed.value_at(x_ + VectorXd::Unit(kColumns, 0) * t) - placed.value_at(x_);
    EXPECT_NEAR(change, expected, 1e-12 * std::abs(expected)) << "t = " << t;  // expected is of the size of t^2
  }
}

TEST_P(Objectives, StepIsMoveTo) {
  Placed placed(problem()), fresh(problem());
  auto& objective = placed.objective;
  objective.move_to(x_);
  for (const double t : {1.0, 0.25, -0.5, 300.0}) {  // 300: the references come from scratch
    objective.set_direction(s_);
    objective.change_along(std::array{t, 2 * t});
    objective.step(t);
    fresh.objective.move_to(objective.x());
    const double floor = fresh.objective.gradient_floor();
    EXPECT_NEAR(objective.value(), fresh.objective.value(), 1e-12 * std::abs(objective.value()));
    EXPECT_LE((objective.gradient() - fresh.objective.gradient()).norm(), 2 * floor);
  }
}

TEST_P(Objectives, StepWithoutChangeAlongWorksToo) {
  Placed placed(problem());
  auto& objective = placed.objective;
  objective.move_to(x_);
  objective.set_direction(s_);
  objective.step(0.5);
  const VectorXd expected = x_ + 0.5 * s_;
  EXPECT_TRUE(objective.x() == expected);
  EXPECT_NEAR(objective.value(), placed.value_at(expected), 1e-13 * objective.value());
}

TEST_P(Objectives, ExtendDirectionAddsTheLastProductsVector) {
  Placed extended(problem()), direct(problem());
  const VectorXd p = reference::random_vector(kColumns, 30), s = 0.5 * s_ - 0.25 * p;
  extended.objective.move_to(x_);
  extended.objective.clear_direction();
  extended.objective.hessian_product(s_);
  extended.objective.extend_direction(0.5);
  extended.objective.hessian_product(p);
  extended.objective.extend_direction(-0.25);
  const double reads = extended.objective.reads_of_a();
  direct.objective.move_to(x_);
  direct.objective.set_direction(s);
  const double change = extended.objective.change_along(std::array{1.0})[0];
  const double expected = direct.objective.change_along(std::array{1.0})[0];
  EXPECT_EQ(reads, 4);  // two for move_to, one per product
  EXPECT_LE((extended.objective.direction() - s).norm(), 4 * eps * s.norm());
  EXPECT_NEAR(change, expected, 1e-13 * (1 + std::abs(expected)));
}

TEST_P(Objectives, RefreshesTheLogitsNowAndThen) {
  Placed placed(problem());
  auto& objective = placed.objective;
  objective.move_to(x_);
  std::vector<int> fresh;
  for (int k = 1; k <= 24; ++k) {
    objective.set_direction(s_);
    const double t = 0.1 * (k % 2 == 0 ? -1 : 1), reads = objective.reads_of_a();
    objective.change_along(std::array{t});
    objective.step(t);
    EXPECT_EQ(objective.reads_of_a() - reads, 1);  // the read of the gradient makes A x anew
    if (objective.is_fresh()) fresh.push_back(k);
  }
  EXPECT_EQ(fresh, (std::vector<int>{11, 22}));
}

TEST_P(Objectives, DriftOfTheLogitsEndsWithARefresh) {
  Placed placed(problem()), fresh(problem());
  auto& objective = placed.objective;
  objective.move_to(x_);
  // Far away and back: z keeps the rounding of the largest A x on the way, 1e6 |A s|, in every step.
  double largest_error = 0;
  for (int k = 1; k <= 11; ++k) {
    objective.set_direction(1e6 * s_);
    objective.step(1);
    objective.set_direction(-1e6 * s_);
    objective.step(1);
    fresh.objective.move_to(objective.x());
    const double error = (objective.gradient() - fresh.objective.gradient()).norm();
    largest_error = std::max(largest_error, error);
    if (objective.is_fresh()) {
      EXPECT_LE(error, 1e-12 * fresh.objective.gradient().norm());
    }
  }
  EXPECT_GE(largest_error, 1e-12 * fresh.objective.gradient().norm());
}

TEST_P(Objectives, ALikelyStepIsEvaluatedInTheReadOfItsDirection) {
  for (const double size : {1e-3, 0.1, 100.0}) {  // at 100 the reference is off by more than 1: evaluated again
    Placed placed(problem()), direct(problem());
    auto& objective = placed.objective;
    objective.move_to(x_);
    const VectorXd s = size * s_;
    const double reads = objective.reads_of_a();
    objective.set_likely_direction(s);
    const double change = objective.change_along(std::array{1.0})[0], before = objective.value();
    objective.step(1);
    const double after = objective.reads_of_a() - reads;
    direct.objective.move_to(x_);
    direct.objective.set_direction(s);
    const double expected_change = direct.objective.change_along(std::array{1.0})[0];
    direct.objective.step(1);

    EXPECT_EQ(after, size < 1 ? 1 : 2);
    EXPECT_NEAR(change, expected_change, 1e-12 * (std::abs(before) + std::abs(expected_change)));
    // rho <= e multiplies rounding by about e^2, rows add up as sqrt(n)
    const double scale = 100 * eps * std::sqrt(1500);
    EXPECT_NEAR(objective.value(), direct.objective.value(), scale * (1 + direct.objective.value()));
    EXPECT_LE((objective.gradient() - direct.objective.gradient()).norm(),
              scale * (1 + direct.objective.gradient().norm()));
    EXPECT_LE((objective.centre() - direct.objective.centre()).norm(), scale * (1 + direct.objective.centre().norm()));
    EXPECT_LE((objective.curvature() - direct.objective.curvature()).norm(),
              scale * (1 + direct.objective.curvature().norm()));
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
  const Cost at_zero = cost([&] { objective.move_to(VectorXd::Zero(kColumns)); });
  const Cost move = cost([&] { objective.move_to(x_); });
  const Cost first_hessian = cost([&] { objective.hessian(); });  // and A^T W^2 A, once
  const Cost next_hessian = cost([&] { objective.hessian(); });
  const Cost product = cost([&] { objective.hessian_product(s_); });
  const Cost direction = cost([&] { objective.set_direction(s_); });
  const Cost change = cost([&] { objective.change_along(std::array{1.0, 2.0, 4.0}); });
  const Cost step = cost([&] { objective.step(1.0); });
  const Cost floor = cost([&] { objective.gradient_floor(); });
  const Cost clear = cost([&] { objective.clear_direction(); });
  const Cost again = cost([&] { objective.move_to(objective.x()); });
  const Cost likely = cost([&] { objective.set_likely_direction(1e-3 * s_); });
  const Cost likely_step = cost([&] { objective.step(1.0); });
  EXPECT_EQ(at_zero, Cost(1, 4));
  EXPECT_EQ(move, Cost(2, 4));
  EXPECT_EQ(first_hessian, Cost(2, 2));
  EXPECT_EQ(next_hessian, Cost(1, 1));
  EXPECT_EQ(product, Cost(1, 1));
  EXPECT_EQ(direction, Cost(1, 0));
  EXPECT_EQ(change, Cost(0, 1));
  EXPECT_EQ(step, Cost(1, 2));
  EXPECT_EQ(floor, Cost(0, 0));  // |g| is far from it
  EXPECT_EQ(clear, Cost(0, 0));
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
    objective.move_to(x);
    const double floor = objective.gradient_floor();
    const auto expected = reference::evaluate(random, x);
    EXPECT_LE((objective.gradient() - reference::to_double(expected.gradient)).norm(), floor) << "seed " << seed;
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
  objective.move_to(x_);  // x_ minimises: the gradient is rounding
  const double reads = objective.reads_of_a();
  const double floor = objective.gradient_floor();
  EXPECT_LE(objective.gradient().norm(), floor);
  EXPECT_EQ(objective.reads_of_a() - reads, 1);
  EXPECT_LE(floor, 1e-13);
}

TEST_P(Objectives, LogitsOf800) {
  auto large = problem();
  large.A *= 800 / (large.A * x_).cwiseAbs().maxCoeff();
  Placed placed(large);
  auto& objective = placed.objective;
  objective.move_to(x_);
  objective.set_direction(s_);
  const auto changes = objective.change_along(std::array{1.0, 1e3});
  const double here = placed.value_at(x_);
  EXPECT_NEAR(objective.value(), here, 1e-12 * here);
  EXPECT_TRUE(objective.gradient().allFinite());
  for (const auto& [k, t] : {std::pair{0u, 1.0}, {1u, 1e3}}) {
    const double expected = placed.value_at(x_ + t * s_) - here;
    EXPECT_NEAR(changes[k], expected, 1e-11 * (here + std::abs(expected))) << "t = " << t;
  }
}

}  // namespace attnreg::test_objective
