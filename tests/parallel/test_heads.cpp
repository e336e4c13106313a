// Heads recovered from planted attention: exact ones, masks, noise, many heads, what is refused, and how they predict.

#include <gtest/gtest.h>

#include <Eigen/SVD>
#include <cmath>
#include <numeric>
#include <string>

#include "files/source.hpp"
#include "ranks/activity.hpp"
#include "support/attention_problems.hpp"
#include "support/refusal.hpp"

namespace attnreg::test_heads {

using namespace attention_problems;
using reference::Layout;

constexpr Shape kShape{48, 48, 12, 10};
constexpr Index kRank = 3;

/// Relative error of the logits, centred over the keys: what X predicts of anything.
double error_of(const RowMajorMatrix& X, const Planted& planted) {
  return (X - planted.unknowns.X).norm() / planted.unknowns.X.norm();
}

class Heads : public Attention {
 protected:
  /// Whole sequences on the ranks.
  std::vector<AttentionSequence> dealt(const std::vector<Whole>& wholes) const {
    std::vector<std::pair<std::int64_t, std::int64_t>> shapes;
    for (const auto& whole : wholes) shapes.emplace_back(whole.queries.rows(), whole.keys.rows());
    const auto partitions = deal_sequences(shapes, comm_.size());
    std::vector<AttentionSequence> all;
    for (std::size_t k = 0; k < wholes.size(); ++k) {
      const auto first = static_cast<Index>(partitions[k].begin(comm_.rank()));
      const Index rows = partitions[k].rows_local(comm_.rank());
      all.push_back({partitions[k],
                     wholes[k].queries.middleRows(first, rows),
                     wholes[k].keys,
                     {},
                     wholes[k].target.middleRows(first, rows),
                     {}});
    }
    return all;
  }
  HeadResult recover(const std::vector<AttentionSequence>& sequences, const HeadOptions& options = {}) const {
    return recover_heads(comm_, sequences, {}, options).at(0);
  }
  static HeadOptions exact() {
    HeadOptions options;
    options.rounding = 0x1p-52;
    return options;
  }
};

TEST_F(Heads, ExactOnesAreFoundWithoutAStep) {
  const Planted planted = plant(kShape, kRank, 1.5, 6, 1);
  const HeadResult head = recover(dealt(planted.sequences), exact());
  EXPECT_EQ(head.rank, kRank);
  EXPECT_EQ(head.rank_source, RankSource::gap);
  EXPECT_GT(head.gap, 1e6);
  EXPECT_LE(head.error, 1e-11);
  EXPECT_LE(error_of(head.X, planted), 1e-10);
  EXPECT_LE((head.P * head.Q.transpose() - head.X).norm(), 1e-14 * head.X.norm());
  EXPECT_EQ(head.polish_steps, 0);
  EXPECT_TRUE(head.warnings.empty());
  EXPECT_NEAR(head.common, 1, 1e-10);
  EXPECT_LT(head.next_common, 0.99);
  EXPECT_TRUE(head.null_directions.empty());
  EXPECT_FALSE(head.has_query_constant);
}

TEST_F(Heads, RowsMayLieAnywhere) {
  const Planted planted = plant({40, 24, 6, 5}, 2, 1.5, 8, 3);
  HeadOptions options = exact();
  options.rank = 2;
  for (const auto layout : reference::layouts) {
    const HeadResult head = recover(sequences(planted, layout), options);
    EXPECT_LE(error_of(head.X, planted), 1e-8) << static_cast<int>(layout);
  }
}

TEST_F(Heads, SequencesMayDifferInLength) {
  Planted planted = plant(kShape, kRank, 1.5, 6, 5);
  for (std::size_t k = 0; k < planted.sequences.size(); ++k) {
    Whole& whole = planted.sequences[k];
    const Index n = 48 - 4 * static_cast<Index>(k), m = 30 + 3 * static_cast<Index>(k);
    whole.queries = whole.queries.topRows(n).eval();
    whole.keys = whole.keys.topRows(m).eval();
    whole.target = softmax_rows(whole.queries * planted.unknowns.X * whole.keys.transpose());
  }
  const HeadResult head = recover(dealt(planted.sequences), exact());
  EXPECT_EQ(head.rank, kRank);
  EXPECT_LE(error_of(head.X, planted), 1e-10);
}

TEST_F(Heads, CausalMasksAreSolvedOnTheirRectangles) {
  Planted planted = plant(kShape, kRank, 1.5, 8, 7);
  for (auto& whole : planted.sequences)
    for (Index j = 0; j < 48; ++j) {
      whole.target.row(j).tail(47 - j).setZero();
      whole.target.row(j) /= whole.target.row(j).sum();
    }
  auto all = dealt(planted.sequences);
  for (auto& sequence : all) sequence.mask.emplace();
  const HeadResult head = recover(all, exact());
  EXPECT_EQ(head.rank, kRank);
  EXPECT_EQ(head.rank_source, RankSource::gap);
  EXPECT_LE(head.error, 1e-9);
  EXPECT_LE(error_of(head.X, planted), 1e-8);
  EXPECT_EQ(head.zeros, 0);
  const HeadQuality quality = head_quality(comm_, all, head.X);
  EXPECT_LE(quality.all.error, 1e-9);
}

TEST_F(Heads, TheLargestOfEachRowAreEnough) {
  Planted planted = plant({40, 40, 6, 6}, 2, 1.5, 6, 9);
  std::vector<AttentionMask::Rows> masks;
  for (auto& whole : planted.sequences) {
    auto& mask = masks.emplace_back(40, 40);
    for (Index j = 0; j < 40; ++j) {
      VectorXd sorted = whole.target.row(j).transpose();
      std::sort(sorted.begin(), sorted.end());
      for (Index k = 0; k < 40; ++k) mask(j, k) = whole.target(j, k) >= sorted[20] ? 1 : 0;
      whole.target.row(j) = (mask.row(j).array() != 0).select(whole.target.row(j), 0.0);
      whole.target.row(j) /= whole.target.row(j).sum();
    }
  }
  auto all = dealt(planted.sequences);
  for (std::size_t k = 0; k < all.size(); ++k) {
    const auto first = static_cast<Index>(all[k].partition.begin(comm_.rank()));
    all[k].mask = AttentionMask{masks[k].middleRows(first, all[k].target.rows())};
  }
  HeadOptions options = exact();
  options.rank = 2;
  EXPECT_LE(error_of(recover(all, options).X, planted), 1e-6);
}

TEST_F(Heads, PaddingHasNoEffect) {
  Planted planted = plant(kShape, kRank, 1.5, 6, 11);
  for (auto& whole : planted.sequences) {
    whole.keys.bottomRows(8).setConstant(1e3);
    whole.target = RowMajorMatrix::Zero(48, 48);
    whole.target.topLeftCorner(40, 40) =
        softmax_rows(whole.queries.topRows(40) * planted.unknowns.X * whole.keys.topRows(40).transpose());
  }
  const HeadResult head = recover(dealt(planted.sequences), exact());
  EXPECT_LE(error_of(head.X, planted), 1e-10);
  EXPECT_EQ(head.zeros, 0);
}

TEST_F(Heads, NoiseIsAveraged) {
  Planted planted = plant(kShape, kRank, 1.5, 8, 13);
  std::uint64_t seed = 100;
  for (auto& whole : planted.sequences) {
    whole.target.array() *= (0.01 * reference::random_matrix(48, 48, seed++).array()).exp();
    for (Index j = 0; j < 48; ++j) whole.target.row(j) /= whole.target.row(j).sum();
  }
  const auto all = dealt(planted.sequences);
  for (const std::string loss : {"log-odds", "cross-entropy", "softmax"}) {
    HeadOptions options;
    options.loss = loss;
    const HeadResult head = recover(all, options);
    EXPECT_EQ(head.rank, kRank);
    EXPECT_LE(error_of(head.X, planted), 2e-3) << loss;  // 18432 numbers for 57 unknowns, noise 1e-2
    EXPECT_EQ(head.polish_steps > 0, loss != "log-odds");
    const std::string shown = loss == "log-odds" ? "Gauss-Newton step" : "polish, Gauss-Newton step";
    EXPECT_TRUE(own_activity().phase.starts_with(shown)) << own_activity().phase;
  }
}

TEST_F(Heads, TheRankLiesInFrontOfTheNoise) {
  // Of X = 6 u v^T + 0.3 (three more) the first value stands out most, by 20; noise of 0.2 is a factor of 5 below the
  // others. Rank 1 would leave them out.
  Planted planted = plant({64, 64, 12, 10}, 4, 1, 6, 41);
  const Eigen::JacobiSVD<MatrixXd> svd(planted.unknowns.X, Eigen::ComputeThinU | Eigen::ComputeThinV);
  planted.unknowns.X = svd.matrixU().leftCols(4) * Eigen::Vector4d(6, 0.3, 0.3, 0.3).asDiagonal() *
                       svd.matrixV().leftCols(4).transpose();
  std::uint64_t seed = 400;
  for (auto& whole : planted.sequences)
    whole.target = softmax_rows(whole.queries * planted.unknowns.X * whole.keys.transpose() +
                                0.2 * reference::random_matrix(64, 64, seed++));
  const HeadResult head = recover(dealt(planted.sequences));
  EXPECT_EQ(head.rank, 4);
  EXPECT_EQ(head.rank_source, RankSource::gap);
}

TEST_F(Heads, ClearRanksMayBeHigh) {
  // Of 24 keys 23 are known; 40 x 5 equations for the 20 numbers of a column.
  const Planted planted = plant({24, 24, 20, 20}, 19, 1.5, 40, 43);
  const HeadResult head = recover(dealt(planted.sequences), exact());
  EXPECT_EQ(head.rank, 19);
  EXPECT_EQ(head.rank_source, RankSource::gap);
  EXPECT_LE(error_of(head.X, planted), 1e-9);
}

TEST_F(Heads, UnderflowIsNoResolution) {
  // Logits of spread 14: some attention is below 1e-30, but what is above it is exact.
  const Planted planted = plant(kShape, kRank, 14, 8, 45);
  const HeadResult head = recover(dealt(planted.sequences), exact());
  EXPECT_GT(head.zeros, 0);
  EXPECT_EQ(head.resolution, 0);
  EXPECT_EQ(head.rank, kRank);
  EXPECT_LE(error_of(head.X, planted), 1e-9);
}

TEST_F(Heads, RankByHoldOut) {
  Planted planted = plant({48, 48, 24, 24}, 8, 1.5, 8, 15);
  std::uint64_t seed = 200;
  for (auto& whole : planted.sequences) {
    whole.target.array() += 2e-3 * reference::random_matrix(48, 48, seed++).array();
    whole.target = whole.target.cwiseMax(0);
  }
  const HeadResult head = recover(dealt(planted.sequences));
  EXPECT_EQ(head.rank_source, RankSource::hold_out);
  EXPECT_EQ(head.rank, 8);
  EXPECT_GT(head.zeros, 0);
  EXPECT_GT(head.resolution, 0);
  EXPECT_LE(error_of(head.X, planted), 0.3);
}

TEST_F(Heads, AnyX) {
  const Planted planted = plant({30, 30, 5, 4}, 4, 1.5, 4, 17);
  HeadOptions options = exact();
  options.rank = 0;
  const HeadResult head = recover(dealt(planted.sequences), options);
  EXPECT_EQ(head.rank, 0);
  EXPECT_EQ(head.P.size(), 0);
  EXPECT_LE(error_of(head.X, planted), 1e-4);
  options.weight = 1;
  const HeadResult damped = recover(dealt(planted.sequences), options);
  EXPECT_LT(damped.X.norm(), 0.5 * head.X.norm());
}

TEST_F(Heads, ManyAtOnceAreTheSameAsOneByOne) {
  const Planted first = plant(kShape, kRank, 1.5, 5, 21);
  std::vector<std::vector<AttentionMatrix>> heads;
  auto all = dealt(first.sequences);
  std::vector<RowMajorMatrix> Xs;
  for (const Index rank : {3, 3, 2}) {
    const Planted other = plant(kShape, rank, 1.5, 1, 21 + heads.size());
    Xs.push_back(other.unknowns.X);
    heads.emplace_back();
    for (const auto& sequence : all)
      heads.back().push_back(softmax_rows(sequence.queries * other.unknowns.X * sequence.keys.transpose()));
  }
  const auto found = recover_heads(comm_, all, heads, exact());
  EXPECT_TRUE(own_activity().phase.starts_with("head 3 of 3, ")) << own_activity().phase;
  ASSERT_EQ(found.size(), 3u);
  for (std::size_t h = 0; h < 3; ++h) {
    EXPECT_EQ(found[h].rank, h < 2 ? 3 : 2);
    EXPECT_LE((found[h].X - Xs[h]).norm(), 1e-10 * Xs[h].norm());
    for (std::size_t k = 0; k < all.size(); ++k) all[k].target = std::get<RowMajorMatrix>(heads[h][k]);
    EXPECT_LE((recover(all, exact()).X - found[h].X).norm(), 1e-10 * Xs[h].norm());
  }
}

TEST_F(Heads, WhatTheDataDoNotDetermineIsNamedAndLeftOut) {
  // A constant column, as a LayerNorm leaves one: keys have a gauge, and queries can have a bias.
  Planted planted = plant(kShape, kRank, 1.5, 6, 23);
  for (auto& whole : planted.sequences) {
    whole.queries.col(0).setOnes();
    whole.keys.col(0).setOnes();
    whole.target = softmax_rows(whole.queries * planted.unknowns.X * whole.keys.transpose());
  }
  const HeadResult head = recover(dealt(planted.sequences), exact());
  EXPECT_LE(head.error, 1e-10);
  EXPECT_EQ(head.null_directions.size(), 1u);
  EXPECT_TRUE(head.has_query_constant);
  EXPECT_LE(head.X.col(0).norm(), 1e-10 * head.X.norm());  // least norm
  EXPECT_LE((head.X - planted.unknowns.X).rightCols(9).norm(), 1e-9 * head.X.norm());
}

TEST_F(Heads, TooFewSequencesAreWarnedOf) {
  const Planted planted = plant({8, 8, 12, 10}, kRank, 1.5, 1, 25);
  HeadOptions options = exact();
  options.rank = kRank;
  const HeadResult head = recover(dealt(planted.sequences), options);
  ASSERT_FALSE(head.warnings.empty());
  EXPECT_NE(head.warnings[0].find("hardly determine X"), std::string::npos) << head.warnings[0];
  EXPECT_LT(head.equations, head.unknowns);
}

TEST_F(Heads, SplitsAreTheSameX) {
  const Planted planted = plant(kShape, kRank, 1.5, 6, 27);
  const auto all = dealt(planted.sequences);
  HeadOptions options = exact();
  const HeadResult even = recover(all, options);
  options.split = HeadSplit::orthogonal;
  const HeadResult orthogonal = recover(all, options);
  EXPECT_LE((orthogonal.X - even.X).norm(), 1e-12 * even.X.norm());
  EXPECT_LE((orthogonal.P * orthogonal.Q.transpose() - even.X).norm(), 1e-12 * even.X.norm());
  MatrixXd gram = MatrixXd::Zero(10, 10);
  for (const auto& whole : planted.sequences) {
    const MatrixXd K = whole.keys.rowwise() - whole.keys.colwise().mean();
    gram += K.transpose() * K;
  }
  EXPECT_LE((orthogonal.Q.transpose() * gram * orthogonal.Q - MatrixXd::Identity(3, 3)).norm(), 1e-10);
}

TEST_F(Heads, QualityIsThatOfTheFormulas) {
  const Planted planted = plant({6, 5, 3, 3}, 2, 1, 2, 29);
  const auto all = sequences(planted, Layout::even);
  const HeadQuality perfect = head_quality(comm_, all, planted.unknowns.X);
  EXPECT_LE(perfect.all.error, 1e-14);
  EXPECT_LE(perfect.all.total_variation, 1e-14);
  EXPECT_EQ(perfect.all.same_largest, 1);
  EXPECT_EQ(perfect.all.queries, 12);
  const HeadQuality none = head_quality(comm_, all, RowMajorMatrix::Zero(3, 3));
  EXPECT_NEAR(none.all.error, none.uniform.error, 1e-15);
  EXPECT_NEAR(none.all.divergence, none.uniform.divergence, 1e-15);
  EXPECT_NEAR(none.uniform.same_largest, 0.2, 1e-15);
  double variation = 0, square = 0, size = 0;
  for (const auto& whole : planted.sequences) {
    variation += 0.5 * (whole.target.array() - 0.2).abs().sum();
    square += (whole.target.array() - 0.2).square().sum();
    size += whole.target.squaredNorm();
  }
  EXPECT_NEAR(none.all.total_variation, variation / 12, 1e-15);
  EXPECT_NEAR(none.all.error, std::sqrt(square / size), 1e-14);
  EXPECT_EQ(none.sequences.size(), 2u);
  EXPECT_EQ(head_verdict(perfect, perfect), HeadVerdict::predicts);
  EXPECT_EQ(head_verdict(perfect, none), HeadVerdict::fits_only);
  EXPECT_EQ(head_verdict(none, none), HeadVerdict::neither);
}

TEST_F(Heads, WorkIsDealtInWholeSequences) {
  const auto partitions = deal_sequences({{100, 100}, {100, 100}, {2000, 50}, {0, 7}}, 3);
  ASSERT_EQ(partitions.size(), 4u);
  for (std::size_t k = 0; k < 4; ++k) {
    EXPECT_EQ(partitions[k].ranks(), 3);
    for (int rank = 0; rank <= 3; ++rank)
      EXPECT_TRUE(partitions[k].begin(rank) % 512 == 0 || partitions[k].begin(rank) == partitions[k].rows_global());
  }
  EXPECT_EQ(partitions[0].rows_global(), 100);
  EXPECT_EQ(partitions[2].rows_global(), 2000);
  EXPECT_EQ(partitions[2].rows_local(2), 2000 - 1024);
}

/// The example, examples/data/head-l2h5.
class RealHead : public Heads {
 protected:
  static RowMajorMatrix load(const std::string& name) {
    const Source header = open_source(ATTNREG_TEST_DATA "/../../examples/data/head-l2h5/" + name + ".npy");
    RowMajorMatrix matrix(header.shape[0], header.columns());
    read_rows(header, 0, header.shape[0], std::span(matrix.data(), static_cast<std::size_t>(matrix.size())));
    return matrix;
  }
  static std::vector<Whole> sequences(const std::string& part, int count) {
    std::vector<Whole> wholes;
    for (int k = 0; k < count; ++k) {
      const RowMajorMatrix x = load(part + "/x" + std::to_string(k));
      wholes.push_back({x, x, load(part + "/F" + std::to_string(k)), {}, {}});
    }
    return wholes;
  }
  /// What the weights make of the inputs as they are, in float. With these LayerNorm's x u = 1 holds to half precision
  /// only, so that the bias of the queries needs a column of its own.
  static void recompute(std::vector<Whole>& wholes) {
    const VectorXd bQ = load("bQ").col(0), bK = load("bK").col(0);
    for (auto& whole : wholes) {
      const RowMajorMatrix Q = (whole.keys * load("WQ")).rowwise() + bQ.transpose();
      const RowMajorMatrix K = (whole.keys * load("WK")).rowwise() + bK.transpose();
      whole.target = softmax_rows(Q * K.transpose() / std::sqrt(32)).cast<float>().cast<double>();
      whole.queries.conservativeResize(Eigen::NoChange, whole.queries.cols() + 1);
      whole.queries.rightCols(1).setOnes();
    }
  }
};

TEST_F(RealHead, IsFoundAndPredicts) {
  auto fitted = sequences("train", 6), held_out = sequences("test", 2);
  HeadOptions options;
  options.rounding = 0x1p-10;
  const HeadResult stored = recover(dealt(fitted), options);  // inputs and B in half precision
  EXPECT_EQ(stored.rank, 32);
  EXPECT_LE(head_quality(comm_, dealt(held_out), stored.X).all.error, 2e-3);

  recompute(fitted);
  recompute(held_out);
  const auto known = dealt(fitted), unknown = dealt(held_out);
  const HeadResult head = recover(known);
  EXPECT_EQ(head.rank, 32);
  EXPECT_EQ(head.steps + head.polish_steps, 0);
  EXPECT_EQ(head.reads, 2);
  EXPECT_TRUE(head.has_query_constant);
  const HeadQuality fit = head_quality(comm_, known, head.X), predicted = head_quality(comm_, unknown, head.X);
  EXPECT_LE(predicted.all.error, 2e-7);
  EXPECT_GT(predicted.uniform.error, 0.9);
  EXPECT_EQ(head_verdict(fit, predicted), HeadVerdict::predicts);
}

TEST_F(Heads, BadInputIsRefused) {
  const Planted planted = plant({8, 8, 3, 3}, 1, 1, 2, 31);
  auto all = dealt(planted.sequences);
  const auto refused = [&](const HeadOptions& options, const std::vector<std::vector<AttentionMatrix>>& heads = {}) {
    return refusal([&] { recover_heads(comm_, all, heads, options); });
  };
  HeadOptions options;
  options.loss = "exp";
  EXPECT_NE(refused(options).find("expected log-odds, cross-entropy or softmax"), std::string::npos);
  options = {};
  options.rank = 4;
  EXPECT_NE(refused(options).find("expected 0 to min(d1, d2) = 3"), std::string::npos);
  options = {};
  options.weight = -1;
  EXPECT_NE(refused(options).find("weight"), std::string::npos);
  options = {};
  options.rounding = 0;
  EXPECT_NE(refused(options).find("rounding"), std::string::npos);
  EXPECT_NE(refused({}, {{all[0].target}}).find("a target for each of the 2 sequences"), std::string::npos);
  EXPECT_NE(refused({}, {{all[0].target, RowMajorMatrix(all[1].target.rows(), 7)}}).find("expected"),
            std::string::npos);
  if (all[0].target.size() > 0) all[0].target(0, 0) = -0.1;
  EXPECT_NE(refused({}).find("negative"), std::string::npos);
  all = dealt(planted.sequences);
  for (auto& sequence : all) sequence.weights = RowMajorMatrix::Zero(sequence.target.rows(), 8);
  EXPECT_NE(refused({}).find("without values and weights"), std::string::npos);
  all = dealt(planted.sequences);
  for (auto& sequence : all) sequence.queries.setZero();
  EXPECT_NE(refused({}).find("nothing can be learnt"), std::string::npos);
}

TEST_F(Heads, OddData) {
  // One query, one key, one sequence: no crash, no NaN, and no claim.
  for (const Shape shape : {Shape{1, 5, 2, 2}, Shape{5, 1, 2, 2}, Shape{2, 2, 1, 1}, Shape{9, 9, 1, 3}}) {
    const Planted planted = plant(shape, 1, 1, 1, 33);
    const std::string refused = refusal([&] {
      const HeadResult head = recover(dealt(planted.sequences), {});
      EXPECT_TRUE(head.X.allFinite());
      EXPECT_LE(head.error, 1e-2);
    });
    EXPECT_TRUE(refused == "nothing thrown" || refused.find("nothing can be learnt") != std::string::npos) << refused;
  }
  Planted planted = plant(kShape, kRank, 1.5, 2, 35);  // each query on one key alone
  for (auto& whole : planted.sequences) whole.target = RowMajorMatrix::Identity(48, 48);
  EXPECT_TRUE(recover(dealt(planted.sequences), {}).X.allFinite());
}

}  // namespace attnreg::test_heads
