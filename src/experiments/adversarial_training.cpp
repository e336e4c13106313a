#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "algebra/blas_products.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "experiments/experiments.hpp"
#include "experiments/neuron_tree.hpp"
#include "numbers/random.hpp"
#include "ranks/activity.hpp"
#include "ranks/memory.hpp"
#include "ranks/root_clock.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::experiments {

namespace {

constexpr int kLooks = 8;              // steps until the structure is looked at again
constexpr Index kLeastForBlas = 4096;  // multiplications of a product; a smaller one is made in less than a call takes

/// Points as columns, and their labels.
struct Batch {
  MatrixXd X;
  VectorXd y;

  Batch part(Index first, Index count) const { return {X.middleCols(first, count), y.segment(first, count)}; }
};

/// P(N(0, 1) >= b)
double share_above(double b) { return std::erfc(b / std::sqrt(2.0)) / 2; }

/// Of the loss ln(1 + e^{-y f}), by f.
double loss_slope(double y, double f) { return -y / (1 + std::exp(y * f)); }

/// What was done: pairs of a neuron, or a ball, and a point; points at which f was found; and steps.
struct Counts {
  double active = 0, touched = 0, nodes = 0, points = 0;
  int steps = 0, steps_with_tree = 0;
};

/// How good f is: means over points.
struct Quality {
  double loss = 0, accuracy = 0, robust = 0;  ///< loss and robust: under attack
};

/// f(x) = s sum_r a_r max(<w_r, x> - b, 0), this rank's neurons.
class ShiftedNetwork {
 public:
  /// Local.
  ShiftedNetwork(const Communicator& communicator, const AdversarialTraining& options, Index dimension,
                 std::int64_t width, AdversarialTraining::Structure structure)
      : communicator_(communicator),
        options_(options),
        structure_(structure),
        shift_(std::sqrt(0.4 * std::log(static_cast<double>(width)))),
        scale_(1 / std::sqrt(static_cast<double>(width) * share_above(shift_))),
        shares_(RowPartition::in_blocks(width, 1, communicator.size())),
        tree_(start(dimension), signs(), structure == AdversarialTraining::Structure::tree) {}

  double shift() const { return shift_; }
  std::int64_t first_neuron() const { return shares_.begin(communicator_.rank()); }
  MatrixXd neurons() const { return tree_.in_order(); }
  VectorXd output_weights() const { return scale_ * signs(); }  ///< s a_r

  /// Collective, one sum of 8 B or 8 B (d + 1) bytes. f at these points, and its gradients by x if asked for.
  VectorXd values(const MatrixXd& X, MatrixXd* gradients = nullptr) {
    const Index d = X.rows(), count = X.cols();
    VectorXd message = VectorXd::Zero(gradients != nullptr ? count * (d + 1) : count);
    Eigen::Map<MatrixXd> slopes(message.data() + count, d, gradients != nullptr ? count : 0);
    active_.clear();
    MatrixXd candidates(d, count), products;
    tree_.report(X, shift_, [&](Index first, Index neurons, std::span<const Index> points) {
      const auto block = tree_.neurons().middleCols(first, neurons);
      const Index size = std::ssize(points);
      const bool by_blas = neurons * size * d >= kLeastForBlas;
      if (by_blas) {
        for (Index k = 0; k < size; ++k) candidates.col(k) = X.col(points[static_cast<std::size_t>(k)]);
        products = transposed_times(block, candidates.leftCols(size));
      }
      for (Index k = 0; k < size; ++k) {
        const Index point = points[static_cast<std::size_t>(k)];
        for (Index r = 0; r < neurons; ++r) {
          const double product = by_blas ? products(r, k) : block.col(r).dot(X.col(point));
          if (!(product >= shift_)) continue;
          const double sign = tree_.weights()[first + r];
          message[point] += sign * (product - shift_);
          if (gradients != nullptr) slopes.col(point) += sign * block.col(r);
          active_.push_back({first + r, point});
        }
      }
    });
    counts_.active += static_cast<double>(active_.size());
    counts_.points += static_cast<double>(count);
    communicator_.sum(span_of(message));
    message *= scale_;
    if (gradients != nullptr) *gradients = slopes;
    return message.head(count);
  }

  /// Collective. The points moved within the ball so that their loss grows.
  MatrixXd attacked(const Batch& batch) {
    const double length = 2.5 * options_.radius / options_.attack_steps;
    MatrixXd X = batch.X, gradients;
    for (int step = 0; step < options_.attack_steps; ++step) {
      values(X, &gradients);
      for (Index i = 0; i < X.cols(); ++i) {
        const double size = gradients.col(i).stableNorm();
        if (!(size > 0)) continue;
        X.col(i) -= batch.y[i] * length / size * gradients.col(i);  // the loss falls with y f
        const VectorXd moved = X.col(i) - batch.X.col(i);
        const double distance = moved.stableNorm();
        if (distance > options_.radius) X.col(i) = batch.X.col(i) + options_.radius / distance * moved;
      }
    }
    return X;
  }

  /// Collective. A step of gradient descent on the mean loss of attacked points.
  void step(const Batch& batch) {
    if (structure_ == AdversarialTraining::Structure::by_work && counts_.steps == next_look_) choose(batch.X);
    ++counts_.steps;
    if (tree_.has_balls()) ++counts_.steps_with_tree;
    const MatrixXd X = attacked(batch);
    const VectorXd f = values(X);
    std::ranges::sort(active_, {}, [](const Pair& pair) { return std::pair(pair.place, pair.point); });
    VectorXd change(X.rows());
    for (auto pair = active_.begin(); pair != active_.end();) {
      const Index place = pair->place;
      change.setZero();
      for (; pair != active_.end() && pair->place == place; ++pair)
        change += loss_slope(batch.y[pair->point], f[pair->point]) * X.col(pair->point);
      change *= -options_.rate * scale_ * tree_.weights()[place] / static_cast<double>(X.cols());
      tree_.move(place, change);
    }
    tree_.keep_tight();
  }

  /// Collective.
  Quality quality(const Batch& points) {
    constexpr Index kAtOnce = 64;
    const auto n = static_cast<double>(points.y.size());
    Quality mean;
    for (Index first = 0; first < points.y.size(); first += kAtOnce) {
      const Batch part = points.part(first, std::min(kAtOnce, points.y.size() - first));
      const VectorXd margin = part.y.cwiseProduct(values(part.X));
      const VectorXd attacked_margin = part.y.cwiseProduct(values(attacked(part)));
      mean.accuracy += static_cast<double>((margin.array() > 0).count()) / n;
      mean.robust += static_cast<double>((attacked_margin.array() > 0).count()) / n;
      for (const double m : attacked_margin) mean.loss += (std::max(-m, 0.0) + std::log1p(std::exp(-std::abs(m)))) / n;
    }
    return mean;
  }

  /// Local, of this rank's neurons.
  Counts counts() const {
    Counts counts = counts_;
    counts.touched = static_cast<double>(tree_.touched());
    counts.nodes = static_cast<double>(tree_.nodes_tested());
    return counts;
  }

  /// Collective. max |w_r - w_r(0)|
  double movement() const { return largest_distance(neurons() - start(tree_.neurons().rows())); }
  /// Collective. The length of the longest column.
  double largest_distance(const MatrixXd& difference) const {
    double largest = 0;
    for (const auto& neuron : difference.colwise()) largest = std::max(largest, neuron.stableNorm());
    return communicator_.max(largest);
  }

 private:
  /// Collective, one sum of 16 bytes. The tree or all inner products, by the work that is counted or estimated for the
  /// steps since the last look or, before a tree is made, for all that are left.
  void choose(const MatrixXd& X) {
    const int reports = options_.attack_steps + 1, left = options_.steps - counts_.steps;
    const double dense = reports * tree_.work_without_balls(X.cols());
    std::array<double, 2> work{tree_.work() - seen_work_, (counts_.steps - last_look_) * dense};
    if (!tree_.has_balls()) {
      const auto [report, moves] = tree_.trial(X, shift_);
      work = {left * (reports * report + moves) + tree_.work_of_build(), left * dense};
    }
    communicator_.sum(work);
    const bool with_tree = work[0] < work[1];
    if (with_tree && !tree_.has_balls()) {
      tree_.build();
      wait_ = kLooks;
    } else if (!with_tree) {
      tree_.drop_balls();
    }
    seen_work_ = tree_.work();
    last_look_ = counts_.steps;
    next_look_ = counts_.steps + wait_;
    if (!with_tree) wait_ *= 2;
  }

  struct Pair {
    Index place, point;
  };

  /// w_r(0), a column each.
  MatrixXd start(Index dimension) const {
    MatrixXd neurons(dimension, shares_.rows_local(communicator_.rank()));
    const RandomStream random(options_.seed, Purpose::experiment_start);
    for (Index r = 0; r < neurons.cols(); ++r)
      random.normals(first_neuron() + r, {neurons.col(r).data(), static_cast<std::size_t>(dimension)});
    return neurons;
  }

  /// a_r
  VectorXd signs() const {
    VectorXd signs(shares_.rows_local(communicator_.rank()));
    const RandomStream random(options_.seed, Purpose::experiment_signs);
    for (Index r = 0; r < signs.size(); ++r) signs[r] = random.bits(first_neuron() + r)[0] & 1 ? 1 : -1;
    return signs;
  }

  const Communicator& communicator_;
  const AdversarialTraining& options_;
  AdversarialTraining::Structure structure_;
  double shift_, scale_;
  RowPartition shares_;
  NeuronTree tree_;
  std::vector<Pair> active_;  ///< of the last values
  Counts counts_;
  int last_look_ = 0, next_look_ = 0, wait_ = kLooks;  ///< in steps
  double seen_work_ = 0;                               ///< of the tree, at the last look
};

/// The points of each step: all of them in a random order, again and again.
std::vector<Batch> batches(const Points& points, const AdversarialTraining& options) {
  const auto n = static_cast<std::size_t>(points.y.size());
  std::vector<std::pair<double, Index>> order;
  const RandomStream random(options.seed, Purpose::experiment_data, 2);
  for (std::size_t i = 0; i < n; ++i)
    order.emplace_back(random.uniform(static_cast<std::int64_t>(i)), static_cast<Index>(i));
  std::ranges::sort(order);
  const Index size = std::min<Index>(options.batch, points.y.size());
  std::vector<Batch> all;
  std::size_t next = 0;
  for (int step = 0; step < options.steps; ++step) {
    Batch& batch = all.emplace_back(Batch{MatrixXd(points.X.cols(), size), VectorXd(size)});
    for (Index k = 0; k < size; ++k) {
      const Index i = order[next++ % n].second;
      batch.X.col(k) = points.X.row(i).transpose();
      batch.y[k] = points.y[i];
    }
  }
  return all;
}

/// Collective. The seconds that it takes.
template <class Work>
double timed(const Communicator& communicator, Work&& work) {
  communicator.barrier();
  const RootClock clock(communicator);
  work();
  return clock.sum(communicator);
}

void train_on(ShiftedNetwork& network, const std::vector<Batch>& all) {
  for (const Batch& batch : all) {
    network.step(batch);
    InWork::add(1);
  }
}

void check_labels(const VectorXd& y) {
  for (Index i = 0; i < y.size(); ++i)
    if (std::abs(y[i]) != 1)
      refuse("y[" + std::to_string(i) + "] is " + text_of(y[i]) + "; expected 1 or -1, the two classes");
}

/// Collective. Trains one width; a row of the table.
std::vector<double> train_width(const Communicator& communicator, const Points& points,
                                const AdversarialTraining& options, std::int64_t m, AdversarialFit& fit) {
  constexpr Index kTested = 200;
  const Index d = points.X.cols(), tested = std::min(kTested, points.X.rows());
  const Batch test{points.X.topRows(tested).transpose(), points.y.head(tested)};
  const auto all = batches(points, options);
  const double own = std::ceil(static_cast<double>(m) / communicator.size());
  require_memory(communicator, 8 * own * static_cast<double>(d) * (options.compares ? 5 : 4),
                 std::to_string(m) + " neurons in " + std::to_string(d) + " dimensions");

  std::optional<ShiftedNetwork> network;
  double seconds = timed(communicator, [&] { network.emplace(communicator, options, d, m, options.structure); });
  const Quality before = network->quality(test);
  const Counts untrained = network->counts();
  seconds += timed(communicator, [&] { train_on(*network, all); });
  const Counts trained = network->counts();
  const double points_seen = trained.points - untrained.points;
  std::array counts{trained.active - untrained.active, trained.touched - untrained.touched,
                    trained.nodes - untrained.nodes};
  communicator.sum(counts);
  for (double& count : counts) count /= points_seen * static_cast<double>(m);
  const Quality after = network->quality(test);
  const double shift = network->shift();
  std::vector<double> row{static_cast<double>(m),
                          shift,
                          counts[0],
                          share_above(shift),
                          std::pow(m, -0.2),
                          static_cast<double>(trained.steps_with_tree) / options.steps,
                          counts[1],
                          counts[2],
                          before.loss,
                          after.loss,
                          after.accuracy,
                          after.robust,
                          network->movement(),
                          seconds};
  const MatrixXd neurons = network->neurons();
  fit = {{}, neurons.transpose(), network->output_weights(), network->first_neuron(), m};
  network.reset();
  if (options.compares) {
    std::optional<ShiftedNetwork> dense;
    row.push_back(timed(communicator, [&] {
      dense.emplace(communicator, options, d, m, AdversarialTraining::Structure::dense);
      train_on(*dense, all);
    }));
    row.push_back(dense->largest_distance(dense->neurons() - neurons));
  }
  return row;
}

}  // namespace

AdversarialFit adversarial_training(const Communicator& communicator, const Points& points,
                                    const AdversarialTraining& options) {
  check_labels(points.y);
  Table table{
      "adversarial-training",
      "Adversarial training of a shifted ReLU network, " + std::to_string(points.X.rows()) + " points in " +
          std::to_string(points.X.cols()) + " dimensions, ball of radius " + text_of(options.radius) + ", " +
          std::to_string(options.steps) + " steps of " +
          std::to_string(std::min<std::int64_t>(options.batch, points.y.size())) + " points",
      {"width", "shift", "active", "expected", "bound", "tree", "touched", "nodes", "loss_before", "loss", "accuracy",
       "robust", "movement", "seconds"},
      {},
      {"active: mean fraction of the neurons with <w, x> >= shift; expected: P(N(0, 1) >= shift); bound: m^-0.2",
       "tree: fraction of the steps with balls around the neurons; else all inner products are made, by blocks",
       "touched: fraction of the inner products that were formed; nodes: of those with centres of balls",
       "loss, robust: under attack; loss_before: before training"}};
  if (options.compares) {
    table.columns.insert(table.columns.end(), {"dense_seconds", "difference"});
    table.reading.push_back(
        "dense_seconds: all neurons at all points, blocks of matrix products; difference: max |w - w "
        "of dense training|");
  }
  AdversarialFit fit;
  std::vector<std::vector<double>> rows;
  const InWork training("training", "steps",
                        static_cast<double>(options.widths.size()) * options.steps * (options.compares ? 2 : 1));
  for (const std::int64_t m : options.widths) rows.push_back(train_width(communicator, points, options, m, fit));
  table.rows = std::move(rows);
  fit.table = std::move(table);
  return fit;
}

}  // namespace attnreg::experiments
