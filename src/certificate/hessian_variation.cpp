#include "certificate/hessian_variation.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "certificate/growth_variation.hpp"
#include "losses/centred_bounds.hpp"
#include "numbers/row_sums.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

/// Theorem 2.
class CentredVariation final : public HessianVariation {
 public:
  CentredVariation(const RowMatrix& A, const PointRows& rows, const CentredBounds& loss, const VariationFrame& frame)
      : HessianVariation(A, frame, frame.centre), rows_(rows), loss_(loss) {
    const VectorXd mean = measure(rows_.delta);
    const LossBounds::Rounding rounding = loss_.rounding(rows_, SumOfRanks(communicator()));
    VectorXd message(mean.size() + 1);
    message << mean, rounding.delta.dot(distance());
    communicator().sum(span_of(message));
    mean_term_ = message.head(mean.size()).norm() + message[mean.size()];
  }

 private:
  double bound_in_ball(double radius) const override;
  BallGrowth growth_in_ball(double radius) const;

  const PointRows& rows_;
  const CentredBounds& loss_;
  double mean_term_ = 0;  // mu >= |sum delta_i (a_i - abar)|_{G^-1}
};

BallGrowth CentredVariation::growth_in_ball(double radius) const {
  const VectorXd growth = (radius * distance().array()).exp();
  // sum f_i h_i = 0 about the centre, and exp(h) - h grows with |h|.
  const auto mass = sum_over_rows<1>(growth.size(), [&](Index first, Index count, std::array<double, 1>& block) {
    for (Index i = first; i < first + count; ++i) block[0] += rows_.f[i] * (growth[i] - radius * distance()[i]);
  });
  return {growth, std::max(1.0, communicator().sum(mass[0]) * sum_slack)};
}

double CentredVariation::bound_in_ball(double radius) const {
  const BallGrowth ball = growth_in_ball(radius);
  const VectorXd f_grown = rows_.f.cwiseProduct(ball.growth);
  const VectorXd cubic = f_grown.cwiseProduct(loss_.third_derivative(rows_, ball, SumOfRanks(communicator())));
  const VectorXd cubic_far = cubic.cwiseProduct(distance());
  std::array<double, 3> sums{cubic.sum(), cubic_far.sum(), f_grown.squaredNorm()};
  communicator().sum(sums);

  const double variance = largest_eigenvalue(whitened_gram(f_grown));
  const double centre_shift = radius * variance;  // |abar(y) - abar(x)|
  const auto moved_centre = [&](double eigenvalue, double mass) {
    const double root = std::sqrt(eigenvalue) + centre_shift * std::sqrt(mass);
    return root * root;
  };
  const MatrixXd gram = whitened_gram(cubic);
  const MatrixXd gram_far = whitened_gram(cubic_far) + centre_shift * gram;
  const double K = moved_centre(largest_eigenvalue(gram_far), sums[1] + centre_shift * sums[0]);
  if (!loss_.has_mean_term()) return K;
  const double change = moved_centre(largest_eigenvalue(gram), sums[0]) + sums[2] * variance;
  return K + 3 * (mean_term_ + radius * change) * variance;
}

}  // namespace

std::unique_ptr<HessianVariation> hessian_variation(const RowMatrix& A, const PointRows& rows, const LossBounds& loss,
                                                    const VariationFrame& frame) {
  if (const auto* centred = dynamic_cast<const CentredBounds*>(&loss))
    return std::make_unique<CentredVariation>(A, rows, *centred, frame);
  return std::make_unique<GrowthVariation>(A, rows, dynamic_cast<const GrowthBounds&>(loss), frame);
}

}  // namespace attnreg
