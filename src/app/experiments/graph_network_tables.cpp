#include <algorithm>

#include "app/experiments/all_experiments.hpp"
#include "app/run/problem.hpp"
#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "experiments/graph_network.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::app {

namespace {

using experiments::Graph;
using experiments::GraphNetwork;

/// The numbers of a list such as "1,2,4". Throws `UsageError`.
std::vector<std::int64_t> list_of_counts(const Arguments& arguments, std::string_view name) {
  constexpr std::int64_t kMost = 1 << 20;
  const auto numbers = numbers_in<std::int64_t>(arguments.text(name), ',');
  for (const std::int64_t number : numbers)
    if (number < 1 || number > kMost) return {};
  return numbers;
}
std::vector<std::int64_t> required_counts(const Arguments& arguments, std::string_view name) {
  auto numbers = list_of_counts(arguments, name);
  if (numbers.empty())
    throw UsageError("--" + std::string(name) + " is '" + printable(arguments.text(name)) +
                     "'; expected numbers from 1 to 1048576, such as 1,2,4");
  return numbers;
}

/// The names of files in a list. Throws `UsageError` for one that is empty.
std::vector<std::string> list_of_files(const Arguments& arguments, std::string_view name) {
  const std::string text = arguments.text(name);
  std::vector<std::string> paths;
  for (const auto path : parts_of(text, ',')) paths.emplace_back(path);
  if (std::ranges::count(paths, "") > 0)
    throw UsageError("--" + std::string(name) + " is '" + printable(text) +
                     "'; expected names of files with a comma between them");
  return paths;
}

/// Collective. The layers in the files of --layers and --attention.
GraphNetwork load_network(const Communicator& communicator, const Arguments& arguments) {
  GraphNetwork network;
  for (const auto& path : list_of_files(arguments, "layers"))
    network.layers.push_back({load_replicated_matrix(communicator, path), {}});
  if (!arguments.has("attention")) return network;
  const auto paths = list_of_files(arguments, "attention");
  require(paths.size() == network.layers.size(), "--layers has " + std::to_string(network.layers.size()) +
                                                     " files and --attention " + std::to_string(paths.size()) +
                                                     "; each layer needs one");
  for (std::size_t k = 0; k < paths.size(); ++k)
    network.layers[k].attention = load_replicated_matrix(communicator, paths[k]);
  return network;
}

/// Throws `UsageError`.
void check_graph_options(const Arguments& arguments) {
  if (arguments.rest().empty()) {
    arguments.refuse({"layers"}, "needs the files G.npz and H.npy");
    if (arguments.has("attention") && arguments.text("attention") != "random")
      throw UsageError("--attention: without files G.npz and H.npy it is 'random'");
    return;
  }
  if (arguments.rest().size() != 2)
    throw UsageError("experiment gnn-features takes two files, G.npz and H.npy, or none");
  arguments.require("layers");
  arguments.refuse({"nodes", "node-degree", "features", "layer-widths"}, "is for a graph that is made, without files");
}

std::vector<experiments::Table> graph_network_tables(const Communicator& communicator, const Arguments& arguments,
                                                     const ReportDirectory& directory) {
  check_graph_options(arguments);
  const experiments::GraphComparison options{.blocks = required_counts(arguments, "blocks"),
                                             .messages = arguments.on("messages"),
                                             .repeats = arguments.count("repeats")};
  std::optional<Graph> graph;
  RowMajorMatrix H;
  GraphNetwork network;
  if (arguments.rest().empty()) {
    const auto widths = required_counts(arguments, "layer-widths");
    const auto features = arguments.integer("features");
    graph = experiments::random_graph(communicator, arguments.integer("nodes"), arguments.integer("node-degree"),
                                      arguments.seed());
    H = experiments::random_features(*graph, features, arguments.seed());
    network = experiments::random_network(features, widths, arguments.has("attention"), arguments.seed());
  } else {
    InputFile features;
    communicator.agree([&] { features = examine("H", arguments.rest()[1]); });
    network = load_network(communicator, arguments);
    graph = experiments::graph_of(load_matrix(communicator, arguments.rest()[0], StorageChoice::as_file));
    H = load_matrix_rows(communicator, features.header.path, features.role, graph->nodes, features.header.columns());
  }
  network.slope = arguments.number("slope");
  network.linear_end = arguments.on("linear-end");
  const auto result = experiments::compare_orders(*graph, network, H, options);
  if (directory.is_used())
    write_npy(communicator, directory.file("H_out.npy"), {graph->nodes.rows_global(), network.layers.back().W.cols()},
              graph->nodes.begin(communicator.rank()), span_of(result.features));
  return {result.table};
}

}  // namespace

Experiment graph_network_experiment() {
  constexpr std::int64_t kMostNodes = (std::int64_t{1} << 31) - 1;
  return {
      .name = "gnn-features",
      .summary = "graph networks by blocks of features; -o: H_out.npy (arXiv 2104.03058)",
      .files = "G.npz H.npy",
      .least_files = 0,
      .most_files = 2,
      .options =
          {{"layers", 0, "FILES", Text{}, "", "W0.npy,W1.npy: weights of the layers, f x f1, f1 x f2; with files"},
           {"attention", 0, "FILES", Text{}, "",
            "a0.npy,a1.npy: a1 and a2 of each layer, 2 x f1, 2 x f2: layers of attention, not convolutions; without "
            "files: random"},
           {"slope", 0, "V", Number{0}, "0.2", "of leaky_relu below 0, of attention"},
           {"linear-end", 0, "", Switch{}, "", "the last layer without relu"},
           {"blocks", 0, "LIST", Text{}, "1,2,4,8,16", "numbers of blocks of features that are compared"},
           {"messages", 0, "", Switch{}, "", "also hold the messages of all edges, as gather and scatter do"},
           {"repeats", 0, "N", Integer{1, 1000}, "3", "of each order; the shortest time counts"},
           {"nodes", 0, "N", Integer{1, kMostNodes}, "100000", "of a random graph, without files"},
           {"node-degree", 0, "K", Integer{0, 100000}, "10", "of it, mean"},
           {"features", 0, "F", Integer{1, 1 << 20}, "256", "of its nodes"},
           {"layer-widths", 0, "LIST", Text{}, "64,16", "of its network"}},
      .run = graph_network_tables};
}

}  // namespace attnreg::app
