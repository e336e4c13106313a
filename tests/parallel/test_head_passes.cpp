// Inputs, metrics, targets and passes of heads: against formulas spelled out, and finite differences.

#include <gtest/gtest.h>

#include <Eigen/SVD>
#include <cmath>

#include "heads/gauss_newton.hpp"
#include "heads/rank_by_holdout.hpp"
#include "support/attention_problems.hpp"

namespace attnreg::test_head_passes {

using namespace attention_problems;
using reference::Layout;

constexpr HeadLoss kLosses[] = {HeadLoss::log_odds, HeadLoss::weighted_log_odds, HeadLoss::cross_entropy,
                                HeadLoss::softmax};

/// Which keys the tests' queries see.
enum class Sight { all, causal, some };

/// A head with noise, and its passes in the metric of its inputs.
class HeadPassesOf {
 public:
  HeadPassesOf(const Communicator& comm, Layout layout, Sight sight, double ridge = 0, double zero_below = 0)
      : sequences_(make(comm, layout, sight, zero_below)),
        inputs(comm, sequences_, {targets()}),
        target(inputs, targets()),
        passes(inputs, target, inputs.query_metric(), inputs.key_metric(), ridge) {}

 private:
  static std::vector<AttentionSequence> make(const Communicator& comm, Layout layout, Sight sight, double zero_below) {
    Planted planted = plant({20, 20, 5, 4}, 2, 1.5, 3, 11);
    std::vector<AttentionSequence> sequences;
    for (auto& whole : planted.sequences) {
      whole.target.array() *= (0.1 * reference::random_matrix(20, 20, 99).array()).exp();  // rows need not sum to 1
      whole.target = (whole.target.array() < zero_below).select(0.0, whole.target);
      AttentionSequence sequence = distributed(comm, whole, layout);
      if (sight != Sight::all) sequence.mask.emplace();
      if (sight == Sight::some) {
        sequence.mask->rows.emplace(sequence.target.rows(), sequence.target.cols());
        const auto first = sequence.partition.begin(comm.rank());
        for (Index j = 0; j < sequence.target.rows(); ++j)
          for (Index k = 0; k < 20; ++k) (*sequence.mask->rows)(j, k) = (first + j + 3 * k) % 4 != 0;
      }
      sequences.push_back(std::move(sequence));
    }
    return sequences;
  }
  HeadTargets targets() const {
    HeadTargets all;
    for (const auto& sequence : sequences_) all.emplace_back(sequence.target);
    return all;
  }

  std::vector<AttentionSequence> sequences_;

 public:
  HeadInputs inputs;
  HeadTarget target;
  HeadPasses passes;
};

class HeadPassesTest : public Attention {};

TEST_F(HeadPassesTest, MetricsAreIdentitiesInTheirCoordinates) {
  const HeadPassesOf head(comm_, Layout::random, Sight::all);
  for (const Whitening* metric : {&head.inputs.query_metric(), &head.inputs.key_metric()}) {
    const Index k = metric->dimension();
    EXPECT_LE((metric->W.transpose() * metric->gram * metric->W - MatrixXd::Identity(k, k)).norm(), 1e-12);
    EXPECT_EQ(metric->null_directions.cols(), 0);
  }
  EXPECT_EQ(head.inputs.sequences(), 3);
  EXPECT_EQ(head.inputs.queries(), 60);
}

TEST_F(HeadPassesTest, NullDirectionsAreFoundAndLeftOut) {
  MatrixXd A = reference::random_matrix(6, 30, 5);
  A.row(4) = A.row(1) - 3 * A.row(2);
  A.row(5).setZero();
  const Whitening metric = whitening(comm_, A * A.transpose());
  ASSERT_EQ(metric.null_directions.cols(), 2);
  EXPECT_LE((metric.null_directions.transpose() * A).norm(), 1e-12);
  EXPECT_LE((metric.null_directions.transpose() * metric.null_directions - MatrixXd::Identity(2, 2)).norm(), 1e-14);
  EXPECT_LE((metric.null_directions.transpose() * metric.W).norm(), 1e-14);
  EXPECT_LE((metric.W.transpose() * metric.gram * metric.W - MatrixXd::Identity(4, 4)).norm(), 1e-12);
  EXPECT_EQ(whitening(comm_, MatrixXd::Zero(3, 3)).dimension(), 0);
  EXPECT_EQ(whitening(comm_, MatrixXd::Constant(3, 3, NAN)).dimension(), 0);
}

TEST_F(HeadPassesTest, GradientIsTheDerivative) {
  for (const auto sight : {Sight::all, Sight::causal, Sight::some})
    for (const auto loss : kLosses)
      for (const Index rank : {0, 2})
        for (const double ridge : {0.0, 0.01}) {
          HeadPassesOf head(comm_, Layout::even, sight, ridge, 0.01);
          const HeadFactors u = random_factors(head.passes, rank, 3);
          const VectorXd p = random_factors(head.passes, rank, 4).numbers();
          const auto at = [&](double t) { return head.passes.linearise(u.with(u.numbers() + t * p), loss); };
          const double h = 1e-5, slope = (at(h).value - at(-h).value) / (2 * h), size = std::abs(at(0).value) + 1;
          EXPECT_NEAR(at(0).gradient.dot(p), slope, 1e-7 * (size + std::abs(slope)))
              << static_cast<int>(sight) << static_cast<int>(loss) << rank << ridge;
        }
}

TEST_F(HeadPassesTest, GaussNewtonIsTheHessianWhereAllIsLinear) {
  // Log-odds are linear in a full X: the product is a difference of gradients, whatever the step.
  for (const auto sight : {Sight::all, Sight::causal})
    for (const double ridge : {0.0, 0.3})
      for (const auto loss : {HeadLoss::log_odds, HeadLoss::weighted_log_odds}) {
        HeadPassesOf head(comm_, Layout::random, sight, ridge);
        const HeadFactors u = random_factors(head.passes, 0, 3);
        const VectorXd p = random_factors(head.passes, 0, 4).numbers();
        const auto here = head.passes.linearise(u, loss);
        const VectorXd product = head.passes.product(u, here, p),
                       difference = head.passes.linearise(u.with(u.numbers() + p), loss).gradient - here.gradient;
        EXPECT_LE((product - difference).norm(), 1e-5 * difference.norm());  // products are in float
      }
}

TEST_F(HeadPassesTest, AllRidgesAreSolvedAtOnce) {
  for (const auto loss : {HeadLoss::log_odds, HeadLoss::weighted_log_odds}) {
    HeadPassesOf head(comm_, Layout::random, Sight::causal);
    const std::vector<double> ridges{1e-3, 1e-2, 0.3, 10};
    const auto found = fit_full(head.passes, loss, ridges);
    ASSERT_EQ(found.size(), ridges.size());
    for (std::size_t k = 0; k < ridges.size(); ++k) {
      const VectorXd gradient = head.passes.linearise(found[k], loss).gradient;
      EXPECT_LE((gradient + ridges[k] * found[k].numbers()).norm(),
                2e-4 * head.passes.linearise(head.passes.factors(0), loss).gradient.norm())  // it stops at 1e-4
          << ridges[k];
    }
    const MatrixXd part = truncated_full(head.passes, found[0], 2).U();
    const Eigen::JacobiSVD<MatrixXd> all(found[0].U(), Eigen::ComputeThinU | Eigen::ComputeThinV);
    const VectorXd values = all.singularValues().head(2);
    EXPECT_LE((part - all.matrixU().leftCols(2) * values.asDiagonal() * all.matrixV().leftCols(2).transpose()).norm(),
              1e-12 * values[0]);
  }
}

TEST_F(HeadPassesTest, ProductsAreSymmetricAndPositive) {
  for (const auto sight : {Sight::all, Sight::some})
    for (const auto loss : kLosses) {
      HeadPassesOf head(comm_, Layout::tiled, sight);
      const HeadFactors u = random_factors(head.passes, 2, 3);
      const VectorXd p = random_factors(head.passes, 2, 4).numbers(), q = random_factors(head.passes, 2, 5).numbers();
      const auto here = head.passes.linearise(u, loss);
      const VectorXd Hp = head.passes.product(u, here, p), Hq = head.passes.product(u, here, q);
      EXPECT_NEAR(p.dot(Hq), q.dot(Hp), 1e-5 * std::sqrt(p.dot(Hp) * q.dot(Hq)));
      EXPECT_GT(p.dot(Hp), 0);
    }
}

TEST_F(HeadPassesTest, LogOddsWithoutLogitsAreThoseWithThem) {
  // With weights 1 products use r x r matrices; a tiny ridge takes the way through the logits.
  HeadPassesOf head(comm_, Layout::even, Sight::all), other(comm_, Layout::even, Sight::all, 1e-300);
  const HeadFactors u = random_factors(head.passes, 2, 3);
  const VectorXd p = random_factors(head.passes, 2, 4).numbers();
  const auto here = head.passes.linearise(u, HeadLoss::log_odds), there = other.passes.linearise(u, HeadLoss::log_odds);
  EXPECT_FALSE(here.key_grams.empty() && head.inputs.rows().size() > 0);
  EXPECT_TRUE(there.key_grams.empty());
  const VectorXd product = head.passes.product(u, here, p);
  EXPECT_LE((product - other.passes.product(u, there, p)).norm(), 1e-5 * product.norm());
}

TEST_F(HeadPassesTest, ValuesAreTheSameEverywhere) {
  HeadPassesOf first(comm_, Layout::all_on_last, Sight::causal);
  const HeadFactors u = random_factors(first.passes, 2, 3);
  const HeadMatrices X = first.passes.matrices(u);
  for (const auto layout : reference::layouts) {
    HeadPassesOf head(comm_, layout, Sight::causal);
    const HeadFactors v = head.passes.coordinates(X);
    const HeadValues values = head.passes.values(v), expected = first.passes.values(u);
    for (const auto loss : {HeadLoss::log_odds, HeadLoss::cross_entropy, HeadLoss::softmax}) {
      EXPECT_NEAR(values.of(loss), expected.of(loss), 1e-10 * expected.of(loss));
      EXPECT_NEAR(head.passes.linearise(v, loss).value, expected.of(loss), 1e-10 * expected.of(loss));
    }
  }
}

TEST_F(HeadPassesTest, ZerosShowTheResolution) {
  const HeadPassesOf head(comm_, Layout::even, Sight::all, 0, 0.01), without(comm_, Layout::even, Sight::all);
  EXPECT_FALSE(head.target.is_dense());
  EXPECT_GT(head.target.zeros(), 0.02);
  EXPECT_GE(head.target.resolution(), 0.04);
  EXPECT_LE(head.target.resolution(), 0.2);
  EXPECT_TRUE(without.target.is_dense());
  EXPECT_EQ(without.target.resolution(), 0);
  const HeadPassesOf masked(comm_, Layout::even, Sight::some);  // what is masked is no zero
  EXPECT_EQ(masked.target.zeros(), 0);
  EXPECT_FALSE(masked.target.is_dense());
}

TEST_F(HeadPassesTest, BalancedFactorsAreTheSameX) {
  HeadPassesOf head(comm_, Layout::even, Sight::all);
  const HeadFactors u = random_factors(head.passes, 3, 3);
  const auto [v, values] = balanced(comm_, u);
  EXPECT_LE((v.U() * v.V().transpose() - u.U() * u.V().transpose()).norm(), 1e-13 * u.numbers().squaredNorm());
  EXPECT_LE((v.U().transpose() * v.U() - MatrixXd(values.asDiagonal())).norm(), 1e-12);
  EXPECT_LE((v.V().transpose() * v.V() - MatrixXd(values.asDiagonal())).norm(), 1e-12);
}

TEST_F(HeadPassesTest, CurvatureGramsAreTheirSums) {
  const HeadPassesOf head(comm_, Layout::all_on_last, Sight::all);
  for (const auto loss : {HeadLoss::cross_entropy, HeadLoss::softmax}) {
    const CurvatureGrams found = curvature_grams(head.inputs, head.target, loss);
    MatrixXd G = MatrixXd::Zero(5, 5), H = MatrixXd::Zero(4, 4);
    for (std::size_t k = 0; k < head.inputs.rows().size(); ++k) {
      const auto& rows = head.inputs.rows()[k];
      const MatrixXd A = head.inputs.queries_of(rows), K = head.inputs.keys_of(rows);
      for (Index j = 0; j < rows.queries(); ++j) {
        const VectorXd b = head.target.block(k, j, 1, false).B;
        MatrixXd J = MatrixXd(b.asDiagonal()) - b * b.transpose();
        if (loss == HeadLoss::softmax) J = (J * J).eval();
        G += J.trace() * A.col(j) * A.col(j).transpose();
        H += K * J * K.transpose();
      }
    }
    comm_.sum({G.data(), static_cast<std::size_t>(G.size())});
    comm_.sum({H.data(), static_cast<std::size_t>(H.size())});
    EXPECT_LE((found.queries - G).norm(), 1e-12 * G.norm());
    EXPECT_LE((found.keys - H).norm(), 1e-12 * H.norm());
  }
}

TEST_F(HeadPassesTest, TargetsMayBeInFloat) {
  const Planted planted = plant({48, 48, 12, 10}, 3, 1.5, 6, 1);
  auto all = sequences(planted, Layout::even);
  std::vector<std::vector<AttentionMatrix>> heads(2);
  for (auto& sequence : all) {
    const RowMajorMatrixFloat B = sequence.target.cast<float>();
    heads[0].emplace_back(B);
    heads[1].emplace_back(RowMajorMatrix(B.cast<double>()));
    sequence.target.resize(0, 0);  // the heads have theirs
  }
  const auto found = recover_heads(comm_, all, heads, {});
  EXPECT_EQ(found[0].X, found[1].X);
  EXPECT_LE((found[0].X - planted.unknowns.X).norm(), 1e-5 * found[0].X.norm());
  const HeadQuality by_factors = head_quality(comm_, all, found[0], heads[0]),
                    by_x = head_quality(comm_, all, found[0].X, heads[1]);
  EXPECT_NEAR(by_factors.all.error, by_x.all.error, 1e-13);
  EXPECT_NEAR(by_factors.all.divergence, by_x.all.divergence, 1e-13);
}

TEST_F(HeadPassesTest, LongSequencesAreUsedInBlocks) {
  // Blocks of 256 queries, pieces of 512.
  const Planted planted = plant({700, 600, 12, 10}, 3, 1.5, 2, 3);
  HeadOptions options;
  options.rounding = 0x1p-24;  // of B in float: two reads reach it
  const HeadResult head = recover_heads(comm_, sequences(planted, Layout::even), {}, options).at(0);
  EXPECT_EQ(head.rank, 3);
  EXPECT_LE((head.X - planted.unknowns.X).norm(), 1e-9 * head.X.norm());
  EXPECT_EQ(head.reads, 2);
}

}  // namespace attnreg::test_head_passes
