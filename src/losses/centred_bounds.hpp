#pragma once

#include <Eigen/Core>
#include <string_view>

#include "losses/loss_bounds.hpp"

namespace attnreg {

/// How far f can move in a ball around the point: f_i(y) is in [f_i / (growth_i mass), f_i growth_i].
struct BallGrowth {
  Eigen::VectorXd growth;  ///< this rank's rows, >= 1
  double mass = 1;
};

/// Of centred losses. f must be softmax(z). The third derivative of the data term in a direction u = A v is
///
///   phi'''[u, u, u] = sum f_i pi_i c_i^3 - 3 (sum delta_i c_i) (sum f_i c_i^2),   c = u - <f, u> 1,
///
/// the second term only for some losses. docs/certificate.md derives it.
class CentredBounds : public LossBounds {
 public:
  /// Collective. Row by row an upper bound of |pi_i| in the ball, the rounding of pi_i included.
  virtual Eigen::VectorXd third_derivative(const PointRows& rows, const BallGrowth& ball,
                                           const SumOfRanks& ranks) const = 0;
  /// Whether the second term is there. Local.
  virtual bool has_mean_term() const = 0;
};

/// Local. Null for another loss.
const CentredBounds* find_centred_bounds(std::string_view loss);

}  // namespace attnreg
