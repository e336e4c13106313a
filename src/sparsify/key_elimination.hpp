#pragma once

#include <Eigen/Core>
#include <span>
#include <vector>

#include "attnreg/row_partition.hpp"

namespace attnreg {

/// Keys of a chunk whose features are summed with weights, and which are taken out one by one: with the weight of key a
/// gone, that of another one, b, changes so that the sum stays as near as it can to what it was at first. Of all pairs
/// (a, b) the one is taken that leaves the smallest |f|^2, f being the change of the sum so far. Local.
class ChunkElimination {
 public:
  /// gram: of the features; weights: >= floors >= 0. Keys with a floor above 0 are never taken out.
  ChunkElimination(MatrixXd gram, VectorXd weights, VectorXd floors);

  /// What the best step would add to |f|^2; infinite if there is none.
  double next_cost() const { return next_.cost; }
  void step();  ///< Takes out a key. At most 3 m^2 flops for m keys.

  const VectorXd& weights() const { return weights_; }
  bool keeps(Index key) const { return alive_[key] != 0; }

 private:
  struct Step {
    double cost;
    Index out = 0, heir = 0;
    double growth = 0;  ///< of the heir's weight
  };
  Step best_heir(Index out) const;
  void find_next();

  MatrixXd gram_;
  VectorXd weights_, floors_, inverse_diagonal_;
  VectorXd change_;  ///< x_j^T f
  Eigen::VectorXi alive_;
  Step next_;
};

/// Local. Takes out `count` keys, fewer if there is no step left: in each step from the chunk where it costs least.
void eliminate(std::vector<ChunkElimination>& chunks, Index count);

/// Local. Weights >= floors that minimise |sum_j w_j x_j - t|^2 + ridge sum_j |x_j|^2 (w_j - start_j)^2, by coordinate
/// descent from `start` on: 2 m^2 flops a sweep. gram: x_j^T x_l; target: x_j^T t.
VectorXd fitted_weights(const MatrixXd& gram, const VectorXd& target, const VectorXd& start, const VectorXd& floors);

}  // namespace attnreg
