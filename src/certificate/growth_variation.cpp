#include "certificate/growth_variation.hpp"

#include <array>
#include <cmath>
#include <limits>

namespace attnreg {

GrowthVariation::GrowthVariation(const RowMatrix& A, const PointRows& rows, const GrowthBounds& loss,
                                 const VariationFrame& frame)
    : HessianVariation(A, frame, VectorXd::Zero(A.columns())), rows_(rows), loss_(loss) {
  measure(VectorXd::Zero(rows.z.size()));
  if (!loss.is_rescaled()) return;
  shared_ = loss.shared(rows, SumOfRanks(communicator()));
  const LossBounds::Rounding rounding = loss.rounding(rows, SumOfRanks(communicator()));
  std::array<double, 2> errors{rounding.centre.dot(distance()), rounding.coupling.dot(distance())};
  communicator().sum(errors);
  const double B = shared_.target_squared;
  slopes_ = (N().transpose() * frame.centre).norm() + errors[0];
  along_ = (N().transpose() * frame.coupled_centre).norm() + errors[1];
  coupled_ = (N().transpose() * (frame.coupled_centre - B * frame.centre)).norm() + errors[1] + B * errors[0];
}

double GrowthVariation::bound_in_ball(double radius) const {
  constexpr double kEps = std::numeric_limits<double>::epsilon();
  const GrowthBounds::Range range = loss_.range(rows_, radius * distance());
  const auto b = rows_.b.array();
  Eigen::ArrayXd target = b, doubt = Eigen::ArrayXd::Zero(b.size());
  double mixed = 0;
  if (loss_.is_rescaled()) {
    const VectorXd u = range.size();
    const Eigen::ArrayXd from_square = (b - shared_.target_squared).abs();
    const double curvature = largest_eigenvalue(whitened_gram(u)),
                 along = largest_eigenvalue(whitened_gram((u.array() * b.abs()).matrix())),
                 coupled = largest_eigenvalue(whitened_gram((u.array() * from_square).matrix()));
    // alpha and <b, u> change along the way by their gradients A^T v and A^T (v o b), which change themselves.
    const double alpha_move = radius * (slopes_ + 0.5 * radius * curvature),
                 along_move = radius * (along_ + 0.5 * radius * along);
    mixed = 3 * ((coupled_ + radius * coupled) * curvature + (slopes_ + radius * curvature) * along);
    const double alpha = rows_.point.reference, gamma = rows_.point.scalars[0];
    target = alpha * b + gamma;
    doubt = from_square * alpha_move + along_move + b.abs() * shared_.alpha_error + shared_.gamma_error +
            8 * kEps * ((alpha * b).abs() + std::abs(gamma));
  }
  const Eigen::ArrayXd factor = (4 * range.low.array() - target).abs().max((4 * range.high.array() - target).abs());
  const Eigen::ArrayXd rounding = 8 * kEps * (4 * range.size().array() + target.abs());
  const VectorXd cubic = range.slope.array() * (factor + doubt + rounding) * distance().array();
  return largest_eigenvalue(whitened_gram(cubic)) + mixed;
}

}  // namespace attnreg
