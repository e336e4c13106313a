#pragma once

#include <cstdint>
#include <vector>

#include "attnreg/row_matrix.hpp"
#include "experiments/experiments.hpp"

namespace attnreg::experiments {

// Inference of graph networks by blocks of features (after arXiv 2104.03058; docs/experiments.md). G: n x n, the rows
// of a rank are its nodes; the features of all nodes, H: n x f, are spread alike.

/// G + I, in compressed rows, of this rank's nodes.
struct Graph {
  Communicator communicator;
  RowPartition nodes;
  std::vector<std::int64_t> offsets{0};
  std::vector<std::int32_t> neighbours{};  ///< global, ascending for a node
  std::vector<double> values{};
  VectorXd roots{};  ///< D_i^{-1/2} of all nodes, D_i = 1 + sum_j G_ij; replicated

  Index nodes_local() const { return static_cast<Index>(offsets.size()) - 1; }
  std::int64_t edges_global() const { return communicator.sum(offsets.back()); }  ///< Collective. Loops included.
};

/// Collective. Entries of G that are 0 are no edges. Throws on all ranks: G is not square, or some D_i is not above 0.
Graph graph_of(const RowMatrix& G);

/// Collective. An undirected graph without loops: `nodes` node_degree / 2 edges are drawn, one end uniformly, the
/// other one with a density that falls as node^-1/2, so that degrees differ; edges that are drawn twice count once. A
/// function of the seed, whatever the ranks. Memory that is not there: `OutOfMemory` on all ranks.
Graph random_graph(const Communicator& communicator, std::int64_t nodes, std::int64_t node_degree, std::uint64_t seed);

/// Collective. N(0, 1) features of this rank's nodes, n_local x f. Memory as above.
RowMajorMatrix random_features(const Graph& graph, Index features, std::uint64_t seed);

/// A layer; replicated.
struct GraphLayer {
  RowMajorMatrix W;          ///< f_in x f_out
  RowMajorMatrix attention;  ///< a1 and a2 as rows, 2 x f_out; empty: a convolution
};

/// H <- relu(S H W) layer by layer. S of a convolution: D^{-1/2} (G + I) D^{-1/2}; of a graph-attention layer: the
/// softmax over the neighbours j of i, i among them, of leaky_relu(a1 . W h_i + a2 . W h_j).
struct GraphNetwork {
  std::vector<GraphLayer> layers;
  double slope = 0.2;       ///< of leaky_relu below 0
  bool linear_end = false;  ///< the last layer without relu
};

/// Local. Weights N(0, 1 / f_in), attention vectors N(0, 1 / f_out). widths: f_out of the layers.
GraphNetwork random_network(Index features, const std::vector<std::int64_t>& widths, bool attention,
                            std::uint64_t seed);

/// In which order S H W is summed, and so what is held.
struct FeatureOrder {
  Index blocks = 1;       ///< sum over blocks k of (S H[:, k]) W[k, :]; S H[:, k] is held, n x f / blocks. More than f
                          ///< are f. 1: the plain order, all of S H
  bool messages = false;  ///< the messages S_ij h_j of all edges are held, too: what gather and scatter do
  bool tiles = false;     ///< S H[:, k] is held for 128 nodes of a thread at a time only
};

struct GraphInference {
  RowMajorMatrix features;  ///< of this rank's nodes
  double held_bytes = 0;    ///< of this rank, at most at a time, besides features and results of a layer
};

/// Collective. Per layer and block one all-gather of 8 n f / blocks bytes (of attention also of 8 n), the block of all
/// nodes being on every rank meanwhile, and one agreement. 2 edges f + 2 n f f_out flops over ranks and threads. The
/// sums of a node have one order for a number of blocks, on any number of ranks. H: n_local x f. Throws on all ranks:
/// shapes that do not fit; `NotFinite`, with the node, for results that overflow; `OutOfMemory`.
GraphInference infer(const Graph& graph, const GraphNetwork& network, const RowMajorMatrix& H,
                     const FeatureOrder& order);

struct GraphComparison {
  std::vector<std::int64_t> blocks{1, 2, 4, 8, 16};
  bool messages = false;  ///< these first
  int repeats = 3;
};
struct GraphResult {
  Table table;
  RowMajorMatrix features;  ///< of the first number of blocks, of this rank's nodes
};
/// Collective. One line an order: blocks (0: messages); tiles; held_mb: of the rank that holds most; peak_mb: by how
/// much the memory of a process grew at most, features and results included, NaN where the system does not say;
/// seconds, the shortest of the repeats; difference: largest, of the results from those of the first line, relative to
/// the largest result.
GraphResult compare_orders(const Graph& graph, const GraphNetwork& network, const RowMajorMatrix& H,
                           const GraphComparison& options);

}  // namespace attnreg::experiments
