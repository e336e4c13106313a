// Over-parameterised networks: half-space reporting, adversarial training, exponential regression.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <utility>

#include "experiments/experiments.hpp"
#include "experiments/neuron_tree.hpp"
#include "numbers/random.hpp"
#include "support/reference.hpp"
#include "support/refusal.hpp"

namespace attnreg::test_network_experiments {

using namespace experiments;
using testing::HasSubstr;

using Found = std::set<std::pair<Index, Index>>;

/// Numbers of neurons and points with <w, x> >= b among what the tree reports.
Found reported(NeuronTree& tree, const MatrixXd& points, double b) {
  Found found;
  tree.report(points, b, [&](Index first, Index count, std::span<const Index> candidates) {
    for (const Index point : candidates)
      for (Index place = first; place < first + count; ++place)
        if (tree.neurons().col(place).dot(points.col(point)) >= b) {
          EXPECT_TRUE(found.emplace(tree.number(place), point).second) << "reported twice";
        }
  });
  return found;
}

Found scanned(const MatrixXd& neurons, const MatrixXd& points, double b) {
  Found found;
  for (Index r = 0; r < neurons.cols(); ++r)
    for (Index i = 0; i < points.cols(); ++i)
      if (neurons.col(r).dot(points.col(i)) >= b) found.emplace(r, i);
  return found;
}

TEST(NeuronTree, ReportsWhatAScanFinds) {
  for (const Index d : {1, 3, 20})
    for (const Index m : {0, 1, 31, 33, 1000}) {
      MatrixXd neurons = reference::random_matrix(d, m, 1);
      if (m > 31) neurons.rightCols(m / 2).setConstant(0.7);  // many equal ones
      const MatrixXd points = reference::random_matrix(d, 9, 2);
      const VectorXd weights = reference::random_vector(m, 3);
      NeuronTree tree(neurons, weights, true), block(neurons, weights, false);
      EXPECT_EQ(tree.in_order(), neurons);
      const VectorXd step = VectorXd::Constant(d, 0.3);
      for (int round = 0; round < 4; ++round) {
        for (const double b : {-1e9, -0.5, 0.0, 0.7, 1.5, 1e9}) {
          const Found expected = scanned(tree.in_order(), points, b);
          EXPECT_EQ(reported(tree, points, b), expected) << d << " " << m << " " << b;
          EXPECT_EQ(reported(block, points, b), round == 0 ? expected : scanned(block.in_order(), points, b));
        }
        for (Index place = round; place < m; place += 3) {
          const VectorXd moved = tree.neurons().col(place) + (round == 2 ? 10 : 1) * step;
          tree.move(place, (round == 2 ? 10 : 1) * step);
          EXPECT_EQ(tree.neurons().col(place), moved);
          block.move(place, step);
        }
        if (round > 0) tree.keep_tight();
        for (Index place = 0; place < m; ++place) EXPECT_EQ(tree.weights()[place], weights[tree.number(place)]);
      }
    }
}

TEST(NeuronTree, LeavesMostOutWhereTheDimensionIsLow) {
  const MatrixXd neurons = reference::random_matrix(3, 20000, 1), points = reference::random_matrix(3, 10, 2);
  MatrixXd units = points;
  units.colwise().normalize();
  NeuronTree tree(neurons, VectorXd::Ones(20000), true);
  reported(tree, units, 2);  // 2.3 % of them
  EXPECT_LT(static_cast<double>(tree.touched()), 0.1 * 20000 * 10);
  EXPECT_LT(static_cast<double>(tree.nodes_tested()), 0.1 * 20000 * 10);
}

/// Adversarial training by its definition: all loops, nothing left out. W, a row for each neuron, and s.
RowMajorMatrix trained(const Points& points, const AdversarialTraining& options, std::int64_t width) {
  const Index m = width, d = points.X.cols(), n = points.X.rows();
  const double b = std::sqrt(0.4 * std::log(width)),
               s = 1 / std::sqrt(static_cast<double>(m) * std::erfc(b / std::sqrt(2.0)) / 2);
  RowMajorMatrix W(m, d);
  RandomStream(options.seed, Purpose::experiment_start).normal_rows(0, W);
  VectorXd a(m);
  for (Index r = 0; r < m; ++r) a[r] = RandomStream(options.seed, Purpose::experiment_signs).bits(r)[0] & 1 ? 1 : -1;
  const auto f = [&](const VectorXd& x, VectorXd* gradient) {
    double sum = 0;
    for (Index r = 0; r < m; ++r)
      if (const double z = W.row(r).dot(x); z >= b) {
        sum += s * a[r] * (z - b);
        if (gradient != nullptr) *gradient += s * a[r] * W.row(r).transpose();
      }
    return sum;
  };
  std::vector<std::pair<double, Index>> order;
  for (Index i = 0; i < n; ++i)
    order.emplace_back(RandomStream(options.seed, Purpose::experiment_data, 2).uniform(i), i);
  std::ranges::sort(order);
  const Index batch = std::min<Index>(options.batch, n);
  for (Index step = 0; step < options.steps; ++step) {
    RowMajorMatrix change = RowMajorMatrix::Zero(m, d);
    for (Index k = 0; k < batch; ++k) {
      const Index i = order[static_cast<std::size_t>((step * batch + k) % n)].second;
      const VectorXd x0 = points.X.row(i);
      VectorXd x = x0;
      for (int attack = 0; attack < options.attack_steps; ++attack) {
        VectorXd gradient = VectorXd::Zero(d);
        f(x, &gradient);
        if (gradient.norm() > 0)
          x -= points.y[i] * 2.5 * options.radius / options.attack_steps * gradient / gradient.norm();
        if ((x - x0).norm() > options.radius) x = x0 + options.radius * (x - x0) / (x - x0).norm();
      }
      const double slope = -points.y[i] / (1 + std::exp(points.y[i] * f(x, nullptr)));
      for (Index r = 0; r < m; ++r)
        if (W.row(r).dot(x) >= b)
          change.row(r) -= options.rate / static_cast<double>(batch) * slope * s * a[r] * x.transpose();
    }
    W += change;
  }
  return W;
}

TEST(AdversarialTraining, HasTheWeightsOfTheDefinition) {
  const Communicator world(MPI_COMM_WORLD);
  const Points points = random_points(20, 4, true, 3);
  for (const std::int64_t width : {3, 400}) {
    const AdversarialTraining options{.widths = {width}, .radius = 0.2, .steps = 12, .batch = 7, .rate = 5, .seed = 2};
    const AdversarialFit fit = adversarial_training(world, points, options);
    const RowMajorMatrix expected = trained(points, options, width);
    EXPECT_EQ(world.sum(static_cast<std::int64_t>(fit.W.rows())), width);
    // Sums of at most 400 terms of size 1 in another order, through 12 steps that damp or keep what was before.
    EXPECT_LE((fit.W - expected.middleRows(fit.first_neuron, fit.W.rows())).cwiseAbs().sum(), 1e-11);
    EXPECT_LE(fit.table.at(0, "difference"), 1e-12);
    if (width == 400) {
      EXPECT_GT(fit.table.at(0, "movement"), 0.01);
    }
  }
}

TEST(NeuronTree, TellsItsWorkBefore) {
  for (const Index d : {2, 5, 12})
    for (const Index m : {1, 3000, 30000}) {
      const MatrixXd neurons = reference::random_matrix(d, m, 1);
      MatrixXd points = reference::random_matrix(d, 24, 2);
      points.colwise().normalize();
      NeuronTree tree(neurons, VectorXd::Ones(m), false);
      const auto foreseen = tree.trial(points, 1.5);
      EXPECT_EQ(tree.work(), 0);
      EXPECT_EQ(reported(tree, points, 1.5), scanned(neurons, points, 1.5));
      tree.build();
      EXPECT_EQ(tree.work(), tree.work_of_build());
      EXPECT_EQ(reported(tree, points, 1.5), scanned(neurons, points, 1.5));
      const double found = tree.work() - tree.work_of_build();
      if (m <= 4096) {
        EXPECT_NEAR(foreseen.report, found, 1e-9 * found);
      } else {
        EXPECT_NEAR(foreseen.report / found, 1, 0.5) << d;  // some cells of Gaussian neurons, all directions of points
      }
      const double before = tree.work();
      std::set<Index> active;
      for (const auto& [neuron, point] : scanned(tree.neurons(), points, 1.5)) active.insert(neuron);
      for (const Index place : active) tree.move(place, VectorXd::Zero(d));
      if (!active.empty()) {
        EXPECT_NEAR(foreseen.moves / (tree.work() - before), 1, m <= 4096 ? 1e-9 : 0.5) << d;
      }
      tree.drop_balls();
      EXPECT_EQ(reported(tree, points, 1.5), scanned(tree.in_order(), points, 1.5));
    }
}

TEST(AdversarialTraining, TakesTheTreeWhereItIsLessWork) {
  const Communicator world(MPI_COMM_WORLD);
  for (const auto& [d, width, tree] : {std::tuple{3, 20000, 1.0}, {40, 5000, 0.0}}) {
    const Points points = random_points(30, d, true, 1);
    AdversarialTraining options{.widths = {width}, .steps = 10, .batch = 16};
    const AdversarialFit fit = adversarial_training(world, points, options);
    EXPECT_EQ(fit.table.at(0, "tree"), tree);
    EXPECT_EQ(fit.table.at(0, "nodes") > 0, tree > 0);
    EXPECT_LE(fit.table.at(0, "difference"), 1e-12);
    options.compares = false;
    for (const auto structure : {AdversarialTraining::Structure::tree, AdversarialTraining::Structure::dense}) {
      options.structure = structure;
      const AdversarialFit other = adversarial_training(world, points, options);
      EXPECT_EQ(other.table.at(0, "tree"), structure == AdversarialTraining::Structure::tree ? 1 : 0);
      EXPECT_LE((other.W - fit.W).cwiseAbs().sum(), 1e-10);
    }
  }
}

TEST(AdversarialTraining, ActiveSetsAreAsSmallAsExpected) {
  const Communicator world(MPI_COMM_WORLD);
  const AdversarialTraining still{
      .widths = {1000, 100000}, .radius = 0, .steps = 1, .rate = 1e-12, .compares = false};  // of neurons as drawn
  const Table table = adversarial_training(world, random_points(4, 8, true, 1), still).table;
  EXPECT_NEAR(table.at(0, "expected"), 0.048, 5e-4);
  EXPECT_NEAR(table.at(1, "expected"), 0.016, 5e-4);
  for (std::size_t k = 0; k < 2; ++k) {
    // Five standard deviations, of 4 points that see the same neurons.
    EXPECT_NEAR(table.at(k, "active"), table.at(k, "expected"),
                5 * std::sqrt(table.at(k, "expected") / table.at(k, "width")));
    EXPECT_LE(table.at(k, "expected"), table.at(k, "bound"));
  }
}

TEST(AdversarialTraining, LearnsAndLooksAtFewNeurons) {
  const Communicator world(MPI_COMM_WORLD);
  const Points points = random_points(64, 3, true, 1);
  const AdversarialFit fit = adversarial_training(world, points, {.widths = {1000, 20000}, .steps = 40, .rate = 5});
  const Table& table = fit.table;
  EXPECT_NEAR(table.at(0, "expected"), 0.048, 5e-4);
  for (std::size_t k = 0; k < 2; ++k) {
    // Points of about length 1 whose neurons are the same: five standard deviations of one of them, and what training
    // changes.
    EXPECT_NEAR(table.at(k, "active"), table.at(k, "expected"),
                5 * std::sqrt(table.at(k, "expected") / table.at(k, "width")) + 0.1 * table.at(k, "expected"));
    EXPECT_LE(table.at(k, "expected"), table.at(k, "bound"));
    EXPECT_GE(table.at(k, "touched"), table.at(k, "active"));
    EXPECT_LT(table.at(k, "loss"), 0.8 * table.at(k, "loss_before"));
    EXPECT_GE(table.at(k, "accuracy"), table.at(k, "robust"));
    EXPECT_GT(table.at(k, "accuracy"), 0.8);
    EXPECT_LE(table.at(k, "difference"), 1e-12);
  }
  EXPECT_LT(table.at(1, "touched"), 0.2);
  const AdversarialFit without = adversarial_training(world, points, {.widths = {100}, .compares = false});
  EXPECT_THROW(without.table.at(0, "difference"), std::out_of_range);
}

TEST(Points, AreOfLengthOneAndOthersAreRefused) {
  const Communicator world(MPI_COMM_WORLD);
  RowMajorMatrix X{{3e200, 4e200}, {0, -1e-300}};
  const Points points = unit_points(X, VectorXd{{1, -1}});
  EXPECT_NEAR(points.X(0, 0), 0.6, 1e-15);
  EXPECT_EQ(points.X(1, 1), -1);
  EXPECT_THAT(refusal([&] { unit_points(X, VectorXd::Ones(3)); }), HasSubstr("X has 2 rows, and y 3 values"));
  EXPECT_THAT(refusal([&] {
                unit_points(RowMajorMatrix{{1, 0}, {0, 0}}, VectorXd::Ones(2));
              }),
              HasSubstr("row 1 of X"));
  EXPECT_THAT(refusal([&] {
                adversarial_training(world, unit_points(X, VectorXd{{1, 0}}), {});
              }),
              HasSubstr("y[1] is 0; expected 1 or -1"));
  EXPECT_THAT(refusal([&] { smallest_widths(world, points, {.counts = {3}}); }), HasSubstr("2 points, not 3"));
  const Points equal = unit_points(RowMajorMatrix{{1, 0}, {2, 0}}, VectorXd::Ones(2));
  EXPECT_THAT(refusal([&] { smallest_widths(world, equal, {.counts = {2}}); }), HasSubstr("is singular"));
}

TEST(ExponentialNetwork, WideOnesConvergeAndMoveLess) {
  const Communicator world(MPI_COMM_WORLD);
  const Table table = exponential_network(world, random_points(10, 8, false, 1), {});
  for (std::size_t k = 0; k < table.rows.size(); ++k) {
    EXPECT_LE(table.at(k, "final"), 1e-2);
    // |F| is about e (m n)^{1/2}; the n sums over m neurons depend on each other.
    EXPECT_NEAR(table.at(k, "initial") / (std::exp(1) * std::sqrt(10 * table.at(k, "width"))), 1, 0.6);
  }
  EXPECT_LT(table.at(1, "movement"), table.at(0, "movement"));
  // The kernel matrix of 4000 neurons is near its limit.
  EXPECT_NEAR(table.at(1, "bound"), table.at(1, "kernel_bound"), 0.05);
  EXPECT_LE(table.at(1, "rate"), table.at(1, "bound") + 0.02);
}

TEST(ExponentialNetwork, GaussNewtonTakesFewSteps) {
  const Communicator world(MPI_COMM_WORLD);
  const Points points = random_points(10, 8, false, 1);
  const Table table = exponential_network(world, points, {.gauss_newton = true, .residual = 1e-8});
  for (std::size_t k = 0; k < table.rows.size(); ++k) {
    EXPECT_LE(table.at(k, "final"), 1e-8);
    EXPECT_LE(table.at(k, "steps"), 12);  // quadratic at the end
  }
}

TEST(ExponentialNetwork, IsTheSameOnAnyNumberOfRanks) {
  const Communicator world(MPI_COMM_WORLD), self(MPI_COMM_SELF);
  const Points points = random_points(6, 5, false, 4);
  for (const bool gauss_newton : {false, true}) {
    const ExponentialNetwork options{.widths = {40, 200}, .gauss_newton = gauss_newton, .residual = 0.1};
    const Table found = exponential_network(world, points, options),
                expected = exponential_network(self, points, options);
    for (std::size_t k = 0; k < 2; ++k)
      for (const char* const column : {"initial", "final", "steps", "movement", "bound"})
        EXPECT_NEAR(found.at(k, column) / expected.at(k, column), 1, 1e-6) << column << " " << k << gauss_newton;
  }
  const SmallestWidths search{.counts = {1, 2, 4}, .reduction = 0.1, .starts = 3};
  const Table found = smallest_widths(world, points, search), expected = smallest_widths(self, points, search);
  for (std::size_t k = 0; k < 3; ++k) {
    EXPECT_EQ(found.at(k, "width"), expected.at(k, "width"));
    EXPECT_EQ(found.at(k, "steps"), expected.at(k, "steps"));
    EXPECT_GE(found.at(k, "width"), std::max(1.0, found.at(k, "least")));
    EXPECT_LE(found.at(k, "width"), found.at(k, "most"));
  }
  EXPECT_NEAR(found.at(2, "slope"), std::log(found.at(2, "width") / found.at(0, "width")) / std::log(4), 1e-12);
}

}  // namespace attnreg::test_network_experiments
