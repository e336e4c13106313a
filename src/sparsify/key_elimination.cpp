#include "sparsify/key_elimination.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "ranks/activity.hpp"
#include "ranks/stop.hpp"

namespace attnreg {

namespace {

constexpr double kNoStep = std::numeric_limits<double>::infinity();

// Weights move only where that lowers the error by more than this share of what the move itself is: they stay near 1
// where keys are nearly dependent.
constexpr double kWeightRidge = 1e-3;
constexpr int kMostSweeps = 300;
constexpr double kSmallestMove = 1e-6;  // of a sweep, relative: what is left to gain is its square

}  // namespace

ChunkElimination::ChunkElimination(MatrixXd gram, VectorXd weights, VectorXd floors)
    : gram_(std::move(gram)),
      weights_(std::move(weights)),
      floors_(std::move(floors)),
      inverse_diagonal_(gram_.diagonal().unaryExpr([](double x) { return x > 0 ? 1 / x : 0; })),
      change_(VectorXd::Zero(weights_.size())),
      alive_(Eigen::VectorXi::Ones(weights_.size())),
      next_{kNoStep} {
  find_next();
}

// f - w_a x_a + g x_b has the square |f|^2 - 2 w_a h_a + w_a^2 G_aa - g (2 r - g G_bb), r = w_a G_ab - h_b, which is
// least at g = r / G_bb.
ChunkElimination::Step ChunkElimination::best_heir(Index out) const {
  const double w = weights_[out];
  const double alone = w * (w * gram_(out, out) - 2 * change_[out]);
  Step best{kNoStep};
  for (Index b = 0; b < weights_.size(); ++b) {
    if (b == out || alive_[b] == 0) continue;
    const double r = w * gram_(b, out) - change_[b];
    const double growth = std::max(r * inverse_diagonal_[b], floors_[b] - weights_[b]);
    const double cost = alone - growth * (2 * r - growth * gram_(b, b));
    if (cost < best.cost) best = {cost, out, b, growth};
  }
  return best;
}

void ChunkElimination::find_next() {
  next_ = {kNoStep};
  for (Index out = 0; out < weights_.size(); ++out) {
    if (alive_[out] == 0 || floors_[out] > 0) continue;
    const Step step = best_heir(out);
    if (step.cost < next_.cost) next_ = step;
  }
}

void ChunkElimination::step() {
  change_ += next_.growth * gram_.col(next_.heir) - weights_[next_.out] * gram_.col(next_.out);
  weights_[next_.heir] += next_.growth;
  weights_[next_.out] = 0;
  alive_[next_.out] = 0;
  find_next();
}

void eliminate(std::vector<ChunkElimination>& chunks, Index count) {
  const InWork work("choice of keys", "keys", static_cast<double>(count));
  for (; count > 0 && !is_in_vain(); --count) {
    const auto cheapest = std::ranges::min_element(chunks, {}, &ChunkElimination::next_cost);
    if (cheapest == chunks.end() || !(cheapest->next_cost() < kNoStep)) return;
    cheapest->step();
    InWork::add(1);
  }
}

VectorXd fitted_weights(const MatrixXd& gram, const VectorXd& target, const VectorXd& start, const VectorXd& floors) {
  VectorXd w = start, products = gram * w;
  const InWork work("weights of keys", "sweeps", kMostSweeps);
  for (int sweep = 0; sweep < kMostSweeps && !is_in_vain(); ++sweep) {
    double moved = 0, size = 0;
    for (Index j = 0; j < w.size(); ++j) {
      const double g = gram(j, j);
      if (!(g > 0)) continue;
      const double best = (target[j] - products[j] + g * w[j] + kWeightRidge * g * start[j]) / (g * (1 + kWeightRidge));
      const double move = std::max(best, floors[j]) - w[j];
      if (move != 0) products += move * gram.col(j);
      w[j] += move;
      moved += g * move * move;
      size += g * w[j] * w[j];
    }
    InWork::add(1);
    if (moved <= kSmallestMove * kSmallestMove * size) break;
  }
  return w;
}

}  // namespace attnreg
