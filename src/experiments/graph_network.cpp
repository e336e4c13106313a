#include "experiments/graph_network.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "attnreg/row_storage.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "kernels/gram_kernels.hpp"
#include "numbers/random.hpp"
#include "numbers/vector_clones.hpp"
#include "ranks/activity.hpp"
#include "ranks/memory.hpp"
#include "ranks/span_of.hpp"
#include "ranks/stop.hpp"
#include "rows/dense_rows.hpp"
#include "rows/row_passes.hpp"

namespace attnreg::experiments {

namespace {

constexpr Index kTileNodes = 128;
constexpr double kBytes = sizeof(double);

/// One of `iteration`'s streams, apart from those of other experiments.
RandomStream graph_stream(std::uint64_t seed, std::uint32_t iteration) {
  constexpr std::uint32_t kGraphs = 1 << 16;
  return {seed, Purpose::experiment_data, kGraphs + iteration};
}

/// Adds the loops, and what all nodes have to know.
Graph with_loops(const Communicator& communicator, const RowPartition& nodes, const CsrView& rows) {
  Graph graph{.communicator = communicator, .nodes = nodes};
  const std::int64_t mine = nodes.begin(communicator.rank());
  const auto room = static_cast<std::size_t>(rows.entries() + rows.rows());
  graph.neighbours.reserve(room);
  graph.values.reserve(room);
  VectorXd degrees(rows.rows());
  for (Index i = 0; i < rows.rows(); ++i) {
    const std::int64_t node = mine + i;
    bool has_loop = false;
    const auto add = [&](std::int64_t neighbour, double value) {
      graph.neighbours.push_back(static_cast<std::int32_t>(neighbour));
      graph.values.push_back(value);
      degrees[i] += value;
    };
    degrees[i] = 0;
    for (auto e = static_cast<std::size_t>(rows.offsets[static_cast<std::size_t>(i)]);
         e < static_cast<std::size_t>(rows.offsets[static_cast<std::size_t>(i) + 1]); ++e) {
      const std::int64_t neighbour = rows.indices[e];
      const double value = rows.is_single ? static_cast<double>(rows.singles[e]) : rows.values[e];
      if (!has_loop && neighbour >= node) {
        add(node, neighbour == node ? 1 + value : 1);
        has_loop = true;
        if (neighbour == node) continue;
      }
      if (value != 0) add(neighbour, value);
    }
    if (!has_loop) add(node, 1);
    graph.offsets.push_back(static_cast<std::int64_t>(graph.values.size()));
  }
  communicator.agree([&] {
    for (Index i = 0; i < degrees.size(); ++i)
      if (!(degrees[i] > 0) || !std::isfinite(degrees[i]))
        throw InvalidArgument("G: node " + std::to_string(mine + i) + " (counted from 0) has the degree " +
                              text_of(degrees[i]) + " with its loop, expected a number above 0");
  });
  const VectorXd roots = degrees.cwiseSqrt().cwiseInverse();
  const auto all = communicator.all_gather(span_of(roots));
  graph.roots = Eigen::Map<const VectorXd>(all.data(), static_cast<Index>(all.size()));
  return graph;
}

/// t = sum_e weights_e h_e of the local nodes [first, first + count); t has `width` numbers a node, the row of a
/// neighbour begins at rows + neighbour * stride.
ATTNREG_CLONES void aggregate(const std::int64_t* offsets, const std::int32_t* neighbours, const double* weights,
                              const double* rows, Index stride, Index width, Index first, Index count,
                              double* __restrict out) {
  for (Index i = first; i < first + count; ++i, out += width) {
    std::fill_n(out, width, 0.0);
    for (std::int64_t e = offsets[i]; e < offsets[i + 1]; ++e) {
      const double weight = weights[e];
      const double* const row = rows + neighbours[e] * stride;
      for (Index k = 0; k < width; ++k) out[k] += weight * row[k];
    }
  }
}

/// Features [first, first + width) of all nodes, on every rank.
class SharedFeatures {
 public:
  SharedFeatures(const Communicator& communicator, const RowMajorMatrix& H, Index first, Index width)
      : width_(width), first_(first) {
    if (communicator.size() == 1 && width == H.cols()) {
      rows_ = H.data();
      return;
    }
    mine_ = H.middleCols(first, width);
    rows_ = mine_.data();
    if (communicator.size() == 1) return;
    all_ = communicator.all_gather(span_of(mine_));
    rows_ = all_.data();
  }
  SharedFeatures(const SharedFeatures&) = delete;
  SharedFeatures& operator=(const SharedFeatures&) = delete;

  const double* rows() const { return rows_; }
  Index width() const { return width_; }
  Index first() const { return first_; }
  double bytes() const { return kBytes * (static_cast<double>(mine_.size()) + static_cast<double>(all_.size())); }

 private:
  Index width_, first_;
  RowMajorMatrix mine_;
  std::vector<double> all_;
  const double* rows_ = nullptr;
};

/// Calls `use(first, count)` for tiles of the local nodes, on several threads.
template <class Use>
void each_tile(Index nodes, Use&& use) {
  const Index tiles = (nodes + kTileNodes - 1) / kTileNodes;
#pragma omp parallel for schedule(dynamic, 4)
  for (Index tile = 0; tile < tiles; ++tile) {
    if (is_in_vain()) continue;
    const Index first = tile * kTileNodes;
    use(first, std::min(kTileNodes, nodes - first));
  }
}

/// One layer in one order.
class LayerSum {
 public:
  LayerSum(const Graph& graph, const GraphLayer& layer, VectorXd weights)
      : graph_(graph),
        layer_(layer),
        weights_(std::move(weights)),
        sum_(RowMajorMatrix::Zero(graph.nodes_local(), layer.W.cols())) {}

  /// Local. Adds (S H[:, k]) W[k, :]. Returns the bytes that were held.
  double add(const SharedFeatures& H, const FeatureOrder& order) {
    const Index nodes = graph_.nodes_local(), width = H.width();
    if (order.tiles) {
      each_tile(nodes, [&](Index first, Index count) {
        RowMajorMatrix tile(count, width);
        add_neighbours(H, first, count, tile.data());
        add_product(tile.data(), H, first, count);
      });
      return 0;
    }
    RowMajorMatrix held(nodes, width), messages;
    if (order.messages) {
      messages.resize(weights_.size(), width);
      each_tile(nodes, [&](Index first, Index count) {
        for (std::int64_t e = offset(first); e < offset(first + count); ++e)
          messages.row(e) = weights_[e] * neighbour(H, e);
      });
      each_tile(nodes, [&](Index first, Index count) {
        for (Index i = first; i < first + count; ++i)
          held.row(i) = messages.middleRows(offset(i), offset(i + 1) - offset(i)).colwise().sum();
      });
    } else {
      each_tile(nodes, [&](Index first, Index count) { add_neighbours(H, first, count, held.row(first).data()); });
    }
    each_tile(nodes, [&](Index first, Index count) { add_product(held.row(first).data(), H, first, count); });
    return kBytes * static_cast<double>(held.size() + messages.size());
  }

  RowMajorMatrix take() { return std::move(sum_); }

 private:
  Index offset(Index node) const { return graph_.offsets[static_cast<std::size_t>(node)]; }
  Eigen::Map<const Eigen::RowVectorXd> neighbour(const SharedFeatures& H, Index e) const {
    return {H.rows() + graph_.neighbours[static_cast<std::size_t>(e)] * H.width(), H.width()};
  }
  void add_neighbours(const SharedFeatures& H, Index first, Index count, double* out) const {
    aggregate(graph_.offsets.data(), graph_.neighbours.data(), weights_.data(), H.rows(), H.width(), H.width(), first,
              count, out);
  }
  void add_product(const double* rows, const SharedFeatures& H, Index first, Index count) {
    kernels::add_matrix_product(rows, count, H.width(), layer_.W.row(H.first()).data(), layer_.W.cols(), false,
                                sum_.row(first).data());
  }

  const Graph& graph_;
  const GraphLayer& layer_;
  const VectorXd weights_;
  RowMajorMatrix sum_;
};

/// Collective. S_ij of the edges of this rank's nodes.
VectorXd edge_weights(const Graph& graph, const GraphLayer& layer, const RowMajorMatrix& H, double slope) {
  const Index nodes = graph.nodes_local();
  const std::int64_t mine = graph.nodes.begin(graph.communicator.rank());
  VectorXd weights(static_cast<Index>(graph.values.size())), to, from;
  if (layer.attention.size() > 0) {
    to = H * (layer.W * layer.attention.row(0).transpose());
    const VectorXd own = H * (layer.W * layer.attention.row(1).transpose());
    const auto all = graph.communicator.all_gather(span_of(own));
    from = Eigen::Map<const VectorXd>(all.data(), static_cast<Index>(all.size()));
  }
  for (Index i = 0; i < nodes; ++i) {
    const auto begin = static_cast<Index>(graph.offsets[static_cast<std::size_t>(i)]);
    const auto end = static_cast<Index>(graph.offsets[static_cast<std::size_t>(i) + 1]);
    for (Index e = begin; e < end; ++e) {
      const Index j = graph.neighbours[static_cast<std::size_t>(e)];
      if (layer.attention.size() == 0) {
        weights[e] = graph.values[static_cast<std::size_t>(e)] * graph.roots[mine + i] * graph.roots[j];
      } else {
        const double logit = to[i] + from[j];
        weights[e] = logit < 0 ? slope * logit : logit;
      }
    }
    if (layer.attention.size() == 0) continue;
    auto row = weights.segment(begin, end - begin);
    row.array() = (row.array() - row.maxCoeff()).exp();
    row /= row.sum();
  }
  return weights;
}

void check_shapes(const Graph& graph, const GraphNetwork& network, const RowMajorMatrix& H) {
  require(!network.layers.empty(), "a graph network needs at least one layer");
  Index features = H.cols();
  for (std::size_t k = 0; k < network.layers.size(); ++k) {
    const GraphLayer& layer = network.layers[k];
    const std::string number = std::to_string(k);
    require(layer.W.rows() == features && layer.W.cols() > 0,
            "layer " + number + " (counted from 0) is " + std::to_string(layer.W.rows()) + " x " +
                std::to_string(layer.W.cols()) + ", but " + std::to_string(features) + " features come in");
    features = layer.W.cols();
    require(layer.attention.size() == 0 || (layer.attention.rows() == 2 && layer.attention.cols() == features),
            "the attention of layer " + number + " (counted from 0) is " + std::to_string(layer.attention.rows()) +
                " x " + std::to_string(layer.attention.cols()) + ", expected 2 x " + std::to_string(features));
  }
  graph.communicator.agree([&] {
    if (H.rows() != graph.nodes_local())
      throw InvalidArgument(std::to_string(H.rows()) + " rows of features for " + std::to_string(graph.nodes_local()) +
                            " nodes");
  });
}

Index block_width(Index features, const FeatureOrder& order) {
  const Index blocks = std::clamp<Index>(order.blocks, 1, features);
  return (features + blocks - 1) / blocks;
}

/// Collective. Before any of it is allocated.
void require_room(const Graph& graph, const GraphNetwork& network, const FeatureOrder& order) {
  double most = 0;
  const auto nodes = static_cast<double>(graph.nodes_local());
  for (const GraphLayer& layer : network.layers) {
    const auto width = static_cast<double>(block_width(layer.W.rows(), order));
    const double shared = graph.communicator.size() == 1 ? 0 : static_cast<double>(graph.nodes.rows_global());
    double numbers = width * (shared + 2 * nodes) + nodes * static_cast<double>(layer.W.rows() + layer.W.cols());
    if (order.messages) numbers += static_cast<double>(graph.values.size()) * width;
    most = std::max(most, kBytes * (numbers + static_cast<double>(graph.values.size())));
  }
  require_memory(graph.communicator, most, "a graph network in " + std::to_string(order.blocks) + " blocks");
}

struct Peak {
  double megabytes = std::numeric_limits<double>::quiet_NaN();

  /// Local. Calls `run`, and sees by how much the memory of this process grew at most.
  template <class Run>
  static Peak of(Run&& run) {
    const bool is_known = forget_peak_memory();
    const double before = peak_memory();
    run();
    if (!is_known) return {};
    return {(peak_memory() - before) / 1e6};
  }
};

}  // namespace

Graph graph_of(const RowMatrix& G) {
  require(G.rows_global() == G.columns(), "G is " + std::to_string(G.rows_global()) + " x " +
                                              std::to_string(G.columns()) + "; the matrix of a graph is square");
  if (G.is_sparse()) return with_loops(G.communicator(), G.partition(), *G.passes().sparse());
  const CsrRows rows = sparse_rows(dense_rows(G, 0, G.rows_local()));
  return with_loops(G.communicator(), G.partition(), rows);
}

Graph random_graph(const Communicator& communicator, std::int64_t nodes, std::int64_t node_degree, std::uint64_t seed) {
  const RandomStream random = graph_stream(seed, 0);
  const RowPartition partition = RowPartition::in_blocks(nodes, 1, communicator.size());
  const std::int64_t begin = partition.begin(communicator.rank()), end = partition.end(communicator.rank());
  const std::int64_t edges = (nodes * node_degree + 1) / 2;
  const auto ends_of = [&](std::int64_t edge) {
    const double u = random.uniform(edge, 0), v = random.uniform(edge, 1);
    const auto place = [&](double share) {
      return std::min(nodes - 1, static_cast<std::int64_t>(share * static_cast<double>(nodes)));
    };
    return std::array<std::int64_t, 2>{place(u), place(v * v)};
  };
  const auto ends_before = [&](std::int64_t node) {  // one end of an edge is uniform, the other one a square
    const double share = static_cast<double>(node) / static_cast<double>(nodes);
    return static_cast<double>(edges) * (share + std::sqrt(share));
  };
  constexpr double kNode = 24, kEnd = sizeof(std::int32_t) + sizeof(double);  // bytes; the graph and a copy with loops
  require_memory(communicator,
                 2 * (kEnd * (ends_before(end) - ends_before(begin)) + kNode * static_cast<double>(end - begin)),
                 "a graph of " + std::to_string(nodes) + " nodes with " + std::to_string(node_degree) + " neighbours");
  CsrRows rows;
  rows.columns = static_cast<Index>(nodes);
  rows.offsets.assign(static_cast<std::size_t>(end - begin) + 1, 0);
  const auto each_end = [&](auto&& use) {  // of this rank's nodes
    for (std::int64_t edge = 0; edge < edges && !is_in_vain(); ++edge) {
      const auto ends = ends_of(edge);
      for (const std::size_t k : {std::size_t{0}, std::size_t{1}})
        if (ends[k] >= begin && ends[k] < end && ends[0] != ends[1]) use(ends[k] - begin, ends[1 - k]);
    }
  };
  each_end([&](std::int64_t node, std::int64_t) { ++rows.offsets[static_cast<std::size_t>(node) + 1]; });
  for (std::size_t i = 1; i < rows.offsets.size(); ++i) rows.offsets[i] += rows.offsets[i - 1];
  rows.indices.resize(static_cast<std::size_t>(rows.entries()));
  rows.values.assign(rows.indices.size(), 1);
  std::vector<std::int64_t> next(rows.offsets.begin(), rows.offsets.end() - 1);
  each_end([&](std::int64_t node, std::int64_t other) {
    rows.indices[static_cast<std::size_t>(next[static_cast<std::size_t>(node)]++)] = static_cast<std::int32_t>(other);
  });
  communicator.agree([] { throw_if_stopped(); });
  sort_rows(rows);
  std::ranges::fill(rows.values, 1.0);
  return with_loops(communicator, partition, rows);
}

RowMajorMatrix random_features(const Graph& graph, Index features, std::uint64_t seed) {
  require_memory(graph.communicator, 8 * static_cast<double>(graph.nodes_local()) * static_cast<double>(features),
                 std::to_string(features) + " features of " + std::to_string(graph.nodes.rows_global()) + " nodes");
  RowMajorMatrix H(graph.nodes_local(), features);
  graph_stream(seed, 1).normal_rows(graph.nodes.begin(graph.communicator.rank()), H);
  return H;
}

GraphNetwork random_network(Index features, const std::vector<std::int64_t>& widths, bool attention,
                            std::uint64_t seed) {
  GraphNetwork network;
  for (std::size_t k = 0; k < widths.size(); ++k) {
    GraphLayer layer;
    layer.W.resize(features, widths[k]);
    graph_stream(seed, 2 + 2 * static_cast<std::uint32_t>(k)).normal_rows(0, layer.W);
    layer.W /= std::sqrt(static_cast<double>(features));
    features = widths[k];
    if (attention) {
      layer.attention.resize(2, features);
      graph_stream(seed, 3 + 2 * static_cast<std::uint32_t>(k)).normal_rows(0, layer.attention);
      layer.attention /= std::sqrt(static_cast<double>(features));
    }
    network.layers.push_back(std::move(layer));
  }
  return network;
}

GraphInference infer(const Graph& graph, const GraphNetwork& network, const RowMajorMatrix& H,
                     const FeatureOrder& order) {
  check_shapes(graph, network, H);
  require_room(graph, network, order);
  const Communicator& communicator = graph.communicator;
  GraphInference result;
  std::int64_t blocks = 0;
  for (const GraphLayer& layer : network.layers) {
    const Index width = block_width(layer.W.rows(), order);
    blocks += (layer.W.rows() + width - 1) / width;
  }
  const InWork working("graph network", "blocks", static_cast<double>(blocks));
  const RowMajorMatrix* features = &H;
  for (const GraphLayer& layer : network.layers) {
    LayerSum sum(graph, layer, edge_weights(graph, layer, *features, network.slope));
    const Index width = block_width(layer.W.rows(), order);
    for (Index first = 0; first < layer.W.rows(); first += width) {
      const SharedFeatures block(communicator, *features, first, std::min(width, layer.W.rows() - first));
      communicator.agree(
          [&] { result.held_bytes = std::max(result.held_bytes, block.bytes() + sum.add(block, order)); });
      InWork::add(1);
    }
    RowMajorMatrix out = sum.take();
    if (&layer != &network.layers.back() || !network.linear_end) out = out.cwiseMax(0);
    result.features = std::move(out);
    features = &result.features;
  }
  communicator.agree([&] {
    for (Index i = 0; i < result.features.rows(); ++i)
      if (!result.features.row(i).allFinite())
        throw NotFinite("node " + std::to_string(graph.nodes.begin(communicator.rank()) + i) +
                        " (counted from 0): its features are not finite; scale the features or the weights");
  });
  return result;
}

GraphResult compare_orders(const Graph& graph, const GraphNetwork& network, const RowMajorMatrix& H,
                           const GraphComparison& options) {
  const Communicator& communicator = graph.communicator;
  check_shapes(graph, network, H);
  std::vector<FeatureOrder> orders;
  for (const std::int64_t blocks : options.blocks) orders.push_back({.blocks = static_cast<Index>(blocks)});
  for (const std::int64_t blocks : options.blocks)
    orders.push_back({.blocks = static_cast<Index>(blocks), .tiles = true});
  if (options.messages) orders.push_back({.messages = true});
  GraphResult result;
  result.table = {"gnn-features",
                  "Graph network: " + std::to_string(graph.nodes.rows_global()) + " nodes, " +
                      std::to_string(graph.edges_global()) + " edges with loops, " + std::to_string(H.cols()) +
                      " features, " + std::to_string(network.layers.size()) + " layers" +
                      (network.layers[0].attention.size() > 0 ? " of attention" : ""),
                  {"blocks", "tiles", "held_mb", "peak_mb", "seconds", "difference"},
                  {},
                  {"blocks: of the features; 1: the plain order; 0: the messages of all edges are held",
                   "tiles: 1: what is summed over neighbours is held for 128 nodes at a time",
                   "held_mb: by the rank that holds most, beside features and results; peak_mb: with these, of the "
                   "process, as measured"}};
  double size = 0;
  for (const FeatureOrder& order : orders) {
    double seconds = std::numeric_limits<double>::infinity();
    Peak peak;
    GraphInference found;
    for (int repeat = 0; repeat < options.repeats; ++repeat) {
      found = {};
      communicator.barrier();
      const auto begin = std::chrono::steady_clock::now();
      peak = Peak::of([&] { found = infer(graph, network, H, order); });
      seconds = std::min(seconds, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    if (result.table.rows.empty()) result.features = found.features;
    const auto largest = [&](const RowMajorMatrix& matrix) {
      return communicator.max(matrix.size() > 0 ? matrix.cwiseAbs().maxCoeff() : 0.0);
    };
    if (size == 0) size = largest(result.features);
    const double difference = largest(found.features - result.features);
    double most[] = {found.held_bytes / 1e6, peak.megabytes, seconds};
    const bool is_measured = communicator.min(std::int64_t{std::isnan(peak.megabytes) ? 0 : 1}) == 1;
    if (!is_measured) most[1] = 0;
    communicator.max(most);
    if (!is_measured) most[1] = std::numeric_limits<double>::quiet_NaN();
    result.table.rows.push_back({order.messages ? 0 : static_cast<double>(order.blocks), order.tiles ? 1.0 : 0.0,
                                 most[0], most[1], most[2], size > 0 ? difference / size : difference});
  }
  return result;
}

}  // namespace attnreg::experiments
