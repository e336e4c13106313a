// Masks: a masked problem is the sum of problems without masks, one for each query with the keys that it sees.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "attention/attention_objective.hpp"
#include "attnreg/apply_attention.hpp"
#include "attnreg/attention_regression.hpp"
#include "support/attention_problems.hpp"
#include "support/reference.hpp"
#include "support/refusal.hpp"

namespace attnreg::test_masked_attention {

using namespace attention_problems;
using testing::HasSubstr;

struct Case {
  std::string name, loss;
  bool values = false;
  AttentionMethod method = AttentionMethod::joint;
  Index rank = 0;
};

class MaskedAttention : public Attention, public testing::WithParamInterface<Case> {
 protected:
  struct Both {
    std::vector<AttentionSequence> masked, split;
  };

  /// A causal sequence, and one with a table whose unseen keys and hidden numbers would be met at once.
  Both both(reference::Layout layout) const {
    const Shape shape = GetParam().values ? Shape{7, 9, 3, 2, 3, 2} : Shape{7, 9, 3, 2};
    Planted planted = plant(shape, 2, 1.5, 2, 5);
    const std::array tables{causal_table(7, 9), random_table(7, 9, 8)};
    Both result;
    for (std::size_t k = 0; k < tables.size(); ++k) {
      Whole& whole = planted.sequences[k];
      if (k == 1) whole.keys.bottomRows(2).setConstant(1e200);
      if (k == 1 && whole.values) whole.values->bottomRows(2).setConstant(1e200);
      if (!whole.values) whole.weights = 0.1 * reference::random_matrix(7, 9, 20 + k);
      AttentionSequence sequence = distributed(comm_, whole, layout);
      sequence.mask = k == 0 ? AttentionMask{} : mask_of(tables[k], sequence.partition, comm_.rank());
      result.masked.push_back(std::move(sequence));
      for (Index i = 0; i < 7; ++i) result.split.push_back(distributed(comm_, part_of(whole, tables[k], i), layout));
    }
    return result;
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto loss : loss_names()) {
    std::string name(loss);
    std::replace(name.begin(), name.end(), '-', '_');
    all.push_back({name, std::string(loss)});
  }
  all.push_back({"low_rank", "softmax", false, AttentionMethod::joint, 2});
  all.push_back({"joint", "softmax", true});
  all.push_back({"eliminated", "softmax", true, AttentionMethod::varpro});
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, MaskedAttention, testing::ValuesIn(cases()),
                         [](const auto& test) { return test.param.name; });

/// Numbers of an objective at one point.
struct Found {
  double value, change, floor, norm, misfit, target;
  VectorXd gradient, product, models;
};

Found look(const Communicator& comm, const std::vector<AttentionSequence>& all, const Case& problem) {
  const auto shape = check_sequences(comm, all, problem.loss);
  AttentionPasses passes(comm, all, shape, problem.loss);
  const AttentionParameters parameters(shape.d1, shape.d2, problem.rank);
  Found found;
  found.models.resize(2);
  for (const auto model : {AttentionModel::dense, AttentionModel::kronecker}) {
    AttentionObjective objective(passes, parameters, problem.method, model);
    const VectorXd x = 0.5 * reference::random_vector(objective.dimension(), 77);
    Direction direction = objective.direction(reference::random_vector(objective.dimension(), 78));
    const Point point = objective.evaluate(x);
    found.value = point.value;
    found.gradient = point.gradient;
    found.product = objective.hessian_product(point, direction);
    found.change = objective.try_steps(point, direction, std::array{0.3})[0].change;
    found.floor = objective.gradient_floor(point, 0);
    found.norm = objective.norm(direction.s);
    found.misfit = objective.state_of(point).evaluation.misfit;
    found.target = objective.state_of(point).evaluation.target;
    const bool made = objective.refresh_preconditioner(point, false);
    found.models[model == AttentionModel::dense ? 0 : 1] = made ? objective.preconditioner().norm(direction.s) : NAN;
  }
  return found;
}

TEST_P(MaskedAttention, IsTheSumOverQueriesWithTheKeysThatTheySee) {
  for (const auto layout : reference::layouts) {
    const Both all = both(layout);
    const Found found = look(comm_, all.masked, GetParam()), expected = look(comm_, all.split, GetParam());
    // Other orders of sums of at most 126 terms, and with eliminated Y the condition of its normal equations.
    const auto expect_near = [](double one, double other) { EXPECT_NEAR(one, other, 1e-11 * std::abs(other)); };
    expect_near(found.value, expected.value);
    expect_near(found.change, expected.change);
    expect_near(found.norm, expected.norm);
    expect_near(found.misfit, expected.misfit);
    expect_near(found.target, expected.target);
    EXPECT_NEAR(found.floor, expected.floor, 1e-6 * expected.floor);
    EXPECT_LE((found.gradient - expected.gradient).norm(), 1e-11 * expected.gradient.norm());
    EXPECT_LE((found.product - expected.product).norm(), 1e-11 * expected.product.norm());
    EXPECT_TRUE(expected.models.allFinite());
    EXPECT_LE((found.models - expected.models).norm(), 1e-7 * expected.models.norm());  // they may be nearly singular
  }
}

TEST_F(Attention, MaskedHeadsAreRecovered) {
  Planted planted = plant({24, 24, 4, 3}, 2, 1.0, 3, 11);
  std::vector<AttentionSequence> masked, open;
  for (std::size_t k = 0; k < 3; ++k) {
    Whole& whole = planted.sequences[k];
    const Table table = k < 2 ? causal_table(24, 24) : random_table(24, 24, 4);
    whole.target = masked_softmax(whole, planted.unknowns.X, table);
    open.push_back(distributed(comm_, whole, reference::Layout::random));
    AttentionSequence sequence = open.back();
    sequence.mask = k < 2 ? AttentionMask{} : mask_of(table, sequence.partition, comm_.rank());
    masked.push_back(std::move(sequence));
  }
  const std::string warning = missing_mask(comm_, open);
  EXPECT_THAT(warning, HasSubstr("exactly 0 above the diagonal in 2 of 3 sequences"));
  EXPECT_THAT(warning, HasSubstr("--mask causal"));
  EXPECT_THAT(warning, HasSubstr("whole columns of B are exactly 0 in 1 of 3 sequences (sequence 2: 2 of 24 keys, the "
                                 "first is key 22"));
  EXPECT_EQ(missing_mask(comm_, masked), "");
  EXPECT_EQ(solve_attention(comm_, open, {}).warnings.at(0), warning);
  for (const auto start : {Start::cross_entropy, Start::zero})
    for (const Index rank : {0, 2}) {
      AttentionOptions options;
      options.start = start;
      options.rank = rank;
      options.newton.relative_tolerance = 1e-12;
      const auto result = solve_attention(comm_, masked, options);
      EXPECT_LE(result.error, 1e-11);
      EXPECT_LE((result.unknowns.X - planted.unknowns.X).norm(), 1e-10 * planted.unknowns.X.norm());
      EXPECT_TRUE(result.warnings.empty()) << result.warnings.at(0);
    }
  masked[0].target.array() += 1e-3;  // in hidden places, too
  EXPECT_THAT(solve_attention(comm_, masked, {}).warnings.at(0), HasSubstr("276 numbers of B that are not 0"));
}

// The offsets change no difference of logits, and the keys have few enough binary digits for sums with them to be
// exact.
TEST_F(Attention, OffsetsOfTheKeysCostNoDigit) {
  Planted planted = plant({24, 24, 4, 3}, 3, 1.0, 2, 12);
  const Eigen::RowVector3d offset(std::ldexp(1.0, 24), -std::ldexp(1.0, 20), 0);
  for (const bool is_causal : {false, true}) {
    std::vector<AttentionSequence> moved;
    for (Whole whole : planted.sequences) {
      whole.keys = (whole.keys * 0x1p20).array().round() * 0x1p-20;
      const Table table = is_causal ? causal_table(24, 24) : Table::Ones(24, 24);
      whole.target = masked_softmax(whole, planted.unknowns.X, table);
      whole.keys.rowwise() += offset;
      moved.push_back(distributed(comm_, whole, reference::Layout::random));
      if (is_causal) moved.back().mask = AttentionMask{};
    }
    for (const auto loss : {"softmax", "cross-entropy"}) {
      AttentionOptions options;
      options.loss = loss;
      options.newton.relative_tolerance = 1e-12;
      const auto result = solve_attention(comm_, moved, options);
      EXPECT_EQ(Termination::converged, result.summary.termination) << loss << is_causal;
      EXPECT_LE((result.unknowns.X - planted.unknowns.X).norm(), 1e-10 * planted.unknowns.X.norm());
    }
  }
}

TEST_F(Attention, ZerosThatAreNoPattern) {
  const Whole good = plant({12, 9, 4, 3}, 2, 1.0, 1, 3).sequences[0];
  const auto warning = [&](const Whole& whole) {
    return missing_mask(comm_, {distributed(comm_, whole, reference::Layout::even)});
  };
  EXPECT_EQ(warning(good), "");
  Whole one_hot = good;
  one_hot.target.setZero();
  EXPECT_EQ(warning(one_hot), "");
  for (Index i = 0; i < 12; ++i) one_hot.target(i, (5 * i) % 7) = 1;
  EXPECT_EQ(warning(one_hot), "");
  Whole padded = good;
  padded.target.col(2).setZero();
  EXPECT_THAT(warning(padded), HasSubstr("1 of 9 keys, the first is key 2"));
}

TEST_F(Attention, MasksThatCannotBeAreRefused) {
  const Planted planted = plant({12, 9, 4, 3}, 2, 1.0, 2, 3);
  const auto message = [&](const AttentionMask& mask) {
    auto all = sequences(planted, reference::Layout::even);
    all[1].mask = mask;
    return refusal([&] { check_sequences(comm_, all, "softmax"); });
  };
  EXPECT_THAT(message({}), HasSubstr("sequence 1: a causal mask needs as many keys as queries"));
  EXPECT_THAT(message({Table(13, 9)}), HasSubstr("the mask is 13 x 9 on this rank"));
  Table table = Table::Ones(12, 9);
  table.row(7).setZero();
  const auto partition = sequences(planted, reference::Layout::even)[1].partition;
  EXPECT_THAT(message(mask_of(table, partition, comm_.rank())), HasSubstr("query 7 (counted from 0) sees no key"));
}

/// The definitions, from the attention of the keys that are seen.
TEST(MaskedApply, IsTheDefinitionOnAnyNumberOfRanks) {
  using Kind = AttentionKernel::Kind;
  const Communicator world(MPI_COMM_WORLD);
  const Index n1 = 131, n2 = 300;
  RowMajorMatrix Q = reference::random_matrix(n1, 5, 1), K = reference::random_matrix(n2, 5, 2);
  const RowMajorMatrix V = reference::random_matrix(n2, 3, 3);
  K.bottomRows(2).setConstant(1.7e308);  // seen by none: their logits overflow
  for (const auto layout : reference::layouts) {
    const auto queries = reference::distribute(world, Q, layout);
    const auto keys = reference::distribute(world, K, reference::Layout::random);
    const auto values = reference::distribute(world, V, reference::Layout::even);
    const auto first = static_cast<Index>(queries.first_row());
    const Table table = random_table(n1, n2, 9);
    const AttentionMask mask = mask_of(table, queries.partition(), world.rank());
    for (const AttentionKernel& kernel :
         {AttentionKernel{Kind::softmax, 1, 0.5}, AttentionKernel{Kind::polynomial, 4, 1.0}}) {
      const auto found = apply_attention(queries, keys, values, kernel, &mask);
      const double tau = -0.2;
      const auto threshold = threshold_attention(queries, keys, values, {.tau = tau, .scale = 0.5}, &mask);
      const auto exact = threshold_attention(queries, keys, values, {.tau = -1e300, .scale = 0.5}, &mask);
      const auto kept =
          threshold_attention(queries, keys, values, {.tau = tau, .scale = 0.5, .keep_entries = true}, &mask);
      EXPECT_EQ(kept.marked, threshold.marked);
      EXPECT_EQ(kept.visible, threshold.visible);
      EXPECT_LE((kept.output - threshold.output).norm(), 1e-11);
      double worst = 0, worst_threshold = 0, worst_exact = 0;
      for (Index i = 0; i < queries.rows_local(); ++i) {
        VectorXd weights = VectorXd::Zero(n2), marked = weights, rest = weights;
        for (Index j = 0; j < n2; ++j) {
          if (table(first + i, j) == 0) continue;
          const double z = Q.row(first + i).dot(K.row(j));
          weights[j] = kernel.kind == Kind::softmax ? std::exp(0.5 * z) : std::pow(z, 4);
          (0.5 * z >= tau ? marked : rest)[j] = std::exp(0.5 * z);
        }
        const auto mean_of = [&](const VectorXd& of) { return Eigen::RowVectorXd(of.transpose() * V / of.sum()); };
        worst = std::max(worst, (found.output.row(i) - mean_of(weights)).norm());
        const auto others = static_cast<double>((rest.array() > 0).count());
        const double background = others > 0 ? rest.sum() / others : 0;
        const VectorXd merged = (rest.array() > 0).select(VectorXd::Constant(n2, background), marked);
        worst_threshold = std::max(worst_threshold, (threshold.output.row(i) - mean_of(merged)).norm());
        worst_exact = std::max(worst_exact, (exact.output.row(i) - mean_of(marked + rest)).norm());
        EXPECT_EQ(threshold.visible[static_cast<std::size_t>(i)], table.row(first + i).cast<int>().sum());
        EXPECT_EQ(threshold.marked[static_cast<std::size_t>(i)], (marked.array() > 0).count());
      }
      EXPECT_LE(worst, 1e-12);  // as test_attention_kernel.cpp
      EXPECT_LE(worst_threshold, 1e-12);
      EXPECT_LE(worst_exact, 1e-12);
    }
  }
  const auto queries = reference::distribute(world, K, reference::Layout::random);
  const auto keys = reference::distribute(world, Q, reference::Layout::random);
  const AttentionMask causal;
  EXPECT_THAT(refusal([&] { apply_attention(queries, keys, keys, {}, &causal); }),
              HasSubstr("a causal mask needs as many keys as queries"));
}

}  // namespace attnreg::test_masked_attention
