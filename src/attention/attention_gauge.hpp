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
///     X + n y^T,  A1 n = 0;       X + y v^T,  A2 v = 0, or the same number for all keys that a query sees, where no
///     and Y + n z^T,  A3 n = 0;                   loss weight sees it;       P S, Q S^-T
///
/// for the queries and keys of all sequences; and X + D where D is no such product and changes no logit that a query
/// sees, or those of a query alike: of X without a rank, up to `kMostTogether` directions beside the products. Such D
/// come from masks, or from sequences of few queries.
class AttentionGauge {
 public:
  static constexpr Index kMostTogether = 1024;  ///< whose square matrix rank 0 makes and factors

  /// Collective, one pass, and another for D. u: the unknowns of X. with_Y: Y is among the unknowns.
  AttentionGauge(AttentionPasses& passes, const std::vector<AttentionSequence>& sequences,
                 const AttentionParameters& parameters, const Eigen::VectorXd& u, bool with_Y);

  // Local.
  Eigen::VectorXd project(const Eigen::VectorXd& v) const;
  Index dimension() const { return dimension_; }                    ///< of what is left
  const std::vector<std::string>& names() const { return names_; }  ///< the freedoms, with their dimensions

 private:
  void name(Index dimension, const std::string& text);
  void find_factor_gauge(const Communicator& communicator, const Eigen::VectorXd& u);
  void leave_out_factor_gauge(RowMajorMatrix& dP, RowMajorMatrix& dQ) const;

  const AttentionParameters& parameters_;
  Index d3_ = 0, dv_ = 0, dimension_ = 0;
  Eigen::MatrixXd queries_, keys_, values_;  // orthonormal bases of the null spaces
  Eigen::MatrixXd together_;                 // the same of the D, outside of these
  // P and Q without their parts there; P^T P = U diag(a) U^T, Q^T Q = V diag(b) V^T of these
  RowMajorMatrix P_, Q_;
  Eigen::MatrixXd U_, V_;
  Eigen::VectorXd a_, b_;
  std::vector<std::string> names_;
};

}  // namespace attnreg
