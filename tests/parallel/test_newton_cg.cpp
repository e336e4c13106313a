#include <gtest/gtest.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "losses/losses.hpp"
#include "newton/minimise.hpp"
#include "support/dense_algebra.hpp"
#include "support/solve.hpp"

namespace attnreg::test_newton_cg {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::Layout;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct Setting {
  VectorXd x0;  ///< empty: 0
  NewtonOptions newton;
  SamplingOptions sampling;
  Layout layout = Layout::random;
  MPI_Comm world = MPI_COMM_WORLD;
};

struct Run : Solution {
  bool all_rows = false;
};

/// Collective over the setting's ranks, some of which may get no rows.
Run solve_cg(const reference::Problem& problem, Setting setting = {}) {
  const Communicator communicator(setting.world);
  const auto data = reference::distribute(communicator, problem, setting.layout);
  RegressionObjective objective(data.A, data.b, data.w, make_loss(problem.loss), setting.sampling);
  Run run;
  if (setting.x0.size() == 0) setting.x0 = VectorXd::Zero(problem.A.cols());
  Point point = objective.evaluate(setting.x0);
  setting.newton.on_iteration = [&](const IterationRecord& record) {
    run.records.push_back(record);
    run.iterates.push_back(point.x);
  };
  run.summary = newton_cg(objective, point, setting.newton);
  run.x = point.x;
  run.floor = objective.gradient_floor(point, objective.norm(point.gradient));
  run.all_rows = objective.uses_all_rows();
  return run;
}

/// As far below the default as these problems allow: |x - x*| <= |g| / lambda_min, and 1e-12 |g(0)| / lambda_min is
/// below 1e-10 |x| for Gaussian rows.
Setting tight() {
  Setting setting;
  setting.newton.relative_tolerance = 1e-12;
  return setting;
}

/// The inequality that the reason of termination stands for, at a gradient by the formulas.
void expect_sound(const reference::Problem& problem, const Run& run, double tolerance = 1e-10) {
  const auto& summary = run.summary;
  const double norm = static_cast<double>(reference::evaluate(problem, run.x).gradient.norm());
  EXPECT_TRUE(run.x.allFinite());
  EXPECT_TRUE(run.converged()) << termination_name(summary.termination) << ", |g| " << summary.gradient_norm;
  EXPECT_LE(norm, std::max(summary.gradient_floor, tolerance * summary.gradient_reference) + run.floor);
  EXPECT_LE(run.records.back().value, run.records.front().value);
}

TEST(NewtonCg, ReachesTheMinimumOfExactNewton) {
  for (const auto& loss : loss_names()) {
    for (const Index rows : {100, 400, 2500}) {  // all rows; most of them; few
      auto problem = reference::random_problem(rows, 6, 1, 1e-2, 1);
      problem.loss = loss;
      const auto run = solve_cg(problem, tight());
      const auto exact = solve(problem, tight().newton);
      SCOPED_TRACE(std::string(loss) + ", rows " + std::to_string(rows));
      expect_sound(problem, run, 1e-12);
      EXPECT_LE((run.x - exact.x).norm(), 1e-9 * exact.x.norm());
      EXPECT_EQ(run.all_rows, rows == 100);  // c d = 180
      for (std::size_t k = 1; k < run.records.size(); ++k) {
        // either value is a sum of `rows` terms of one sign: as random sums, each is off by sqrt(rows) eps
        const double rounding = 2 * std::sqrt(static_cast<double>(rows)) * reference::eps;
        EXPECT_LE(run.records[k].value, run.records[k - 1].value * (1 + rounding));
        EXPECT_GE(run.records[k].cg_iterations, 1);
      }
    }
  }
}

// 2500 rows are three tiles: the fourth rank has no row, and in the other layouts more ranks have none.
TEST(NewtonCg, RanksAndPartitionDoNotMatter) {
  for (const std::string loss : {"softmax", "cross-entropy", "rescaled-exp"}) {
    auto problem = reference::random_problem(2500, 6, 1, 1e-2, 3);
    problem.loss = loss;
    Setting setting = tight();
    setting.world = MPI_COMM_SELF;
    const auto alone = solve_cg(problem, setting);
    for (const auto layout : reference::layouts) {
      setting = tight();
      setting.layout = layout;
      const auto run = solve_cg(problem, setting);
      const bool replicated = Communicator(MPI_COMM_WORLD).is_replicated(reference::span_of(run.x));
      SCOPED_TRACE(loss + ", layout " + std::to_string(static_cast<int>(layout)));
      EXPECT_TRUE(replicated);
      EXPECT_LE((run.x - alone.x).norm(), 1e-9 * alone.x.norm());
      EXPECT_EQ(run.summary.iterations, alone.summary.iterations);
      EXPECT_EQ(run.records[1].cg_iterations, alone.records[1].cg_iterations);
    }
  }
}

TEST(NewtonCg, AllRowsAndSampledRowsReachTheSameMinimum) {
  const auto problem = reference::random_problem(20000, 6, 1, 1e-3, 4);
  Setting all = tight();
  all.sampling.oversampling = 1e4;  // c d >= n
  const auto sampled = solve_cg(problem, tight());
  const auto exact = solve_cg(problem, all);
  EXPECT_FALSE(sampled.all_rows);
  EXPECT_TRUE(exact.all_rows);
  EXPECT_TRUE(sampled.converged() && exact.converged());
  EXPECT_LE((sampled.x - exact.x).norm(), 1e-9 * exact.x.norm());
}

// The residual is at most sqrt(|g| / g_ref) of |g| in the norm of M^-1, so at most kappa(M)^{1/2} < 2 times that in the
// Euclidean one; what the quadratic model leaves out is of order |g|^2.
TEST(NewtonCg, EndsSuperlinearly) {
  for (const Index rows : {100, 2500}) {
    const auto problem = reference::random_problem(rows, 6, 1, 1e-3, 2);
    Setting setting;
    setting.newton.relative_tolerance = 1e-13;
    const auto run = solve_cg(problem, setting);
    int fast = 0;
    for (std::size_t k = 1; k < run.records.size(); ++k) {
      const double before = run.records[k - 1].relative_gradient, after = run.records[k].relative_gradient;
      if (before > 1e-2) continue;
      EXPECT_LE(after, 4 * std::pow(before, 1.5) + run.floor / run.summary.gradient_reference) << rows << ", " << k;
      ++fast;
    }
    EXPECT_GE(fast, 2);
    EXPECT_LE(run.summary.iterations, 12);
  }
}

TEST(NewtonCg, EndsInAMinimumFromIndefiniteStarts) {
  int indefinite = 0, longer = 0;
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    const auto problem = reference::random_problem(300, 4, 1.5, 1e-2, 10 * seed);
    Setting setting;
    setting.x0 = 3 * reference::random_vector(4, seed);
    const auto least = [&](const VectorXd& x) {
      const MatrixXd H = reference::evaluate(problem, x).hessian.cast<double>();
      return reference::eigenvalues(H)[0] / H.norm();
    };
    const auto run = solve_cg(problem, setting);
    SCOPED_TRACE("seed " + std::to_string(seed));
    expect_sound(problem, run);
    indefinite += least(setting.x0) < 0 ? 1 : 0;
    longer += std::isfinite(run.records[1].radius) ? 1 : 0;
    EXPECT_GE(least(run.x), -1e-9);
  }
  EXPECT_GE(indefinite, 3);  // the seeds were chosen for it
  EXPECT_GE(longer, 3);      // the first step met negative curvature and set a radius
}

/// What an iteration costs, from the records and from a second model that is made where the solver has made one.
TEST(NewtonCg, ReadsAndCollectivesAreThoseOfTheDesign) {
  const auto problem = reference::random_problem(20000, 6, 1, 1e-4, 5);
  const Communicator communicator(MPI_COMM_WORLD), apart(MPI_COMM_WORLD);
  const auto data = reference::distribute(communicator, problem), copy = reference::distribute(apart, problem);
  RegressionObjective objective(data.A, data.b, data.w, make_loss("softmax"));
  SampledModel model(copy.A, objective.weights_squared(), {});
  int sketches = 0, models = 0, steps = 0, inside = 0;
  VectorXd curvature, centre;  // where the iteration began
  IterationRecord before;
  Point point = objective.evaluate(VectorXd::Zero(6));
  NewtonOptions options;
  options.on_iteration = [&](const IterationRecord& record) {
    SCOPED_TRACE("iteration " + std::to_string(record.iteration));
    // k products and the gradient; a trial and the value more in collectives
    double reads = record.reads_of_a - before.reads_of_a - (record.cg_iterations + 1);
    std::int64_t collectives = record.collectives - before.collectives - (record.cg_iterations + 3);
    if (record.iteration > 0) {
      ++steps;
      if (reads > 1e-9) {  // a model
        const double reads_before = copy.A.reads();
        const auto collectives_before = apart.collectives();
        const VectorXd positive = curvature.cwiseMax(0);
        model.factor({positive}, centre, false);
        const auto made = apart.collectives() - collectives_before;
        const bool sketch = made == 4;
        EXPECT_TRUE(sketch || made == 2);
        EXPECT_NEAR(copy.A.reads() - reads_before, static_cast<double>(model.rows_kept()) / 20000 + (sketch ? 2 : 0),
                    1e-9);
        ++models;
        sketches += sketch ? 1 : 0;
        reads -= copy.A.reads() - reads_before;
        collectives -= made;
      }
      EXPECT_NEAR(reads, 0, 1e-9);
      const bool is_inside = record.step == 1 && record.radius == before.radius;  // doubled or set on the boundary
      inside += is_inside ? 1 : 0;
      const bool one_more = record.step >= 0.125 && record.step <= 4;  // then at most one more group of trials
      EXPECT_GE(collectives, 0);
      EXPECT_LE(collectives, is_inside ? 0 : one_more ? 1 : 10);
    }
    before = record;
    curvature = objective.curvatures(point).delta;
    centre = objective.state_of(point).centre;
  };
  const auto summary = newton_cg(objective, point, options);

  EXPECT_EQ(summary.termination, Termination::converged);
  EXPECT_EQ(sketches, 1);
  EXPECT_GE(models, 2);
  EXPECT_LT(models, steps);
  EXPECT_GE(inside, 3);
}

/// sum_i x_i^4 / 4 - a_i x_i^2 / 2 on this rank alone, with the preconditioner I.
class Wells final : public Objective {
 public:
  explicit Wells(VectorXd a) : a_(std::move(a)) {}
  Eigen::Index dimension() const override { return a_.size(); }
  Point evaluate(const VectorXd& x) override {
    const double value = (x.array().pow(4) / 4 - a_.array() * x.array().square() / 2).sum();
    return {x, value, x.array().cube() - a_.array() * x.array()};
  }
  double gradient_floor(const Point&, double) override { return 0; }
  Hessian hessian(const Point&) override { return {Communicator(MPI_COMM_SELF), {}, {}, {}}; }
  VectorXd hessian_product(const Point& point, Direction& p) override {
    if (steps >= good_steps) return kNaN * p.s;
    return (3 * point.x.array().square() - a_.array()) * p.s.array();
  }
  bool refresh_preconditioner(const Point&, bool) override {
    if (++refreshes > good_refreshes) return false;
    preconditioner_ = Preconditioner(MatrixXd::Identity(dimension(), dimension()));
    return true;
  }
  std::vector<Trial> try_steps(const Point& point, const Direction& direction, std::span<const double> ts) override {
    std::vector<Trial> trials;
    for (const double t : ts) {  // in difference form
      const Eigen::ArrayXd x = point.x.array(), y = t * direction.s.array();
      trials.push_back({t, (y * (x.cube() - a_.array() * x) + y.square() * (1.5 * x.square() - a_.array() / 2) +
                            x * y.cube() + y.pow(4) / 4)
                               .sum()});
    }
    return trials;
  }
  Point step(Point point, Direction direction, const Trial& trial) override {
    ++steps;
    return Objective::step(std::move(point), std::move(direction), trial);
  }
  double reads_of_a() const override { return 0; }
  std::int64_t collectives() const override { return 0; }

  int steps = 0, refreshes = 0, good_steps = 1000, good_refreshes = 1000;  // a test may let them run out

 private:
  VectorXd a_;
};

struct Walk {
  NewtonSummary summary;
  std::vector<IterationRecord> records;
  std::vector<VectorXd> iterates;
  VectorXd x;
};

Walk walk(Wells& wells, const VectorXd& x0) {
  Walk out;
  Point point = wells.evaluate(x0);
  NewtonOptions options;
  options.on_iteration = [&](const IterationRecord& record) {
    out.records.push_back(record);
    out.iterates.push_back(point.x);
  };
  out.summary = newton_cg(wells, point, options);
  out.x = point.x;
  EXPECT_EQ(out.summary.termination, Termination::converged);
  return out;
}

// No radius yet and negative curvature at once: the step is -M^-1 g, and longer while that gains.
TEST(NewtonCg, FollowsNegativeCurvatureBeforeThereIsARadius) {
  const VectorXd a = (VectorXd(3) << 4, 1, 0.25).finished(), x0 = (VectorXd(3) << 1e-3, -2e-3, 3e-3).finished();
  Wells wells(a);
  const auto out = walk(wells, x0);
  const VectorXd g0 = x0.array().cube() - a.array() * x0.array(), first = out.iterates[1] - x0;
  const double t = out.records[1].step;
  EXPECT_EQ(out.records[1].cg_iterations, 1);
  EXPECT_GT(t, 1);
  EXPECT_LE((first + t * g0).norm(), 1e-14 * first.norm());
  EXPECT_NEAR(out.records[1].radius, 2 * first.norm(), 1e-12);
  EXPECT_LE((out.x.cwiseAbs2() - a).norm(), 1e-9);  // in a well, not at the top between them
}

// The first product has positive curvature and sets a small radius; the second well is far away.
TEST(NewtonCg, KeepsToTheRadius) {
  const VectorXd a = (VectorXd(2) << 1, 25).finished(), x0 = (VectorXd(2) << 0.9, 1e-4).finished();
  Wells wells(a);
  const auto out = walk(wells, x0);
  int at_boundary = 0;
  EXPECT_TRUE(std::isfinite(out.records[1].radius));
  for (std::size_t k = 2; k < out.records.size(); ++k) {
    const auto &record = out.records[k], &before = out.records[k - 1];
    const double length = (out.iterates[k] - out.iterates[k - 1]).norm() / record.step;
    const bool grown = record.radius > before.radius;
    SCOPED_TRACE("step " + std::to_string(k));
    EXPECT_LE(length, before.radius * (1 + 1e-12));
    EXPECT_TRUE(!grown || length >= before.radius * (1 - 1e-9));  // the radius grows from the boundary only
    EXPECT_LT(record.value, before.value);
    at_boundary += grown ? 1 : 0;
  }
  EXPECT_GE(at_boundary, 1);
  EXPECT_LE((out.x.cwiseAbs2() - a).norm(), 1e-9);
}

TEST(NewtonCg, BreaksDownWithoutAnyPreconditionerOrFiniteProduct) {
  const VectorXd minus = VectorXd::Constant(2, -1), x0 = VectorXd::Constant(2, 2);  // convex
  Wells never(minus), once(minus), product(minus);
  never.good_refreshes = 0;
  once.good_refreshes = 1;
  product.good_steps = 2;
  Point at_never = never.evaluate(x0), at_once = once.evaluate(x0), at_product = product.evaluate(x0);
  const auto broken = newton_cg(never, at_never, {}), goes_on = newton_cg(once, at_once, {}),
             later = newton_cg(product, at_product, {});
  EXPECT_EQ(broken.termination, Termination::breakdown);
  EXPECT_EQ(broken.iterations, 0);
  EXPECT_EQ(at_never.x, x0);
  EXPECT_EQ(goes_on.termination, Termination::converged);  // with the old one
  EXPECT_GT(once.refreshes, 1);
  EXPECT_EQ(later.termination, Termination::breakdown);
  EXPECT_EQ(later.iterations, 2);
  EXPECT_TRUE(at_product.x.allFinite());
  EXPECT_LT(at_product.x.norm(), x0.norm());  // the last good point
}

struct Odd {
  std::string name;
  reference::Problem problem;
};

/// Few rows or columns, and Hessians that are singular; with all rows and, from 2000 rows on, sampled ones.
std::vector<Odd> odd_problems() {
  std::vector<Odd> all;
  const auto add = [&](const char* name, Index rows, Index columns, double weight, auto&& change) {
    all.push_back({name + (", " + std::to_string(rows) + " rows"),
                   reference::random_problem(rows, columns, 1, weight, 40 + all.size())});
    change(all.back().problem);
  };
  const auto nothing = [](reference::Problem&) {};
  add("n = 1", 1, 3, 0.5, nothing);
  add("n = 1, w = 0", 1, 3, 0, nothing);
  add("n < d", 5, 9, 0.1, nothing);
  add("n < d, w = 0", 5, 9, 0, nothing);
  for (const Index rows : {50, 2000}) {
    add("d = 1", rows, 1, 0.1, nothing);
    add("d = 1, w = 0", rows, 1, 0, nothing);
    add("ones column, w = 0", rows, 4, 0, [](auto& p) { p.A.col(2).setOnes(); });
    add("constant column, small w", rows, 4, 1e-3, [](auto& p) { p.A.col(2).setConstant(30); });
    add("zero and duplicate columns", rows, 7, 0.1, [](auto& p) { p.A.col(4).setZero(), p.A.col(6) = p.A.col(0); });
    add("the same, w = 0", rows, 7, 0, [](auto& p) { p.A.col(4).setZero(), p.A.col(6) = p.A.col(0); });
    add("columns of different size", rows, 4, 1e-2, [](auto& p) { p.A.col(0) *= 1e-5, p.A.col(1) *= 1e4; });
    add("A = 0", rows, 3, 0.1, [](auto& p) { p.A.setZero(); });
    add("negative b", rows, 4, 0.1, [](auto& p) { p.b = -p.b; });
  }
  return all;
}

TEST(NewtonCg, OddProblemsEndWithAFinitePointAndAReason) {
  for (const auto& [name, problem] : odd_problems()) {
    const auto run = solve_cg(problem);
    const double norm = static_cast<double>(reference::evaluate(problem, run.x).gradient.norm());
    SCOPED_TRACE(name + ": " + std::string(termination_name(run.summary.termination)));
    EXPECT_TRUE(run.x.allFinite());
    EXPECT_TRUE(run.converged());
    // the gradient of the reference is made of other roundings: ten times ours
    EXPECT_LE(norm, std::max(1e-9 * run.summary.gradient_reference, 10 * run.floor));
    EXPECT_LE(run.records.back().value, run.records.front().value);
  }
}

}  // namespace attnreg::test_newton_cg
