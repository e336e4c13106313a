#pragma once

#include <Eigen/Core>
#include <limits>
#include <string_view>

#include "losses/loss_bounds.hpp"

namespace attnreg {

/// Of exp, cosh, sinh and their rescaled forms, u with v = u' and u'' = u. The third derivative of the data term in a
/// direction with c = A v is
///
///   sum v_i (4 u_i - t_i) c_i^3,   t = b;   rescaled:   t = alpha b + gamma 1, and of this sum
///
///   - 3 <u, c^2> <v o (b - |b|^2 1), c> - 3 <v, c> <b o u, c^2>.
///
/// docs/certificate.md derives it.
class GrowthBounds : public LossBounds {
 public:
  virtual bool is_rescaled() const = 0;
  double indefiniteness(double, double) const override { return std::numeric_limits<double>::infinity(); }

  /// What u and v are where the logits move by up to h_i, rounding included.
  struct Range {
    Eigen::VectorXd low, high;                                                         ///< of u_i
    Eigen::VectorXd slope;                                                             ///< |v_i| at most
    Eigen::VectorXd size() const { return low.cwiseAbs().cwiseMax(high.cwiseAbs()); }  ///< |u_i| at most
  };
  /// Local.
  virtual Range range(const PointRows& rows, const Eigen::VectorXd& h) const = 0;

  /// Errors of numbers that all rows share, and |b|^2; 0 where nothing is rescaled.
  struct Shared {
    double alpha_error = 0, gamma_error = 0, target_squared = 0;
  };
  /// Collective.
  virtual Shared shared(const PointRows& rows, const SumOfRanks& ranks) const = 0;
};

/// Local. Null for another loss.
const GrowthBounds* find_growth_bounds(std::string_view loss);

}  // namespace attnreg
