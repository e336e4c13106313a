#pragma once

#include <Eigen/Core>

#include "attnreg/row_storage.hpp"

namespace attnreg {

/// vec of a matrix, row by row.
inline Eigen::VectorXd flat(const RowMajorMatrix& matrix) {
  return Eigen::Map<const Eigen::VectorXd>(matrix.data(), matrix.size());
}

/// How X depends on the unknowns u of the iteration: X = u itself, or X = P Q^T with u = [vec P; vec Q]. Local, but for
/// `nearest`.
class AttentionParameters {
 public:
  AttentionParameters(Index d1, Index d2, Index rank) : d1_(d1), d2_(d2), rank_(rank) {}

  bool is_low_rank() const { return rank_ > 0; }
  Index rank() const { return rank_; }
  Index size() const { return is_low_rank() ? (d1_ + d2_) * rank_ : d1_ * d2_; }

  RowMajorMatrix X(const Eigen::VectorXd& u) const;
  /// X(u + t s) - X(u): t (dP Q^T + P dQ^T) + t^2 dP dQ^T.
  RowMajorMatrix displacement(const Eigen::VectorXd& u, const Eigen::VectorXd& s, double t) const;
  /// The derivative of X along p: dP Q^T + P dQ^T.
  RowMajorMatrix tangent(const Eigen::VectorXd& u, const Eigen::VectorXd& p) const;
  /// Its transpose: [vec G Q; vec G^T P].
  Eigen::VectorXd pull_back(const Eigen::VectorXd& u, const RowMajorMatrix& G) const;
  /// What the curvature of X(u) adds to a Hessian product: [vec G dQ; vec G^T dP], G the gradient in X.
  Eigen::VectorXd curvature_product(const Eigen::VectorXd& p, const RowMajorMatrix& G) const;

  Eigen::Map<const RowMajorMatrix> P(const Eigen::VectorXd& u) const { return {u.data(), d1_, rank_}; }
  Eigen::Map<const RowMajorMatrix> Q(const Eigen::VectorXd& u) const { return {u.data() + d1_ * rank_, d2_, rank_}; }
  /// Collective. The unknowns of the best X of this rank (all of it without one): P = U S^{1/2}, Q = V S^{1/2} of
  /// X = U S V^T. Rank 0 factors X and broadcasts them.
  Eigen::VectorXd nearest(const Communicator& communicator, const RowMajorMatrix& X) const;

 private:
  Eigen::VectorXd joined(const RowMajorMatrix& P, const RowMajorMatrix& Q) const;

  Index d1_, d2_, rank_;
};

}  // namespace attnreg
