#pragma once

#include <Eigen/Core>
#include <string>
#include <vector>

#include "attention/attention_parameters.hpp"
#include "attention/attention_passes.hpp"

namespace attnreg {

/// Directions of the unknowns [u; vec Y] along which L does not change whatever B is, from the data and the
/// parametrisation alone, and the orthogonal projection onto what is left (docs/attention.md, "Certificate"):
///
///     X + n y^T,  A1 n = 0;       X + y v^T,  A2 v = 0, or the same number for all keys of a sequence where no loss
///     and Y + n z^T,  A3 n = 0;                   weight sees it;       P S, Q S^-T
///
/// A null space is one if it holds for all sequences.
class AttentionGauge {
 public:
  /// Collective, one all-reduce of d1^2 numbers. u: the unknowns of X. with_Y: Y is among the unknowns.
  AttentionGauge(const AttentionPasses& passes, const std::vector<AttentionSequence>& sequences,
                 const AttentionParameters& parameters, const Eigen::VectorXd& u, bool with_Y);

  // Local.
  Eigen::VectorXd project(const Eigen::VectorXd& v) const;
  Index dimension() const { return dimension_; }                    ///< of what is left
  const std::vector<std::string>& names() const { return names_; }  ///< the freedoms, with their dimensions

 private:
  void name(Index dimension, const std::string& text);
  Eigen::MatrixXd null_space(const Communicator& communicator, const Eigen::MatrixXd& gram) const;
  void find_factor_gauge(const Communicator& communicator, const Eigen::VectorXd& u);
  void leave_out_factor_gauge(RowMajorMatrix& dP, RowMajorMatrix& dQ) const;

  const AttentionParameters& parameters_;
  Index d3_ = 0, dv_ = 0, dimension_ = 0;
  Eigen::MatrixXd queries_, keys_, values_;  // orthonormal bases of the null spaces
  // P and Q without their parts there; P^T P = U diag(a) U^T, Q^T Q = V diag(b) V^T of these
  RowMajorMatrix P_, Q_;
  Eigen::MatrixXd U_, V_;
  Eigen::VectorXd a_, b_;
  std::vector<std::string> names_;
};

}  // namespace attnreg
