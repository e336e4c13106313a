// Graph networks by blocks of features, against the dense formulas.

#include "experiments/graph_network.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "support/reference.hpp"
#include "support/refusal.hpp"

namespace attnreg::test_graph_network {

using namespace experiments;
using reference::Holding;
using reference::Layout;
using testing::HasSubstr;

/// A graph with weights, loops at some nodes, and a node without neighbours.
RowMajorMatrix some_graph(Index n) {
  RowMajorMatrix G = reference::random_matrix(n, n, 11).cwiseAbs();
  G = (G.array() > 1.3).select((8 * G).array().round() / 8, 0.0).matrix().eval();
  G = (G + G.transpose()).eval();
  if (n > 4) G.row(4).setZero(), G.col(4).setZero();
  return G;
}

/// relu(S H W) layer by layer, S as it is written down.
RowMajorMatrix dense_inference(const RowMajorMatrix& G, const GraphNetwork& network, RowMajorMatrix H) {
  const Index n = G.rows();
  const MatrixXd loops = MatrixXd(G) + MatrixXd::Identity(n, n);
  const VectorXd root = loops.rowwise().sum().cwiseSqrt().cwiseInverse();
  for (const GraphLayer& layer : network.layers) {
    const MatrixXd Z = H * layer.W;
    MatrixXd S = root.asDiagonal() * loops * root.asDiagonal();
    if (layer.attention.size() > 0)
      for (Index i = 0; i < n; ++i) {
        for (Index j = 0; j < n; ++j) {
          const double logit = layer.attention.row(0).dot(Z.row(i)) + layer.attention.row(1).dot(Z.row(j));
          S(i, j) = loops(i, j) == 0 ? 0 : std::exp(logit < 0 ? network.slope * logit : logit);
        }
        S.row(i) /= S.row(i).sum();
      }
    H = S * Z;
    if (&layer != &network.layers.back() || !network.linear_end) H = H.cwiseMax(0);
  }
  return H;
}

/// This rank's rows.
RowMajorMatrix part(const Graph& graph, const RowMajorMatrix& all) {
  return all.middleRows(static_cast<Index>(graph.nodes.begin(graph.communicator.rank())), graph.nodes_local());
}

TEST(GraphNetwork, IsTheDefinitionInAnyOrderOnAnyNumberOfRanks) {
  const Communicator world(MPI_COMM_WORLD);
  for (const Index n : {1, 3, 150}) {
    const RowMajorMatrix G = some_graph(n), H = reference::random_matrix(n, 10, 12);
    for (const Layout layout : reference::layouts)
      for (const Holding holding : {Holding::float64, Holding::sparse64, Holding::sparse32}) {
        const Graph graph = graph_of(reference::distribute(world, G, layout, holding));
        EXPECT_EQ(graph.edges_global(), (G + RowMajorMatrix::Identity(n, n)).cwiseAbs().count());
        for (const bool attention : {false, true}) {
          GraphNetwork network = random_network(10, {7, 3}, attention, 1);
          network.linear_end = attention;
          const RowMajorMatrix expected = part(graph, dense_inference(G, network, H));
          for (const FeatureOrder& order :
               {FeatureOrder{}, FeatureOrder{.blocks = 4}, FeatureOrder{.blocks = 1000}, FeatureOrder{.messages = true},
                FeatureOrder{.tiles = true}, FeatureOrder{.blocks = 3, .tiles = true}}) {
            const GraphInference found = infer(graph, network, part(graph, H), order);
            // Sums of 150 x 10 terms of size 1, twice.
            const double error = expected.size() == 0 ? 0 : (found.features - expected).cwiseAbs().maxCoeff();
            EXPECT_LE(error, 1e-12) << n << " nodes, " << order.blocks << " blocks";
          }
        }
      }
  }
}

TEST(GraphNetwork, BlocksHoldLess) {
  const Communicator world(MPI_COMM_WORLD);
  const Graph graph = random_graph(world, 600, 8, 3);
  const RowMajorMatrix H = random_features(graph, 32, 3);
  const GraphNetwork network = random_network(32, {32, 4}, false, 3);
  const auto held = [&](const FeatureOrder& order) { return infer(graph, network, H, order).held_bytes; };
  const double plain = held({}), eighth = held({.blocks = 8}), messages = held({.messages = true});
  const auto nodes = static_cast<double>(graph.nodes_local());
  const double all = world.size() == 1 ? 0 : 600, mine = world.size() == 1 ? 0 : nodes;
  EXPECT_EQ(plain, 8 * 32 * (nodes + mine + all));
  EXPECT_EQ(eighth, 8 * 4 * (2 * nodes + all));
  EXPECT_EQ(messages, plain + 8 * 32 * static_cast<double>(graph.values.size()));
  EXPECT_EQ(held({.blocks = 8, .tiles = true}), 8 * 4 * (nodes + all));
}

TEST(GraphNetwork, TheRandomGraphIsOneGraphWhateverTheRanks) {
  const Communicator world(MPI_COMM_WORLD);
  const std::int64_t n = 500;
  const Graph graph = random_graph(world, n, 6, 5);
  // All of it on one rank, from the rows of all.
  std::vector<double> pairs;
  for (Index i = 0; i < graph.nodes_local(); ++i)
    for (std::int64_t e = graph.offsets[static_cast<std::size_t>(i)];
         e < graph.offsets[static_cast<std::size_t>(i) + 1]; ++e) {
      pairs.push_back(static_cast<double>(graph.nodes.begin(world.rank()) + i));
      pairs.push_back(graph.neighbours[static_cast<std::size_t>(e)]);
      EXPECT_EQ(graph.values[static_cast<std::size_t>(e)], 1);
    }
  const auto all = world.all_gather(std::span<const double>(pairs));
  std::set<std::pair<double, double>> edges;
  double sum = 0;
  for (std::size_t k = 0; k < all.size(); k += 2) {
    edges.insert({all[k], all[k + 1]});
    sum += std::sin(all[k] + 3 * all[k + 1]);
  }
  EXPECT_EQ(edges.size(), all.size() / 2);
  for (const auto& [i, j] : edges) EXPECT_TRUE(edges.contains({j, i}));
  for (std::int64_t i = 0; i < n; ++i) EXPECT_TRUE(edges.contains({static_cast<double>(i), static_cast<double>(i)}));
  // 1,500 edges are drawn; about 2 % of them are loops or there already.
  const auto entries = static_cast<std::int64_t>(edges.size());
  EXPECT_GT(entries, n + 2 * 1350);
  EXPECT_LE(entries, n + 2 * 1500);
  // The same graph as on one rank.
  const Graph alone = random_graph(Communicator(MPI_COMM_SELF), n, 6, 5);
  EXPECT_EQ(alone.edges_global(), entries);
  double own = 0;
  for (Index i = 0; i < alone.nodes_local(); ++i)
    for (std::int64_t e = alone.offsets[static_cast<std::size_t>(i)];
         e < alone.offsets[static_cast<std::size_t>(i) + 1]; ++e)
      own += std::sin(static_cast<double>(i) + 3.0 * alone.neighbours[static_cast<std::size_t>(e)]);
  EXPECT_NEAR(own, sum, 1e-9);
}

TEST(GraphNetwork, ComparesOrders) {
  const Communicator world(MPI_COMM_WORLD);
  const Graph graph = random_graph(world, 300, 6, 1);
  const RowMajorMatrix H = random_features(graph, 12, 1);
  const GraphNetwork network = random_network(12, {5}, true, 1);
  const GraphResult result = compare_orders(graph, network, H, {.blocks = {3, 1}, .messages = true, .repeats = 2});
  EXPECT_EQ(result.table.rows.size(), 5U);
  for (std::size_t k = 0; k < result.table.rows.size(); ++k) {
    EXPECT_LE(result.table.at(k, "difference"), 1e-13);
    EXPECT_GT(result.table.at(k, "seconds"), 0);
    EXPECT_FALSE(result.table.at(k, "peak_mb") < 0);  // NaN where the system does not say
  }
  EXPECT_EQ(result.table.at(4, "blocks"), 0);
  const GraphInference found = infer(graph, network, H, {.blocks = 3});
  EXPECT_EQ(result.features, found.features);

  const Graph crowded = graph_of(reference::distribute(world, some_graph(20), Layout::all_on_last));
  const RowMajorMatrix few = part(crowded, reference::random_matrix(20, 12, 1));
  EXPECT_EQ(compare_orders(crowded, network, few, {.repeats = 1}).features, infer(crowded, network, few, {}).features);
}

TEST(GraphNetwork, RefusesOnAllRanksTogether) {
  const Communicator world(MPI_COMM_WORLD);
  const auto distribute = [&](const RowMajorMatrix& G) { return reference::distribute(world, G, Layout::even); };
  RowMajorMatrix negative = RowMajorMatrix::Zero(6, 6);
  negative(5, 0) = -2;
  EXPECT_THAT(refusal([&] { graph_of(distribute(negative)); }), HasSubstr("node 5 (counted from 0) has the degree -1"));
  EXPECT_THAT(refusal([&] { graph_of(distribute(RowMajorMatrix::Ones(6, 5))); }), HasSubstr("square"));
  const Graph graph = graph_of(distribute(some_graph(6)));
  const RowMajorMatrix H = part(graph, reference::random_matrix(6, 4, 1));
  GraphNetwork network = random_network(4, {3, 2}, true, 1);
  EXPECT_THAT(refusal([&] { infer(graph, {}, H, {}); }), HasSubstr("at least one layer"));
  EXPECT_THAT(refusal([&] { infer(graph, network, RowMajorMatrix(H.leftCols(2)), {}); }),
              HasSubstr("layer 0 (counted from 0) is 4 x 3, but 2 features come in"));
  network.layers[1].attention.resize(2, 5);
  EXPECT_THAT(refusal([&] { infer(graph, network, H, {}); }), HasSubstr("expected 2 x 2"));
  network = random_network(4, {3}, false, 1);
  const RowMajorMatrix huge = 1e308 * H.array().sign();
  network.layers[0].W.setConstant(1e5);
  network.linear_end = true;
  EXPECT_THROW(infer(graph, network, huge, {}), NotFinite);
}

}  // namespace attnreg::test_graph_network
