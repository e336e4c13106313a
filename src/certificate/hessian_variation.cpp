#include "certificate/hessian_variation.hpp"
#include "rows/gram.hpp"
#include "rows/row_passes.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>

#include "algebra/dense_factors.hpp"
#include "numbers/row_sums.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

constexpr double kSumSlack = 1 + 1e-6;  // covers the rounding of the sums behind K, about sqrt(n) eps

}  // namespace

HessianVariation::HessianVariation(const RowMatrix& A, const PointRows& rows, const VectorXd& centre,
                                   const LossBounds& loss, const MatrixXd& N)
    : A_(A), rows_(rows), loss_(loss), N_(N), centre_(centre), distance_(A.rows_local()) {
  const VectorXd zero = VectorXd::Zero(A.columns());
  const VectorXd mean = A_.passes().pass(zero, [&](const Tile& tile, VectorXd& sum) {
    const Index first = tile.first_local(), count = tile.rows();
    const MatrixXd white = (tile.dense().rowwise() - centre_.transpose()) * N_;
    distance_.segment(first, count) = white.rowwise().norm();
    sum += white.transpose() * rows_.delta.segment(first, count);
  });
  const LossBounds::Rounding rounding = loss_.rounding(rows_, A_.communicator());
  VectorXd message(mean.size() + 1);
  message << mean, rounding.delta.dot(distance_);
  A_.communicator().sum(span_of(message));
  mean_term_ = message.head(mean.size()).norm() + message[mean.size()];
  row_distance_ = A_.communicator().max(distance_.size() > 0 ? distance_.maxCoeff() : 0.0);
}

BallGrowth HessianVariation::growth_in_ball(double radius) const {
  const VectorXd growth = (radius * distance_.array()).exp();
  // sum f_i h_i = 0 about the centre, and exp(h) - h grows with |h|.
  const auto mass = sum_over_rows<1>(growth.size(), [&](Index first, Index count, std::array<double, 1>& block) {
    for (Index i = first; i < first + count; ++i) block[0] += rows_.f[i] * (growth[i] - radius * distance_[i]);
  });
  return {growth, std::max(1.0, A_.communicator().sum(mass[0]) * kSumSlack)};
}

MatrixXd HessianVariation::whitened_gram(const VectorXd& weights) const {
  MatrixXd gram = signed_gram(A_, {weights}, centre_).positive;
  A_.communicator().sum_to_root(span_of(gram));
  return A_.communicator().is_root() ? MatrixXd(N_.transpose() * gram * N_) : MatrixXd();
}

double HessianVariation::largest_eigenvalue(const MatrixXd& matrix) const {
  std::array<double, 1> largest{};
  if (A_.communicator().is_root()) {
    const SymmetricEigen eigen = symmetric_eigen(matrix, false);
    largest[0] = eigen.finite ? std::max(0.0, eigen.values.maxCoeff()) : std::numeric_limits<double>::infinity();
  }
  A_.communicator().broadcast(largest);
  return largest[0];
}

double HessianVariation::bound(double radius) const {
  if (!(radius * row_distance_ <= largest_growth)) return std::numeric_limits<double>::infinity();
  const BallGrowth ball = growth_in_ball(radius);
  const VectorXd f_grown = rows_.f.cwiseProduct(ball.growth);
  const VectorXd cubic = f_grown.cwiseProduct(loss_.third_derivative(rows_, ball, A_.communicator()));
  const VectorXd cubic_far = cubic.cwiseProduct(distance_);
  std::array<double, 3> sums{cubic.sum(), cubic_far.sum(), f_grown.squaredNorm()};
  A_.communicator().sum(sums);

  const double variance = largest_eigenvalue(whitened_gram(f_grown));
  const double centre_shift = radius * variance;  // |abar(y) - abar(x)|
  const auto moved_centre = [&](double eigenvalue, double mass) {
    const double root = std::sqrt(eigenvalue) + centre_shift * std::sqrt(mass);
    return root * root;
  };
  const MatrixXd gram = whitened_gram(cubic);
  const MatrixXd gram_far = whitened_gram(cubic_far) + centre_shift * gram;
  double K = moved_centre(largest_eigenvalue(gram_far), sums[1] + centre_shift * sums[0]);
  if (loss_.has_mean_term()) {
    const double change = moved_centre(largest_eigenvalue(gram), sums[0]) + sums[2] * variance;
    K += 3 * (mean_term_ + radius * change) * variance;
  }
  return std::isfinite(K) ? K * kSumSlack : std::numeric_limits<double>::infinity();
}

}  // namespace attnreg
