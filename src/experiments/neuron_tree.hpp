#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "attnreg/row_partition.hpp"

namespace attnreg::experiments {

/// Half-space reporting: which of the vectors w_r have <w_r, x> >= b. A binary tree of balls over the vectors, halved
/// along the coordinate in which they are spread most, leaves of at most 8; a ball whose <centre, x> + radius |x| is
/// below b is left out whole. Exact; how much is left out depends on the dimension: in a high one the balls are as
/// large as the whole set. The vectors are kept in the order of the tree, so that a leaf is one block of memory.
class NeuronTree {
 public:
  /// Local. neurons: d x m, a column each; weights: a number that goes with each. Without balls nothing is left out,
  /// and the neurons are visited in blocks.
  NeuronTree(MatrixXd neurons, VectorXd weights, bool with_balls);

  bool has_balls() const { return !nodes_.empty(); }
  void build();       ///< Local. Makes the balls, and a new order of the neurons.
  void drop_balls();  ///< Local. Whatever is above b is found without them from now on.

  const MatrixXd& neurons() const { return neurons_; }
  const VectorXd& weights() const { return weights_; }
  Index number(Index place) const { return numbers_[static_cast<std::size_t>(place)]; }  ///< column before the tree
  MatrixXd in_order() const;                                                             ///< as they were given

  /// What may be above b: `count` neurons from place `first` on, for these points.
  using Visit = std::function<void(Index first, Index count, std::span<const Index> points)>;
  /// Local. Visits blocks that together have all neurons with <w_r, x> >= b for each point. points: d x B.
  void report(const MatrixXd& points, double b, const Visit& visit);

  /// Work as this class counts it, about ns on one core; only the ratios matter, fitted to runs with d = 4 to 60. A
  /// function of counts, so that what is decided by it is the same wherever it is decided.
  double work() const { return work_; }           ///< of the reports with balls, moves and trees so far
  double work_of_build() const;                   ///< of a tree
  double work_without_balls(Index points) const;  ///< of a report for so many points
  struct Trial {
    double report = 0;  ///< work of a report with balls for the points
    double moves = 0;   ///< work of moving each neuron that is above b for one of them
  };
  /// Local. What the work with balls would be, from the balls of at most 4096 neurons: some cells of the tree. Orders
  /// the neurons about three times, a tree does for each of its levels.
  Trial trial(const MatrixXd& points, double b) const;

  /// Local. w += change; the balls around it grow where they must.
  void move(Index place, const Eigen::Ref<const VectorXd>& change);
  /// Local. Makes a new tree, and a new order, if the balls of the leaves have grown by a tenth on average.
  void keep_tight();

  std::int64_t nodes_tested() const { return nodes_tested_; }  ///< pairs of a ball and a point
  std::int64_t touched() const { return touched_; }            ///< pairs of a neuron and a point that were visited

 private:
  struct Node {
    Index begin = 0, end = 0;
    double radius = -1, size = 0;  ///< size: |centre|
  };

  void halve(std::span<Index> columns) const;
  void split(std::size_t node, std::vector<Index>& order, Index begin, Index end);
  double work_of_move() const;
  void enclose(std::size_t node);
  bool is_leaf(std::size_t node) const { return node >= first_leaf_; }
  void descend(std::size_t node, std::span<const Index> alive, std::size_t depth);

  MatrixXd neurons_;
  VectorXd weights_;
  std::vector<Index> numbers_;
  std::vector<Node> nodes_;  ///< none without balls; the children of node k are 2 k + 1 and 2 k + 2
  MatrixXd centres_;
  std::size_t first_leaf_ = 0;
  double leaf_radii_ = 0, radii_as_built_ = 0;  ///< sums
  std::int64_t nodes_tested_ = 0, touched_ = 0;
  double work_ = 0;

  // Of the report that is made.
  const MatrixXd* points_ = nullptr;
  VectorXd sizes_;  ///< |x|
  double b_ = 0;
  const Visit* visit_ = nullptr;
  std::vector<std::vector<Index>> alive_;  ///< at each depth
};

}  // namespace attnreg::experiments
