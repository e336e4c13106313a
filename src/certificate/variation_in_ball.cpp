#include "certificate/variation_in_ball.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "algebra/dense_factors.hpp"
#include "ranks/span_of.hpp"
#include "rows/gram.hpp"
#include "rows/row_passes.hpp"

namespace attnreg {

HessianVariation::HessianVariation(const RowMatrix& A, const VariationFrame& frame, VectorXd centre)
    : A_(A),
      N_(frame.N),
      offsets_(frame.offsets),
      centre_(std::move(centre)),
      distance_(VectorXd::Zero(A.rows_local())) {}

VectorXd HessianVariation::measure(const VectorXd& weights) {
  const VectorXd zero = VectorXd::Zero(A_.columns());
  const VectorXd mean = A_.passes().pass(zero, [&](const Tile& tile, VectorXd& sum) {
    if (communicator().is_asked_to_stop()) return;
    const Index first = tile.first_local(), count = tile.rows();
    const MatrixXd white = (tile.dense().rowwise() - centre_.transpose()) * N_;
    distance_.segment(first, count) = white.rowwise().norm();
    sum += white.transpose() * weights.segment(first, count);
  });
  distance_ = offsets_.without_masked(std::move(distance_));
  row_distance_ = communicator().max(distance_.size() > 0 ? distance_.maxCoeff() : 0.0);
  return mean;
}

MatrixXd HessianVariation::whitened_gram(const VectorXd& weights) const {
  MatrixXd gram = signed_gram(A_, {weights}, centre_, OnStop::leave).positive;
  communicator().sum_to_root(span_of(gram));
  return communicator().is_root() ? MatrixXd(N_.transpose() * gram * N_) : MatrixXd();
}

double HessianVariation::largest_eigenvalue(const MatrixXd& matrix) const {
  std::array<double, 1> largest{};
  if (communicator().is_root()) {
    const SymmetricEigen eigen = symmetric_eigen(matrix, false);
    largest[0] = eigen.finite ? std::max(0.0, eigen.values.maxCoeff()) : std::numeric_limits<double>::infinity();
  }
  communicator().broadcast(largest);
  return largest[0];
}

double HessianVariation::bound(double radius) const {
  if (!(radius * row_distance_ <= largest_growth)) return std::numeric_limits<double>::infinity();
  const double K = bound_in_ball(radius);
  return std::isfinite(K) ? K * sum_slack : std::numeric_limits<double>::infinity();
}

}  // namespace attnreg
