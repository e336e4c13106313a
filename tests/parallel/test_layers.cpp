// Layers: passes against finite differences, and X and Y of planted outputs recovered.

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "heads/layer_passes.hpp"
#include "support/attention_problems.hpp"
#include "support/refusal.hpp"

namespace attnreg::test_layers {

using namespace attention_problems;
using reference::Layout;

constexpr Shape kShape{48, 48, 6, 5, 4, 4};
constexpr double kFound = 1e-7;  // what is exact has 1e-10 of B, which X and Y multiply by their condition

/// The layer as a transformer has it, keys being values too.
Planted plant_layer(int sequences, std::uint64_t seed, const Shape& shape = kShape, Index rank = 2) {
  Planted planted = plant(shape, rank, 1.5, sequences, seed);
  planted.unknowns.Y = reference::random_matrix(shape.d2, shape.dv, seed + 2);
  for (auto& whole : planted.sequences) {
    whole.values = whole.keys;
    whole.target =
        softmax_rows(whole.queries * planted.unknowns.X * whole.keys.transpose()) * whole.keys * planted.unknowns.Y;
  }
  return planted;
}

double error_of(const RowMajorMatrix& found, const RowMajorMatrix& planted) {
  return (found - planted).norm() / planted.norm();
}

class Layers : public Attention {};

/// Passes over planted outputs with noise, in the metrics of their inputs.
class LayerOf {
 public:
  LayerOf(const Communicator& comm, std::vector<AttentionSequence> sequences)
      : sequences_(std::move(sequences)),
        inputs(comm, sequences_, {}),
        values(value_metric(inputs, sequences_)),
        passes(inputs, sequences_, inputs.query_metric(), inputs.key_metric(), values) {}

 private:
  std::vector<AttentionSequence> sequences_;

 public:
  HeadInputs inputs;
  Whitening values;
  LayerPasses passes;
};

HeadFactors some_factors(const LayerPasses& passes, Index rank) {
  HeadFactors u = passes.factors(rank);
  u.numbers() = 3 * flat(reference::random_matrix(u.size(), 1, 77));
  return u;
}

TEST_F(Layers, GradientsAreDerivativesOfTheValue) {
  for (const bool causal : {false, true})
    for (const Index rank : {Index{0}, Index{2}})
      for (const bool held : {false, true}) {
        auto all = sequences(plant_layer(3, 5));
        for (auto& sequence : all) {
          sequence.target.array() += 0.1;  // so that there is something left
          if (causal) sequence.mask.emplace();
        }
        LayerOf layer(comm_, std::move(all));
        LayerPasses& passes = layer.passes;
        passes.set_ridges({0.01, 0.02});
        if (held) passes.hold(MatrixXd(reference::random_matrix(passes.value_dimension(), passes.columns(), 8)));
        const HeadFactors u = some_factors(passes, rank);
        const LayerPoint point = passes.linearise(u);
        for (Index k = 0; k < u.size(); k += 3) {
          constexpr double kStep = 1e-4;  // central differences: an error of kStep^2, and of eps / kStep
          const VectorXd e = kStep * VectorXd::Unit(u.size(), k);
          const double slope =
              (passes.linearise(u.with(u.numbers() + e)).value - passes.linearise(u.with(u.numbers() - e)).value) /
              (2 * kStep);
          EXPECT_NEAR(point.gradient[k], slope, 1e-6 * point.gradient.norm()) << causal << rank << held;
        }
      }
}

TEST_F(Layers, ProductsAreTheHessianWhereOutputsAreReproduced) {
  for (const Index rank : {Index{0}, Index{2}})
    for (const bool held : {false, true}) {
      const Planted planted = plant_layer(3, 6);
      LayerOf layer(comm_, sequences(planted));
      LayerPasses& passes = layer.passes;
      if (held) {
        MatrixXd Y = layer.values.coordinates(planted.unknowns.Y);
        passes.hold(Y);
      }
      const MatrixXd X = planted.unknowns.X;
      HeadFactors u = passes.coordinates({X, {}});
      if (rank > 0) {
        const ThinSvd svd = thin_svd(X);
        u = passes.coordinates({svd.U.leftCols(2) * svd.values.head(2).asDiagonal(), svd.V.leftCols(2)});
      }
      const LayerPoint point = passes.linearise(u);
      EXPECT_LE(point.misfit, 1e-20 * passes.target_square());
      const VectorXd p = flat(reference::random_matrix(u.size(), 1, 78));
      constexpr double kStep = 1e-5;
      const VectorXd change = (passes.linearise(u.with(u.numbers() + kStep * p)).gradient -
                               passes.linearise(u.with(u.numbers() - kStep * p)).gradient) /
                              (2 * kStep);
      const VectorXd product = passes.product(u, point, p);
      EXPECT_LE((product - change).norm(), 1e-5 * change.norm()) << rank << held;
    }
}

TEST_F(Layers, PlantedOnesAreFound) {
  const Planted planted = plant_layer(6, 3);  // by the second start
  const LayerResult layer = recover_layer(comm_, sequences(planted), {});
  EXPECT_TRUE(layer.is_exact);
  EXPECT_LE(error_of(layer.unknowns.X, planted.unknowns.X), kFound);
  EXPECT_LE(error_of(layer.unknowns.Y, planted.unknowns.Y), kFound);
  EXPECT_EQ(layer.rank, 0);
  EXPECT_EQ(layer.sequences_held_out, 0);
  EXPECT_TRUE(layer.warnings.empty());
  EXPECT_EQ(layer.best, static_cast<int>(layer.ends.size()) - 1);
  EXPECT_GT(layer.best, 0);
}

TEST_F(Layers, FactorsAreFoundWithHoldOut) {
  const Planted planted = plant_layer(9, 2, {48, 48, 10, 9, 9, 6}, 3);
  LayerOptions options;
  options.rank = 3;
  const LayerResult layer = recover_layer(comm_, sequences(planted), options);
  EXPECT_EQ(layer.sequences_held_out, 1);
  EXPECT_TRUE(layer.is_exact);
  EXPECT_LE(error_of(layer.unknowns.X, planted.unknowns.X), kFound);
  EXPECT_LE((layer.P * layer.Q.transpose() - layer.unknowns.X).norm(), 1e-14 * layer.unknowns.X.norm());
  EXPECT_TRUE(layer.warnings.empty());
}

TEST_F(Layers, KnownValuesNeedOneStart) {
  const Planted planted = plant_layer(4, 3);
  LayerOptions options;
  options.Y = planted.unknowns.Y;
  options.starts = 1;
  for (const Index rank : {0, 2}) {
    options.rank = rank;
    const LayerResult layer = recover_layer(comm_, sequences(planted, Layout::all_on_last), options);
    EXPECT_TRUE(layer.is_exact) << rank;
    EXPECT_LE(error_of(layer.unknowns.X, planted.unknowns.X), kFound) << rank;
    EXPECT_EQ(layer.unknowns.Y, planted.unknowns.Y);
  }
}

TEST_F(Layers, MasksArePartOfTheLayer) {
  Planted planted = plant_layer(5, 4);
  const Table table = causal_table(48, 48);
  for (auto& whole : planted.sequences)
    whole.target = masked_softmax(whole, planted.unknowns.X, table) * *whole.values * planted.unknowns.Y;
  auto all = sequences(planted);
  for (auto& sequence : all) sequence.mask.emplace();
  LayerOptions options;
  options.Y = planted.unknowns.Y;
  const LayerResult layer = recover_layer(comm_, all, options);
  EXPECT_TRUE(layer.is_exact);
  EXPECT_LE(error_of(layer.unknowns.X, planted.unknowns.X), kFound);
}

TEST_F(Layers, OutputsThatDetermineNothingAreNotClaimed) {
  const auto says = [](const LayerResult& layer, const std::string& text) {
    for (const auto& warning : layer.warnings)
      if (warning.find(text) != warning.npos) return true;
    return false;
  };
  LayerOptions options;
  options.starts = 1;
  const LayerResult few = recover_layer(comm_, sequences(plant_layer(1, 7, {10, 10, 6, 6, 6, 2})), options);
  EXPECT_TRUE(says(few, "20 numbers for 48 unknowns"));
  options.dense_limit = 35;                               // of 36 numbers of X
  Planted noise = plant_layer(8, 8, {4, 4, 6, 6, 6, 2});  // 56 numbers without the last sequence, 48 unknowns
  for (std::size_t k = 0; k < noise.sequences.size(); ++k)
    noise.sequences[k].target = reference::random_matrix(4, 2, 900 + k);
  const LayerResult fitted = recover_layer(comm_, sequences(noise), options);
  EXPECT_FALSE(fitted.is_exact);
  EXPECT_EQ(fitted.sequences_held_out, 1);
  EXPECT_EQ(fitted.P.cols(), 2);
  EXPECT_EQ(fitted.notes.at(0), "rank 2: as many as B has columns, as in a head");
  EXPECT_TRUE(says(fitted, "fits, but does not predict"));
}

TEST_F(Layers, BadArgumentsAreRefused) {
  const auto all = sequences(plant_layer(2, 9));
  const auto refused = [&](const LayerOptions& options) {
    return refusal([&] { recover_layer(comm_, all, options); });
  };
  LayerOptions options;
  options.rank = 6;
  EXPECT_NE(refused(options).find("expected 0 to min(d1, d2) = 5"), std::string::npos);
  options = {};
  options.starts = -1;
  EXPECT_NE(refused(options).find("must be >= 0"), std::string::npos);
  options = {};
  options.Y = RowMajorMatrix::Zero(3, 4);
  EXPECT_NE(refused(options).find("Y is 3 x 4, expected 5 x 4"), std::string::npos);
  EXPECT_NE(refusal([&] {
              recover_layer(comm_, sequences(plant({20, 20, 4, 4}, 2, 1, 1, 1)), {});
            }).find("values"),
            std::string::npos);
}

}  // namespace attnreg::test_layers
