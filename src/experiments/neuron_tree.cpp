#include "experiments/neuron_tree.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace attnreg::experiments {

namespace {

constexpr Index kLeaf = 8;             // neurons
constexpr Index kBlock = 256;          // of neurons that are visited at a time without balls
constexpr Index kLookedAt = 256;       // of a node, for the coordinate that divides it
constexpr std::size_t kCells = 4;      // of a trial
constexpr std::size_t kCell = 1024;    // neurons of each
constexpr double kRounding = 0x1p-40;  // of inner products of up to some thousand terms, and of distances; generous

// Measured, see `NeuronTree::work`. A dot product is of two columns, a pair one of a product of blocks.
struct Work {
  double fixed, per_dimension;
  double of(Index d) const { return fixed + per_dimension * static_cast<double>(d); }
};
constexpr Work kPair{1.5, 0.08}, kDot{3.5, 0.17}, kMoveInNode{8, 0.7}, kBuildInNode{20, 1.2};

/// Of a tree over so many neurons.
double levels_of(Index neurons) {
  return 1 + std::log2(std::max(1.0, static_cast<double>(neurons) / static_cast<double>(kLeaf)));
}

/// The coordinate in which these columns are spread most, of every so many.
Index widest_coordinate(const MatrixXd& neurons, std::span<const Index> columns) {
  const auto step = std::max<std::size_t>(1, columns.size() / static_cast<std::size_t>(kLookedAt));
  VectorXd sum = VectorXd::Zero(neurons.rows()), squares = sum;
  double count = 0;
  for (std::size_t k = 0; k < columns.size(); k += step, ++count) {
    sum += neurons.col(columns[k]);
    squares += neurons.col(columns[k]).cwiseAbs2();
  }
  Index widest = 0;
  (squares - sum.cwiseAbs2() / count).maxCoeff(&widest);
  return widest;
}

}  // namespace

NeuronTree::NeuronTree(MatrixXd neurons, VectorXd weights, bool with_balls)
    : neurons_(std::move(neurons)), weights_(std::move(weights)), numbers_(static_cast<std::size_t>(neurons_.cols())) {
  std::iota(numbers_.begin(), numbers_.end(), Index{0});
  if (with_balls) build();
}

MatrixXd NeuronTree::in_order() const {
  MatrixXd all(neurons_.rows(), neurons_.cols());
  for (Index place = 0; place < neurons_.cols(); ++place) all.col(number(place)) = neurons_.col(place);
  return all;
}

void NeuronTree::build() {
  const Index m = neurons_.cols();
  std::size_t leaves = 1;
  while (m > kLeaf * static_cast<Index>(leaves)) leaves *= 2;
  first_leaf_ = leaves - 1;
  nodes_.assign(2 * leaves - 1, Node{});
  alive_.resize(1);
  for (std::size_t width = leaves; width > 1; width /= 2) alive_.emplace_back();

  std::vector<Index> order(static_cast<std::size_t>(m));
  std::iota(order.begin(), order.end(), Index{0});
  split(0, order, 0, m);
  MatrixXd sorted(neurons_.rows(), m);
  VectorXd weights(m);
  std::vector<Index> numbers(numbers_.size());
  for (Index place = 0; place < m; ++place) {
    const Index from = order[static_cast<std::size_t>(place)];
    sorted.col(place) = neurons_.col(from);
    weights[place] = weights_[from];
    numbers[static_cast<std::size_t>(place)] = number(from);
  }
  neurons_ = std::move(sorted);
  weights_ = std::move(weights);
  numbers_ = std::move(numbers);

  centres_.resize(neurons_.rows(), static_cast<Index>(nodes_.size()));
  leaf_radii_ = 0;
  for (std::size_t node = 0; node < nodes_.size(); ++node) enclose(node);
  radii_as_built_ = leaf_radii_;
  work_ += work_of_build();
}

void NeuronTree::drop_balls() {
  nodes_ = {};
  centres_ = {};
  alive_ = {};
}

/// Orders them so that the lower half by their widest coordinate comes first.
void NeuronTree::halve(std::span<Index> columns) const {
  const Index coordinate = widest_coordinate(neurons_, columns);
  std::vector<std::pair<double, Index>> keys;
  keys.reserve(columns.size());
  for (const Index column : columns) keys.emplace_back(neurons_(coordinate, column), column);
  std::nth_element(keys.begin(), keys.begin() + std::ssize(columns) / 2, keys.end());
  for (std::size_t k = 0; k < columns.size(); ++k) columns[k] = keys[k].second;
}

/// Orders the neurons of a node so that the first half of the places is that of its first child, and so on down.
void NeuronTree::split(std::size_t node, std::vector<Index>& order, Index begin, Index end) {
  nodes_[node].begin = begin;
  nodes_[node].end = end;
  if (is_leaf(node)) return;
  const Index middle = begin + (end - begin) / 2;
  if (begin < end)
    halve(std::span(order).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
  split(2 * node + 1, order, begin, middle);
  split(2 * node + 2, order, middle, end);
}

void NeuronTree::enclose(std::size_t number) {
  Node& node = nodes_[number];
  auto centre = centres_.col(static_cast<Index>(number));
  centre.setZero();
  node.radius = node.size = 0;
  if (node.begin == node.end) return;
  for (Index place = node.begin; place < node.end; ++place) centre += neurons_.col(place);
  centre /= static_cast<double>(node.end - node.begin);
  double largest = 0;
  for (Index place = node.begin; place < node.end; ++place)
    largest = std::max(largest, (neurons_.col(place) - centre).squaredNorm());
  node.radius = std::sqrt(largest);
  node.size = centre.norm();
  if (is_leaf(number)) leaf_radii_ += node.radius;
}

void NeuronTree::report(const MatrixXd& points, double b, const Visit& visit) {
  std::vector<Index> all(static_cast<std::size_t>(points.cols()));
  std::iota(all.begin(), all.end(), Index{0});
  if (!has_balls()) {
    for (Index first = 0; first < neurons_.cols(); first += kBlock)
      visit(first, std::min(kBlock, neurons_.cols() - first), all);
    touched_ += neurons_.cols() * points.cols();
    return;
  }
  points_ = &points;
  sizes_ = points.colwise().norm();
  b_ = b;
  visit_ = &visit;
  descend(0, all, 0);
}

void NeuronTree::descend(std::size_t number, std::span<const Index> candidates, std::size_t depth) {
  const Node& node = nodes_[number];
  if (node.begin == node.end) return;
  std::vector<Index>& alive = alive_[depth];
  alive.clear();
  const auto centre = centres_.col(static_cast<Index>(number));
  const double reach = node.radius + kRounding * (node.radius + node.size);
  for (const Index point : candidates)
    if (centre.dot(points_->col(point)) + reach * sizes_[point] >= b_) alive.push_back(point);
  nodes_tested_ += std::ssize(candidates);
  work_ += kDot.of(neurons_.rows()) * static_cast<double>(candidates.size());
  if (alive.empty()) return;
  if (is_leaf(number)) {
    const Index pairs = (node.end - node.begin) * std::ssize(alive);
    touched_ += pairs;
    work_ += kDot.of(neurons_.rows()) * static_cast<double>(pairs);
    (*visit_)(node.begin, node.end - node.begin, alive);
    return;
  }
  descend(2 * number + 1, alive, depth + 1);
  descend(2 * number + 2, alive, depth + 1);
}

void NeuronTree::move(Index place, const Eigen::Ref<const VectorXd>& change) {
  neurons_.col(place) += change;
  if (!has_balls()) return;
  work_ += work_of_move();
  for (std::size_t number = 0;;) {
    Node& node = nodes_[number];
    const double squared = (neurons_.col(place) - centres_.col(static_cast<Index>(number))).squaredNorm();
    if (squared > node.radius * node.radius) {
      const double distance = std::sqrt(squared);
      if (is_leaf(number)) leaf_radii_ += distance - node.radius;
      node.radius = distance;
    }
    if (is_leaf(number)) return;
    number = 2 * number + (place < nodes_[2 * number + 1].end ? 1 : 2);
  }
}

void NeuronTree::keep_tight() {
  constexpr double kGrowth = 1.1;
  if (has_balls() && leaf_radii_ > kGrowth * radii_as_built_) build();
}

double NeuronTree::work_of_build() const {
  return kBuildInNode.of(neurons_.rows()) * levels_of(neurons_.cols()) * static_cast<double>(neurons_.cols());
}

double NeuronTree::work_of_move() const { return kMoveInNode.of(neurons_.rows()) * levels_of(neurons_.cols()); }

double NeuronTree::work_without_balls(Index points) const {
  return kPair.of(neurons_.rows()) * static_cast<double>(neurons_.cols()) * static_cast<double>(points);
}

NeuronTree::Trial NeuronTree::trial(const MatrixXd& points, double b) const {
  if (neurons_.cols() == 0) return {};
  std::vector<Index> order(numbers_.size());
  std::iota(order.begin(), order.end(), Index{0});
  std::vector<std::span<Index>> cells{order};
  for (std::size_t k = 0; k + 1 < kCells && order.size() > kCells * kCell; ++k) {
    const std::span<Index> all = cells[k];  // k = 0: the whole, 1 and 2: its halves
    halve(all);
    cells.insert(cells.end(), {all.first(all.size() / 2), all.subspan(all.size() / 2)});
  }
  if (cells.size() > 1) cells.erase(cells.begin(), cells.end() - std::ptrdiff_t{kCells});
  std::vector<Index> chosen;
  bool lower = true;
  for (std::span<Index> cell : cells) {
    for (; cells.size() > 1 && cell.size() > kCell; lower = !lower) {
      halve(cell);
      cell = lower ? cell.first(cell.size() / 2) : cell.subspan(cell.size() / 2);
    }
    chosen.insert(chosen.end(), cell.begin(), cell.end());
  }
  MatrixXd some(neurons_.rows(), std::ssize(chosen));
  for (Index k = 0; k < some.cols(); ++k) some.col(k) = neurons_.col(chosen[static_cast<std::size_t>(k)]);
  NeuronTree tree(std::move(some), VectorXd::Zero(std::ssize(chosen)), true);
  const double before = tree.work();
  std::vector<char> active(chosen.size());
  tree.report(points, b, [&](Index first, Index count, std::span<const Index> candidates) {
    for (Index place = first; place < first + count; ++place)
      for (const Index point : candidates)
        if (tree.neurons_.col(place).dot(points.col(point)) >= b) active[static_cast<std::size_t>(place)] = 1;
  });
  const double share = static_cast<double>(neurons_.cols()) / static_cast<double>(chosen.size());
  const auto moving = static_cast<double>(std::ranges::count(active, char{1}));
  return {share * (tree.work() - before), share * moving * work_of_move()};
}

}  // namespace attnreg::experiments
