// The method surrogate: samples that stand for all rows, corrections, and whole solves.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "attnreg/regression.hpp"
#include "newton/minimise.hpp"
#include "newton/progress.hpp"
#include "support/reference.hpp"
#include "support/refusal.hpp"
#include "support/solve.hpp"
#include "surrogate/row_sample.hpp"
#include "surrogate/secants.hpp"
#include "surrogate/surrogate.hpp"

namespace attnreg::test_surrogate {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::Holding;
using reference::Layout;

constexpr Index kRows = 4000, kColumns = 6;

reference::Problem tall_problem(const std::string& loss = "softmax", double weight = 1e-4) {
  auto problem = reference::random_problem(kRows, kColumns, 1, weight, 1);
  problem.loss = loss;
  return problem;
}

RegressionOptions by(Method method, const std::string& loss = "softmax") {
  RegressionOptions options;
  options.method = method;
  options.loss = loss;
  return options;
}

constexpr double kMany = 1 << 20;  // numbers

/// A problem, its objective and a point on some ranks.
struct Setting {
  reference::Distributed data;
  RegressionObjective objective;
  Point point;

  Setting(const reference::Problem& problem, const VectorXd& x, MPI_Comm world = MPI_COMM_WORLD,
          Layout layout = Layout::random, Holding holding = Holding::float64)
      : data(reference::distribute(Communicator(world), problem, layout, holding)),
        objective(data.A, data.b, data.w, make_loss(problem.loss)),
        point(objective.evaluate(x)) {}

  /// At rank 0, or where its rows are.
  RowSample sample(double p, double few = kMany) const {
    return {objective, point, VectorXd::Constant(data.A.rows_local(), p), {.seed = 3, .iteration = 5}, {few}};
  }
  double target_sum() const { return data.A.communicator().sum(objective.b().sum()); }
  /// On the ranks that have the sample.
  std::unique_ptr<SampledProblem> problem_of(const RowSample& sample) const {
    const double sum = target_sum();
    if (!sample.is_here()) return nullptr;
    return sample.problem(objective.loss().name(), sample.b(), sample.weights_squared(), sum);
  }
};

constexpr std::array kFew{kMany, 0.0};  // sent to rank 0, or none

TEST(RowSample, OfAllRowsIsTheObjective) {
  const VectorXd x0 = reference::random_vector(kColumns, 5), x = x0 + 0.3 * reference::random_vector(kColumns, 6);
  for (const auto* const loss : {"softmax", "cross-entropy"}) {
    const Setting setting(tall_problem(loss), x0);
    const Point full = RegressionObjective(setting.data.A, setting.data.b, setting.data.w, make_loss(loss)).evaluate(x);
    for (const double few : kFew) {
      const RowSample sample = setting.sample(1, few);
      EXPECT_EQ(sample.rows(), kRows);
      EXPECT_EQ(sample.is_on_root(), few > 0);
      EXPECT_EQ(sample.is_here(), few == 0 || setting.data.A.communicator().is_root());
      const auto sampled = setting.problem_of(sample);
      if (!sampled) continue;
      const Point here = sampled->objective.evaluate(x);
      EXPECT_NEAR(here.value, full.value, 1e-12 * full.value);
      EXPECT_LE((here.gradient - full.gradient).norm(), 1e-12 * full.gradient.norm()) << loss;
    }
  }
}

// Where the Gram matrix of the regulariser is known, the sample has to stand for phi only.
TEST(RowSample, TakesTheRegulariserFromItsGramMatrix) {
  const VectorXd x0 = reference::random_vector(kColumns, 5), x = x0 + 0.3 * reference::random_vector(kColumns, 6);
  const auto problem = tall_problem("softmax", 1e-2);
  Setting setting(problem, x0);
  EXPECT_FALSE(setting.objective.replicated_ridge_gram());
  setting.objective.replicate_ridge_gram();
  const auto& gram = setting.objective.replicated_ridge_gram();
  const MatrixXd expected = problem.A.transpose() * problem.w.cwiseAbs2().asDiagonal() * problem.A;
  EXPECT_LE((*gram - expected).norm(), 1e-12 * expected.norm());
  RegressionObjective other(setting.data.A, setting.data.b, setting.data.w, make_loss(problem.loss));
  other.adopt_ridge_gram(setting.objective);
  EXPECT_EQ(other.replicated_ridge_gram(), gram);
  const Point full = other.evaluate(x);
  for (const double few : kFew) {
    const RowSample sample = setting.sample(1, few);
    const double sum = setting.target_sum();
    if (!sample.is_here()) continue;
    const VectorXd no_weights = VectorXd::Zero(sample.b().size());
    const auto sampled = sample.problem(problem.loss, sample.b(), no_weights, sum);
    sampled->objective.regularise_by(gram);
    const Point here = sampled->objective.evaluate(x);
    EXPECT_NEAR(here.value, full.value, 1e-12 * full.value);
    EXPECT_LE((here.gradient - full.gradient).norm(), 1e-11 * full.gradient.norm());
    const VectorXd s = reference::random_vector(kColumns, 7);
    const Trial trial = sampled->objective.try_steps(here, sampled->objective.direction(s), std::array{1.0})[0];
    EXPECT_NEAR(trial.change, sampled->objective.evaluate(x + s).value - here.value, 1e-10 * std::abs(trial.change));
  }
}

// The change of L and sums over rows ride on the read of a point.
TEST(RowSample, ReadsOfPointsFindOutMore) {
  const VectorXd x0 = reference::random_vector(kColumns, 5), s = 0.1 * reference::random_vector(kColumns, 6);
  for (const auto* const loss : {"softmax", "cross-entropy"}) {
    Setting setting(tall_problem(loss), x0);
    RegressionObjective& objective = setting.objective;
    const Point there = objective.evaluate(x0 + s);
    const RegressionState& state = RegressionObjective::state_of(there);
    const RegressionObjective::Expected expected{there.x, state.shift, state.loss};
    const double change = objective.try_steps(setting.point, objective.direction(s), std::array{1.0})[0].change;
    const auto& communicator = setting.data.A.communicator();
    const double curvature = communicator.sum(objective.curvatures(there).delta.sum());
    for (const bool renews : {false, true}) {
      RegressionObjective::Besides besides{
          .add =
              [](Index, std::span<const double> f, std::span<const double> delta, double* sums) {
                for (std::size_t i = 0; i < f.size(); ++i) sums[0] += f[i], sums[1] += delta[i], sums[2] += 1;
              },
          .sums = VectorXd::Zero(3)};
      const auto before = communicator.collectives();
      const auto points = objective.evaluate(setting.point, std::span(&expected, 1), renews, {}, &besides);
      EXPECT_EQ(communicator.collectives() - before, 1);
      ASSERT_TRUE(besides.change) << loss;
      EXPECT_NEAR(*besides.change, change, 1e-10 * std::abs(change)) << loss;
      EXPECT_NEAR(besides.sums[0], 1, 1e-12);
      EXPECT_NEAR(besides.sums[1], curvature, 1e-10 * std::abs(curvature));
      EXPECT_EQ(besides.sums[2], kRows);
      EXPECT_LE((points[0].gradient - there.gradient).norm(), 1e-10 * there.gradient.norm());
    }
  }
}

// The normaliser is exact to first order at the base: its value there, and its gradient, the centre.
TEST(RowSample, KnowsTheNormaliserAtItsBase) {
  const VectorXd x0 = reference::random_vector(kColumns, 5);
  const Setting setting(tall_problem(), x0);
  const RowSample sample = setting.sample(0.1, 0);
  const auto sampled = setting.problem_of(sample);
  const auto& full = RegressionObjective::state_of(setting.point);
  const auto reference_at = [&](const VectorXd& x) {
    const Point there = sampled->objective.evaluate(x);
    const auto& state = RegressionObjective::state_of(there);
    return state.loss.reference + state.shift - full.centre.dot(x - x0);  // ln D + its value at the base
  };
  const Point here = sampled->objective.evaluate(x0);
  EXPECT_NEAR(reference_at(x0), full.loss.reference + full.shift, 1e-12);
  EXPECT_LE((RegressionObjective::state_of(here).centre - full.centre).norm(), 1e-12);
  for (std::uint64_t k = 0; k < 10; ++k)  // and it is never below
    EXPECT_GE(reference_at(x0 + static_cast<double>(k) * reference::random_vector(kColumns, 20 + k)),
              full.loss.reference + full.shift - 1e-12);
}

TEST(RowSample, HasItsOwnDerivatives) {
  constexpr double h = 1e-5;  // central differences: an error of h^2, and of eps / h
  const VectorXd x0 = reference::random_vector(kColumns, 5), x = x0 + 0.5 * reference::random_vector(kColumns, 6);
  const VectorXd s = reference::random_vector(kColumns, 7);
  for (const auto* const loss : {"softmax", "cross-entropy"}) {
    const Setting setting(tall_problem(loss), x0);
    const RowSample sample = setting.sample(0.1, 0);
    const auto sampled = setting.problem_of(sample);
    Correction correction{.e = 1e-3 * reference::random_vector(kColumns, 8), .at = x0};
    correction.X = 1e-3 * reference::random_matrix(kColumns, 2, 9);
    correction.Q = reference::random_matrix(kColumns, 2, 10);
    auto& objective = sampled->objective;
    objective.correct(correction);
    const Point here = objective.evaluate(x), ahead = objective.evaluate(x + h * s),
                behind = objective.evaluate(x - h * s);
    const double slope = (ahead.value - behind.value) / (2 * h);
    EXPECT_NEAR(here.gradient.dot(s), slope, 1e-7 * here.gradient.norm() * s.norm() + 1e-10) << loss;
    Direction p{s};
    const VectorXd product = objective.hessian_product(here, p),
                   difference = (ahead.gradient - behind.gradient) / (2 * h);
    EXPECT_LE((product - difference).norm(), 1e-6 * product.norm()) << loss;
    const Direction direction = objective.direction(s);
    const std::vector<double> steps{0.5, 1};
    for (const Trial& trial : objective.try_steps(here, direction, steps)) {
      const Point there = objective.evaluate(x + trial.t * s);
      EXPECT_NEAR(trial.change, there.value - here.value,
                  1e-12 * std::abs(here.value) + 1e-10 * std::abs(trial.change));
      const Point stepped = objective.step(objective.evaluate(x), objective.direction(s), trial);
      EXPECT_LE((stepped.gradient - there.gradient).norm(), 1e-10 * there.gradient.norm()) << loss;
    }
  }
}

TEST(RowSample, IsTheSameOnAnyNumberOfRanks) {
  const VectorXd x0 = reference::random_vector(kColumns, 5), x = x0 + 0.5 * reference::random_vector(kColumns, 6);
  for (const Holding holding : {Holding::float64, Holding::sparse64}) {
    const Setting together(tall_problem(), x0, MPI_COMM_WORLD, Layout::random, holding),
        alone(tall_problem(), x0, MPI_COMM_SELF, Layout::random, holding);
    const RowSample own = alone.sample(0.05);
    const double value = alone.problem_of(own)->objective.evaluate(x).value;
    for (const double few : kFew) {
      const RowSample shared = together.sample(0.05, few);
      EXPECT_EQ(shared.rows(), own.rows());
      const auto sampled = together.problem_of(shared);
      if (!sampled) continue;
      EXPECT_NEAR(sampled->objective.evaluate(x).value, value, 1e-12 * value);
    }
  }
}

TEST(RowSample, CountsItsShareAsRead) {
  const Setting setting(tall_problem(), VectorXd::Zero(kColumns));
  for (const double few : kFew) {
    const double before = setting.objective.reads_of_a();
    const RowSample sample = setting.sample(0.05, few);
    EXPECT_NEAR(setting.objective.reads_of_a() - before, static_cast<double>(sample.rows()) / kRows, 1e-12);
    const auto sampled = setting.problem_of(sample);
    if (!sampled) continue;
    sampled->objective.evaluate(VectorXd::Ones(kColumns));
    EXPECT_NEAR(setting.objective.reads_of_a() - before, static_cast<double>(sample.rows()) / kRows, 1e-12);
    EXPECT_NEAR(sample.reads(0), 2 * sample.share(), 1e-12);
  }
}

TEST(RowSample, TakesNoMessagesOnRankZero) {
  const Setting setting(tall_problem(), VectorXd::Zero(kColumns));
  const auto& communicator = setting.data.A.communicator();
  const double sum = setting.target_sum(), reads = setting.objective.reads_of_a();
  const auto before = communicator.collectives();
  RowSample known = setting.sample(0.05);
  EXPECT_EQ(communicator.collectives() - before, 3);  // m, S and sizes; two of the gathering
  RowSample sample(setting.objective, setting.point, VectorXd::Constant(setting.data.A.rows_local(), 0.05),
                   {.seed = 3, .iteration = 5}, {.few = kMany, .expected = 0.05 * kRows * kColumns});
  EXPECT_EQ(communicator.collectives() - before, 5);  // expected to be few: the gathering alone
  EXPECT_TRUE(sample.is_on_root());
  sample.learn(known.rows());
  EXPECT_NEAR(setting.objective.reads_of_a() - reads, 2 * known.share(), 1e-12);
  if (!sample.is_here()) return;
  const auto of = [&](const RowSample& one) { return one.problem("softmax", one.b(), one.weights_squared(), sum); };
  const auto sampled = of(sample);
  Point point = sampled->objective.evaluate(VectorXd::Zero(kColumns));
  EXPECT_NEAR(point.value, of(known)->objective.evaluate(point.x).value, 1e-14 * point.value);
  newton_cg(sampled->objective, point, {});
  EXPECT_EQ(communicator.collectives() - before, 5);
}

TEST(RowSample, IsForRankZeroByItsWork) {
  using Nodes = RowSample::Nodes;
  const auto few = [](int ranks, Index d, Nodes on = Nodes::several) { return RowSample::few_numbers(ranks, d, on); };
  for (const int ranks : {1, 2}) EXPECT_DOUBLE_EQ(few(ranks, 100), 1 << 20);
  EXPECT_DOUBLE_EQ(few(2, 100, Nodes::one), 1 << 17);
  EXPECT_DOUBLE_EQ(few(2, 100, Nodes::any), std::exp2(18.5));
  EXPECT_LT(few(2, 1000), few(2, 100));
  EXPECT_GT(few(64, 100), few(2, 100));
}

TEST(Secants, AreMet) {
  constexpr Index d = 8;
  MatrixXd L = MatrixXd::Identity(d, d) + 0.1 * reference::random_matrix(d, d, 1);
  const Preconditioner M(MatrixXd(L.triangularView<Eigen::Lower>()));
  const MatrixXd half = reference::random_matrix(d, d, 2), B = half + half.transpose();
  const MatrixXd S = reference::random_matrix(d, 3, 3);
  std::vector<Secant> secants;
  for (const auto& s : S.colwise()) secants.push_back({s, B * s});
  secants.push_back({S.col(0) + 1e-3 * S.col(1), VectorXd::Ones(d)});      // depends on others
  secants.push_back({reference::random_vector(d, 4), 1e3 * S.col(0), 1});  // is not believed
  Correction correction{.e = VectorXd::Zero(d), .at = VectorXd::Zero(d)};
  set_secants(M, secants, correction);
  EXPECT_EQ(correction.Q.cols(), 3);
  for (const auto& s : S.colwise()) EXPECT_LE((correction.product(s) - B * s).norm(), 1e-12 * (B * s).norm());
  const VectorXd u = reference::random_vector(d, 5), v = reference::random_vector(d, 6);
  EXPECT_NEAR(u.dot(correction.product(v)), v.dot(correction.product(u)), 1e-12);
}

TEST(Surrogate, EndsAtTheMinimumOfNewtonCgInFewerReads) {
  for (const auto* const loss : {"softmax", "cross-entropy"}) {
    const auto problem = tall_problem(loss);
    for (const Layout layout : {Layout::all_on_last, Layout::random})
      for (const Holding holding : {Holding::float32, Holding::sparse64}) {
        const auto data = reference::distribute(Communicator(MPI_COMM_WORLD), problem, layout, holding);
        const double before = data.A.reads();
        const auto result = solve_regression(data.A, data.b, data.w, by(Method::surrogate, loss));
        const double after = data.A.reads();
        const auto other = solve_regression(data.A, data.b, data.w, by(Method::newton_cg, loss));
        EXPECT_EQ(result.method, Method::surrogate);
        EXPECT_EQ(result.summary.termination, Termination::converged) << loss;
        EXPECT_NEAR(result.summary.value, other.summary.value, 1e-10 * other.summary.value) << loss;
        EXPECT_LE((result.x - other.x).norm(), 1e-6 * other.x.norm());
        EXPECT_LT(result.summary.reads_of_a, std::min(20.0, other.summary.reads_of_a)) << loss;
        EXPECT_NEAR(result.summary.reads_of_a, after - before, 1e-9);
        EXPECT_GT(result.sample_reads, 0);
      }
  }
}

TEST(Surrogate, GoesTheSameWayOnAnyNumberOfRanks) {
  const auto problem = tall_problem();
  const auto run = [&](MPI_Comm world) {
    const auto data = reference::distribute(Communicator(world), problem, Layout::random);
    std::vector<IterationRecord> records;
    auto options = by(Method::surrogate);
    options.newton.on_iteration = [&](const IterationRecord& record) { records.push_back(record); };
    const auto result = solve_regression(data.A, data.b, data.w, options);
    EXPECT_TRUE(is_converged(result.summary));
    return records;
  };
  const auto together = run(MPI_COMM_WORLD), alone = run(MPI_COMM_SELF);
  ASSERT_EQ(together.size(), alone.size());
  for (std::size_t k = 0; k < alone.size(); ++k) {
    EXPECT_EQ(together[k].iteration, static_cast<int>(k));
    EXPECT_NEAR(together[k].value, alone[k].value, 1e-9 * alone[k].value);
    EXPECT_NEAR(together[k].reads_of_a, alone[k].reads_of_a, 1e-9);
  }
}

// A read, with the change of L and the scores, and the surrogate's minimiser; two more for a new sample; one where the
// change is rounding, and one where a value is made again.
TEST(Surrogate, TakesFewMessages) {
  const auto data = reference::distribute(Communicator(MPI_COMM_WORLD), tall_problem(), Layout::random);
  std::vector<std::int64_t> collectives;
  auto options = by(Method::surrogate);
  options.newton.on_iteration = [&](const IterationRecord& record) { collectives.push_back(record.collectives); };
  const auto result = solve_regression(data.A, data.b, data.w, options);
  ASSERT_GT(collectives.size(), 3u);
  for (std::size_t k = 2; k < collectives.size(); ++k) EXPECT_LE(collectives[k] - collectives[k - 1], 6) << k;
  EXPECT_LE(collectives[0], 6);
  EXPECT_LE(collectives[1] - collectives[0], 8);
  EXPECT_LE(result.summary.collectives, 45);
}

// Of a sample that is left where its rows are, as those are that are too large for rank 0.
TEST(Surrogate, MinimisesTogether) {
  Setting setting(tall_problem(), VectorXd::Zero(kColumns));
  const auto other = solve_regression(setting.data.A, setting.data.b, setting.data.w, by(Method::newton_cg));
  NewtonOptions options;
  options.gradient_reference = setting.point.gradient.norm();
  const auto found = surrogate(setting.objective, setting.point, options, {.few = 0});
  EXPECT_TRUE(is_converged(found.newton));
  EXPECT_NEAR(found.newton.value, other.summary.value, 1e-9 * other.summary.value);
  if (setting.data.A.communicator().size() > 1) {
    EXPECT_GT(found.newton.collectives, 100);
  }
}

TEST(Surrogate, GoesOnFromEveryStart) {
  const auto data = reference::distribute(Communicator(MPI_COMM_WORLD), tall_problem(), Layout::random);
  const auto best = solve_regression(data.A, data.b, data.w, by(Method::newton_cg));
  for (const Start start : {Start::zero, Start::cross_entropy, Start::given}) {
    auto options = by(Method::surrogate);
    options.start = start;
    options.x0 = best.x + 0.1 * reference::random_vector(kColumns, 3);
    const auto result = solve_regression(data.A, data.b, data.w, options);
    EXPECT_TRUE(is_converged(result.summary)) << start_name(start);
    EXPECT_NEAR(result.summary.value, best.summary.value, 1e-9 * best.summary.value) << start_name(start);
  }
}

// The samples of a target that is symmetric about x = 0 need not be: there x = 0 is stationary, and a saddle.
TEST(Surrogate, EndsAtNoSaddle) {
  reference::Problem problem = tall_problem("softmax", 1e-6);
  problem.A.bottomRows(kRows / 2) = -problem.A.topRows(kRows / 2);
  const VectorXd x = reference::random_vector(kColumns, 4);
  problem.b = 0.5 * (reference::softmax(problem.A, x) + reference::softmax(problem.A, -x));
  const auto data = reference::distribute(Communicator(MPI_COMM_WORLD), problem, Layout::random);
  auto options = by(Method::surrogate);
  options.certificate = CertificateLevel::full;
  const auto result = solve_regression(data.A, data.b, data.w, options);
  EXPECT_TRUE(is_converged(result.summary)) << termination_name(result.summary.termination);
  EXPECT_NE(result.certificate.kind, StationaryKind::saddle);
}

// A sample of all rows is solved to the end there, and confirmed in a few reads.
TEST(Surrogate, SolvesSmallProblemsOnRankZero) {
  for (const auto& [rows, columns] : {std::pair<Index, Index>{1, 1}, {3, 5}, {500, 6}, {1000, 30}}) {
    const auto problem = reference::random_problem(rows, columns, 1, 1e-2, 1);
    for (const Holding holding : {Holding::float32, Holding::sparse64}) {
      const auto data = reference::distribute(Communicator(MPI_COMM_WORLD), problem, Layout::random, holding);
      const auto result = solve_regression(data.A, data.b, data.w, by(Method::surrogate));
      const auto other = solve_regression(data.A, data.b, data.w, by(Method::newton_cg));
      EXPECT_EQ(result.method, Method::surrogate);
      EXPECT_TRUE(is_converged(result.summary)) << rows;
      EXPECT_LE(result.summary.value, other.summary.value * (1 + 1e-9)) << rows;
      EXPECT_LE(result.summary.collectives, 30) << rows;
      EXPECT_LT(result.summary.reads_of_a, 10) << rows;
    }
  }
}

TEST(Surrogate, LeavesWideProblemsToNewtonCg) {
  const auto problem = reference::random_problem(3000, 200, 1, 1e-2, 1);
  const auto data = reference::distribute(Communicator(MPI_COMM_WORLD), problem, Layout::random);
  const auto result = solve_regression(data.A, data.b, data.w, by(Method::surrogate));
  EXPECT_EQ(result.method, Method::newton_cg);
  EXPECT_THAT(result.notes, testing::Contains(testing::HasSubstr("method newton-cg")));
}

// b is noisy, and L has several minima: from the cross-entropies of b, b^1.5 and b^2 some of them lie lower than the
// one that newton-cg finds from the first.
TEST(Surrogate, EndsAtTheLowestMinimumItMeets) {
  constexpr Index rows = 1000, columns = 30;
  double gain = 0;  // in ln L
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    auto problem = reference::random_problem(rows, columns, 1, 1e-4, seed);
    const VectorXd z = problem.A * reference::random_vector(columns, seed + 50).normalized();
    problem.b = (3 * z + 2 * reference::random_vector(rows, seed + 90)).array().exp();
    problem.b /= problem.b.sum();
    const auto data = reference::distribute(Communicator(MPI_COMM_WORLD), problem, Layout::random);
    const auto result = solve_regression(data.A, data.b, data.w, by(Method::surrogate));
    auto options = by(Method::newton_cg);
    options.start = Start::cross_entropy;
    const auto other = solve_regression(data.A, data.b, data.w, options);
    EXPECT_TRUE(is_converged(result.summary));
    gain += std::log(other.summary.value / result.summary.value);
  }
  EXPECT_GT(gain, 0.1);
}

TEST(Surrogate, StopsAtItsLimits) {
  const auto data = reference::distribute(Communicator(MPI_COMM_WORLD), tall_problem(), Layout::random);
  auto options = by(Method::surrogate);
  options.newton.max_iterations = 2;
  const auto result = solve_regression(data.A, data.b, data.w, options);
  EXPECT_EQ(result.summary.termination, Termination::iteration_limit);
  EXPECT_EQ(result.summary.iterations, 2);
}

TEST(Surrogate, RefusesOtherLosses) {
  const auto data = reference::distribute(Communicator(MPI_COMM_WORLD), tall_problem(), Layout::random);
  EXPECT_THAT(refusal([&] { solve_regression(data.A, data.b, data.w, by(Method::surrogate, "exp")); }),
              testing::HasSubstr("softmax and cross-entropy, not exp"));
  auto options = by(Method::surrogate);
  options.linear_solver.kind = LinearSolver::scalapack;
  EXPECT_THAT(refusal([&] { solve_regression(data.A, data.b, data.w, options); }), testing::HasSubstr("surrogate"));
}

}  // namespace attnreg::test_surrogate
