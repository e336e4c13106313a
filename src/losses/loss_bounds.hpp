#pragma once

#include <Eigen/Core>
#include <span>

#include "attnreg/communicator.hpp"
#include "losses/loss.hpp"

namespace attnreg {

/// What adds the parts of all ranks: collective then. Without a communicator the rows at hand are all rows.
class SumOfRanks {
 public:
  SumOfRanks() = default;
  explicit SumOfRanks(const Communicator& communicator) : communicator_(&communicator) {}
  void sum(std::span<double> parts) const {
    if (communicator_ != nullptr) communicator_->sum(parts);
  }
  double sum(double part) const { return communicator_ != nullptr ? communicator_->sum(part) : part; }

 private:
  const Communicator* communicator_ = nullptr;
};

/// This rank's rows at a point.
struct PointRows {
  Eigen::VectorXd f;  ///< softmax(z) of centred losses; else of no use
  Eigen::VectorXd b, delta;
  Eigen::VectorXd z_error;  ///< estimated error of the logits, that of exp included: relative in f_i or exp(|z_i|)
  Eigen::VectorXd z{};      ///< of losses that are not centred
  LossPoint point{};
};

/// What a certificate needs to know of a loss besides its derivatives: one class for each.
class LossBounds {
 public:
  virtual ~LossBounds() = default;

  /// c >= 0 with Hess phi >= -c I everywhere, from <b, 1> and |b|_1; infinite where there is none. Local.
  virtual double indefiniteness(double target_sum, double target_norm) const = 0;

  /// Estimated absolute errors, this rank's rows.
  struct Rounding {
    Eigen::VectorXd delta;     ///< of delta_i
    Eigen::VectorXd centre;    ///< of the weights f_i in c = A^T f of `HessianForm`, and
    Eigen::VectorXd coupling;  ///< of m_i in A^T m, coupled losses only
    Eigen::VectorXd q;         ///< of q_i, where `Objective::gradient_floor` does not have it, or empty
    double mean = 0;           ///< e, where the q_i have the errors e f_i besides; replicated
  };
  /// Collective, if `ranks` are.
  virtual Rounding rounding(const PointRows& rows, const SumOfRanks& ranks) const = 0;
};

}  // namespace attnreg
