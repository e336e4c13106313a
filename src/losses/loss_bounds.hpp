#pragma once

#include <Eigen/Core>
#include <string_view>

#include "attnreg/communicator.hpp"

namespace attnreg {

/// This rank's rows at a point.
struct PointRows {
  Eigen::VectorXd f, b, delta;
  Eigen::VectorXd f_error;  ///< relative error of f_i, estimated
};

/// How far f can move in a ball around the point: f_i(y) is in [f_i / (growth_i mass), f_i growth_i].
struct BallGrowth {
  Eigen::VectorXd growth;  ///< this rank's rows, >= 1
  double mass = 1;
};

/// What a certificate needs to know of a loss besides its derivatives; its weights f must be softmax(z). A new loss is
/// one class here. The third derivative of its data term in a direction u = A v is
///
///   phi'''[u, u, u] = sum f_i pi_i c_i^3 - 3 (sum delta_i c_i) (sum f_i c_i^2),   c = u - <f, u> 1,
///
/// the second term only for some losses. docs/certificate.md derives it.
class LossBounds {
 public:
  virtual ~LossBounds() = default;

  /// Collective. Row by row an upper bound of |pi_i| in the ball, the rounding of pi_i included.
  virtual Eigen::VectorXd third_derivative(const PointRows& rows, const BallGrowth& ball,
                                           const Communicator& communicator) const = 0;
  /// Whether the second term is there. Local.
  virtual bool has_mean_term() const = 0;

  /// c >= 0 with Hess phi >= -c I everywhere, from <b, 1> and |b|_1. Local.
  virtual double indefiniteness(double target_sum, double target_norm) const = 0;

  /// Estimated absolute errors.
  struct Rounding {
    Eigen::VectorXd delta;  ///< of delta_i, this rank's rows
    double mean = 0;        ///< e, where the q_i have the errors e f_i besides those of their own; replicated
  };
  /// Collective.
  virtual Rounding rounding(const PointRows& rows, const Communicator& communicator) const = 0;
};

/// Local. Those of a loss by name; null where they are not known.
const LossBounds* find_loss_bounds(std::string_view loss);

}  // namespace attnreg
