// Keys of attention heads: chosen, and their errors, against the definitions.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "sparsify/key_choice.hpp"
#include "sparsify/key_elimination.hpp"
#include "sparsify/key_errors.hpp"
#include "support/reference.hpp"
#include "support/refusal.hpp"

namespace attnreg::test_tokens {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::Layout;
using reference::Matrix;
using testing::HasSubstr;

constexpr double kScale = 0.5;
constexpr KeyMethod all_methods[] = {KeyMethod::halving,  KeyMethod::output, KeyMethod::mixed,
                                     KeyMethod::leverage, KeyMethod::norm,   KeyMethod::values,
                                     KeyMethod::uniform,  KeyMethod::recent, KeyMethod::topk};

/// A head whose keys lie in clusters, so that few of them can stand for all.
struct Head {
  RowMajorMatrix Q, K, V;
};
Head clustered(Index queries, Index keys, Index clusters) {
  Head head{reference::random_matrix(queries, 6, 1), reference::random_matrix(keys, 6, 2),
            reference::random_matrix(keys, 3, 3)};
  const RowMajorMatrix centres = 2 * reference::random_matrix(clusters, 6, 4),
                       values = 2 * reference::random_matrix(clusters, 3, 5);
  for (Index j = 0; j < keys; ++j) {
    head.K.row(j) = centres.row(j % clusters) + 0.1 * head.K.row(j);
    head.V.row(j) = values.row(j % clusters) + 0.1 * head.V.row(j);
  }
  return head;
}

/// Softmax of the rows, in long double; causal: of the keys up to i + n_k - n_q.
Matrix probabilities(const Head& head, bool causal) {
  Matrix Z = static_cast<long double>(kScale) * head.Q.cast<long double>() * head.K.cast<long double>().transpose();
  for (Index i = 0; causal && i < Z.rows(); ++i)
    for (Index j = i + Z.cols() - Z.rows() + 1; j < Z.cols(); ++j)
      Z(i, j) = -std::numeric_limits<long double>::infinity();
  const Matrix G = (Z.colwise() - Z.rowwise().maxCoeff()).array().exp();
  return G.rowwise().sum().cwiseInverse().asDiagonal() * G;
}

/// Rows that begin at multiples of 128 on each rank, as those of dense files do; or any.
RowMatrix distributed(const Communicator& communicator, const RowMajorMatrix& rows, Layout layout) {
  if (layout != Layout::tiled) return reference::distribute(communicator, rows, layout);
  const auto partition = RowPartition::in_blocks(rows.rows(), kTokenQueries, communicator.size());
  const int rank = communicator.rank();
  return {communicator, partition,
          RowMajorMatrix(rows.middleRows(static_cast<Index>(partition.begin(rank)), partition.rows_local(rank)))};
}

struct Distributed {
  Distributed(const Communicator& communicator, const Head& head, Layout layout, const AttentionMask* mask)
      : Q(distributed(communicator, head.Q, layout)),
        K(reference::distribute(communicator, head.K, Layout::random)),
        V(reference::distribute(communicator, head.V, Layout::even)),
        attention(Q, K, V, kScale, mask) {}
  RowMatrix Q, K, V;
  TokenAttention attention;
};

TEST(TokenAttention, SumsAreTheirDefinitions) {
  const Communicator world(MPI_COMM_WORLD);
  const Head head = clustered(200, 300, 7);
  const AttentionMask causal;
  for (const AttentionMask* mask : {static_cast<const AttentionMask*>(nullptr), &causal})
    for (const Layout layout : reference::layouts) {
      const Distributed on(world, head, layout, mask);
      const Matrix P = probabilities(head, mask != nullptr),
                   V = head.V.cast<long double>() * static_cast<long double>(on.attention.value_scale()), O = P * V;
      const KeySums sums = on.attention.key_sums();
      long double spread = 0, worst = 0;
      const long double size = O.norm();
      for (Index j = 0; j < 300; ++j) {
        const reference::Vector distances = (O.rowwise() - V.row(j)).rowwise().squaredNorm();
        spread += P.col(j).dot(distances) / 200;
        const long double output = P.col(j).cwiseAbs2().dot(distances);
        worst = std::max({worst, std::abs(sums.mass[j] - P.col(j).sum()),
                          std::abs(sums.squares[j] - P.col(j).squaredNorm()), std::abs(sums.output[j] - output)});
      }
      EXPECT_LE(static_cast<double>(worst), 1e-12);
      EXPECT_NEAR(on.attention.spread(), static_cast<double>(spread), 1e-12);
      EXPECT_NEAR(on.attention.size(), static_cast<double>(size), 1e-12 * static_cast<double>(size));
      // Features of three chunks, all pairs: the sum of x_j over all keys has no part in the outputs.
      std::vector<Index> list{299, 4, 17};
      for (Index j = 20; j < 300; ++j) list.push_back(j - 1);
      const auto grams = on.attention.feature_grams(list, true);
      EXPECT_EQ(grams.size(), 3U);  // 283 keys: chunks of 256 and 27
      const auto diagonal = on.attention.feature_grams(list, false);
      EXPECT_EQ(diagonal.size(), 2U);
      const auto expected = [&](std::size_t a, std::size_t b) {
        long double sum = 0;
        for (Index i = 0; i < 200; ++i)
          sum += P(i, list[a]) * P(i, list[b]) * ((V.row(list[a]) - O.row(i)).dot(V.row(list[b]) - O.row(i)) + spread);
        return static_cast<double>(sum);
      };
      EXPECT_NEAR(grams[0](1, 2), expected(1, 2), 1e-12);
      EXPECT_NEAR(grams[0](2, 1), expected(1, 2), 1e-12);
      EXPECT_NEAR(grams[1](5, 100), expected(261, 100), 1e-12);
      EXPECT_NEAR(grams[2](3, 9), expected(259, 265), 1e-12);
      EXPECT_NEAR(diagonal[1](9, 3), expected(259, 265), 1e-12);
    }
}

TEST(ChunkElimination, TakesTheStepThatChangesTheSumLeast) {
  const Index m = 9;
  const MatrixXd X = reference::random_matrix(5, m, 3), G = X.transpose() * X;
  VectorXd floors = VectorXd::Zero(m);
  floors[2] = 1;
  ChunkElimination chunk(G, VectorXd::Ones(m), floors);
  VectorXd weights = VectorXd::Ones(m), before = X * weights;
  double square = 0;
  for (Index left = m; left > 3; --left) {
    double least = std::numeric_limits<double>::infinity();
    for (Index a = 0; a < m; ++a)
      for (Index b = 0; b < m; ++b) {
        if (a == b || weights[a] == 0 || weights[b] == 0 || a == 2) continue;
        const VectorXd f = X * weights - before - weights[a] * X.col(a);
        const double growth = std::max(-f.dot(X.col(b)) / X.col(b).squaredNorm(), floors[b] - weights[b]);
        least = std::min(least, (f + growth * X.col(b)).squaredNorm());
      }
    EXPECT_NEAR(square + chunk.next_cost(), least, 1e-12);
    chunk.step();
    weights = chunk.weights();
    square = (X * weights - before).squaredNorm();
    EXPECT_NEAR(square, least, 1e-12);
    EXPECT_EQ((weights.array() > 0).count(), left - 1);
    EXPECT_GE(weights[2], 1);
  }
}

TEST(ChunkElimination, WeightsThatAreFittedAreAMinimum) {
  const Index m = 12;
  const MatrixXd X = reference::random_matrix(30, m, 3), G = X.transpose() * X;
  const VectorXd t = reference::random_vector(30, 4), target = X.transpose() * t;
  VectorXd floors = VectorXd::Zero(m);
  floors[0] = 1;
  const VectorXd start = VectorXd::Ones(m), w = fitted_weights(G, target, start, floors);
  const VectorXd gradient = G * w - target + 1e-3 * G.diagonal().cwiseProduct(w - start);
  for (Index j = 0; j < m; ++j) {
    EXPECT_GE(w[j], floors[j]);
    EXPECT_GE(gradient[j], -1e-3);
    EXPECT_LE(w[j] > floors[j] ? gradient[j] : 0, 1e-3);
  }
}

TEST(KeyChoice, TheSameKeysOnAnyNumberOfRanks) {
  const Communicator world(MPI_COMM_WORLD), self(MPI_COMM_SELF);
  const Head head = clustered(300, 400, 9);
  const AttentionMask causal;
  for (const AttentionMask* mask : {static_cast<const AttentionMask*>(nullptr), &causal}) {
    const Distributed alone(self, head, Layout::tiled, mask), on(world, head, Layout::tiled, mask);
    const KeySums one = alone.attention.key_sums(), all = on.attention.key_sums();
    EXPECT_EQ(one.mass, all.mass);
    EXPECT_EQ(one.output, all.output);
    for (const KeyMethod method : all_methods) {
      const KeyOptions options{.method = method, .keep = 40, .first = 2, .last = 3, .seed = 5};
      const KeptKeys expected = choose_keys(alone.attention, alone.K, one, options),
                     found = choose_keys(on.attention, on.K, all, options);
      EXPECT_EQ(found.keys, expected.keys) << static_cast<int>(method);
      EXPECT_LE((found.weights - expected.weights).cwiseAbs().maxCoeff(), 1e-12);
      EXPECT_TRUE(std::ranges::is_sorted(found.keys));
      EXPECT_TRUE((found.weights.array() > 0).all());
      const bool is_drawn = method != KeyMethod::halving && method < KeyMethod::recent;
      // The number of Poisson draws has a variance of at most 40: 26 is 4 standard deviations.
      EXPECT_NEAR(static_cast<double>(found.keys.size()), 40, is_drawn ? 26 : 0);
      for (const Index forced : {0, 1, 397, 398, 399}) {
        const auto at = std::ranges::find(found.keys, forced);
        EXPECT_NE(at, found.keys.end());
        if (at == found.keys.end()) continue;
        EXPECT_GE(found.weights[at - found.keys.begin()], 1);
      }
    }
  }
}

TEST(KeyChoice, HalvingFindsTwins) {
  // Each key has a twin in its chunk: half of them, with weights 2, are the same head.
  const Communicator world(MPI_COMM_WORLD);
  Head head{reference::random_matrix(150, 6, 1), reference::random_matrix(400, 6, 2),
            reference::random_matrix(400, 3, 3)};
  for (Index j = 0; j < 400; j += 2) {
    head.K.row(j + 1) = head.K.row(j);
    head.V.row(j + 1) = head.V.row(j);
  }
  const Distributed on(world, head, Layout::even, nullptr);
  const KeySums sums = on.attention.key_sums();
  const KeyOptions options{.keep = 200};
  const KeptKeys kept = choose_keys(on.attention, on.K, sums, options);
  std::set<Index> pairs;
  for (const Index key : kept.keys) pairs.insert(key / 2);
  EXPECT_EQ(pairs.size(), 200U);
  EXPECT_LE((kept.weights.array() - 2).abs().maxCoeff(), 1e-6);
  EXPECT_LE(key_errors(on.attention, sums, kept, options)[0].output, 1e-7);
}

TEST(KeyChoice, HalvingIsFarBetterThanDraws) {
  const Communicator world(MPI_COMM_WORLD);
  const Head head = clustered(300, 700, 11);
  const Distributed on(world, head, Layout::tiled, nullptr);
  const KeySums sums = on.attention.key_sums();
  const KeyOptions options{.keep = 35};
  const auto errors = key_errors(on.attention, sums, choose_keys(on.attention, on.K, sums, options), options);
  EXPECT_EQ(errors.size(), 7U);
  for (std::size_t k = 1; k < errors.size(); ++k) EXPECT_LT(5 * errors[0].output, errors[k].output) << errors[k].name;
  EXPECT_GT(errors[1].output, 0.5);  // the mean of the values: what makes sense of the others
}

TEST(KeyChoice, OneKeyAllKeysAndRefusals) {
  const Communicator world(MPI_COMM_WORLD);
  const Head head = clustered(20, 30, 3);
  const Distributed on(world, head, Layout::all_on_last, nullptr);
  const KeySums sums = on.attention.key_sums();
  const auto choose = [&](const KeyOptions& options) { return choose_keys(on.attention, on.K, sums, options); };
  for (const KeyMethod method : all_methods) {
    const KeyOptions all{.method = method, .keep = 30};
    const auto errors = key_errors(on.attention, sums, choose(all), all);
    if (method != KeyMethod::recent && method != KeyMethod::topk && method != KeyMethod::halving) continue;
    EXPECT_LE(errors[0].output, 1e-13) << static_cast<int>(method);
  }
  EXPECT_EQ(choose({.keep = 1}).keys.size(), 1U);
  EXPECT_EQ(choose({.keep = 5, .first = 5}).keys, (std::vector<Index>{0, 1, 2, 3, 4}));
  EXPECT_THAT(refusal([&] { choose({.keep = 0}); }), HasSubstr("0 keys"));
  EXPECT_THAT(refusal([&] { choose({.keep = 4, .first = 3, .last = 2}); }), HasSubstr("more than the 4"));
  const Head single = clustered(1, 1, 1);
  const Distributed one(world, single, Layout::even, nullptr);
  const KeySums its = one.attention.key_sums();
  const KeptKeys kept = choose_keys(one.attention, one.K, its, {});
  EXPECT_EQ(kept.keys.size(), 1U);
  EXPECT_LE(key_errors(one.attention, its, kept, {})[0].output, 1e-15);
}

TEST(KeyErrors, AreTheirDefinitions) {
  const Communicator world(MPI_COMM_WORLD);
  const Head head = clustered(150, 200, 8);
  const AttentionMask causal;
  for (const AttentionMask* mask : {static_cast<const AttentionMask*>(nullptr), &causal}) {
    const Distributed on(world, head, Layout::random, mask);
    const KeySums sums = on.attention.key_sums();
    const KeyOptions options{.method = KeyMethod::mixed, .keep = 50};
    KeptKeys kept = choose_keys(on.attention, on.K, sums, options);
    if (mask != nullptr) {  // the first 20 queries see none of them
      kept.keys = {70, 75, 80};
      kept.weights = Eigen::Vector3d(1, 2, 3);
    }
    const Matrix P = probabilities(head, mask != nullptr),
                 V = head.V.cast<long double>() * static_cast<long double>(on.attention.value_scale()), O = P * V;
    Matrix of_kept = Matrix::Zero(150, 200), of_mean = (P.array() > 0).cast<long double>();
    for (std::size_t k = 0; k < kept.keys.size(); ++k)
      of_kept.col(kept.keys[k]) = kept.weights[static_cast<Index>(k)] * P.col(kept.keys[k]);
    const auto error = [&](const Matrix& G) {
      Matrix change = -O;
      for (Index i = 0; i < 150; ++i)
        if (G.row(i).sum() > 0) change.row(i) += G.row(i) / G.row(i).sum() * V;
      return KeyError{"", 0, static_cast<double>(change.norm() / O.norm()),
                      static_cast<double>(change.rowwise().norm().maxCoeff() / O.norm() * std::sqrt(150.0L))};
    };
    const auto found = key_errors(on.attention, sums, kept, options);
    const KeyError expected[] = {error(of_kept), error(of_mean)};
    for (std::size_t k = 0; k < 2; ++k) {
      EXPECT_NEAR(found[k].output, expected[k].output, 1e-12);
      EXPECT_NEAR(found[k].worst, expected[k].worst, 1e-12);
    }
    EXPECT_EQ(found[0].blind, mask != nullptr ? 20 : 0);
    EXPECT_EQ(found[0].keys, static_cast<double>(kept.keys.size()));
  }
}

TEST(KeyErrors, BaselinesBecomeExactWithManyDraws) {
  // Of 40 keys 4000 draws, a relative standard deviation of a weight of about 1/10 for p_j near 1/40; the errors of a
  // sum over 40 keys are near 0.02. HyperAttention's blocks hold all keys.
  const Communicator world(MPI_COMM_WORLD);
  const Head head = clustered(60, 40, 8);
  const Distributed on(world, head, Layout::even, nullptr);
  const KeySums sums = on.attention.key_sums();
  const auto errors = key_errors(on.attention, sums, {{0}, VectorXd::Ones(1)}, {.keep = 4000});
  EXPECT_EQ(errors[5].name, "hyperattention");
  EXPECT_LE(errors[5].output, 1e-13);
  EXPECT_EQ(errors[6].name, "kdeformer");
  EXPECT_LE(errors[6].output, 0.1);
  EXPECT_GE(errors[6].output, 1e-4);
  // With blocks of a tenth of the keys, and few draws, it is still an estimate of the right thing.
  const auto few = key_errors(on.attention, sums, {{0}, VectorXd::Ones(1)}, {.keep = 20, .seed = 2});
  EXPECT_GT(few[5].output, 1e-3);
  EXPECT_LT(few[5].output, 5);
}

TEST(QueryBound, HoldsForQueriesThatWereNotThere) {
  // Small logits, where the bound says something; queries within the ball of those for which it was computed.
  const Communicator world(MPI_COMM_WORLD);
  Head head = clustered(100, 300, 8);
  head.Q *= 0.2;
  const Distributed on(world, head, Layout::even, nullptr);
  const KeySums sums = on.attention.key_sums();
  const KeyOptions options{.keep = 40};
  const KeptKeys kept = choose_keys(on.attention, on.K, sums, options);
  const QueryBound bound = query_bound(on.attention, kept);
  EXPECT_LE(key_errors(on.attention, sums, kept, options)[0].worst, bound.largest);
  EXPECT_LE(bound.median, bound.largest);
  EXPECT_LT(bound.median, 1);
  Head others = head;
  others.Q = 0.2 * reference::random_matrix(100, 6, 77);
  const Distributed fresh(world, others, Layout::even, nullptr);
  const auto error = key_errors(fresh.attention, sums, kept, options)[0];
  const QueryBound of_these = query_bound(fresh.attention, kept);
  EXPECT_LE(error.worst, of_these.largest);
  // All keys with weight 1: nothing but rounding.
  KeptKeys all{{}, VectorXd::Ones(300)};
  for (Index j = 0; j < 300; ++j) all.keys.push_back(j);
  EXPECT_LE(query_bound(on.attention, all).largest, 1e-6);
}

}  // namespace attnreg::test_tokens
