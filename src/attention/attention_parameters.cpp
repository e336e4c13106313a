#include "attention/attention_parameters.hpp"

#include "algebra/dense_factors.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

using Eigen::VectorXd;

VectorXd AttentionParameters::joined(const RowMajorMatrix& P, const RowMajorMatrix& Q) const {
  VectorXd u(size());
  u << flat(P), flat(Q);
  return u;
}

RowMajorMatrix AttentionParameters::X(const VectorXd& u) const {
  if (is_low_rank()) return P(u) * Q(u).transpose();
  return Eigen::Map<const RowMajorMatrix>(u.data(), d1_, d2_);
}

RowMajorMatrix AttentionParameters::displacement(const VectorXd& u, const VectorXd& s, double t) const {
  RowMajorMatrix result = t * tangent(u, s);
  if (is_low_rank()) result += t * t * P(s) * Q(s).transpose();
  return result;
}

RowMajorMatrix AttentionParameters::tangent(const VectorXd& u, const VectorXd& p) const {
  if (is_low_rank()) return P(p) * Q(u).transpose() + P(u) * Q(p).transpose();
  return Eigen::Map<const RowMajorMatrix>(p.data(), d1_, d2_);
}

VectorXd AttentionParameters::pull_back(const VectorXd& u, const RowMajorMatrix& G) const {
  if (is_low_rank()) return joined(G * Q(u), G.transpose() * P(u));
  return flat(G);
}

VectorXd AttentionParameters::curvature_product(const VectorXd& p, const RowMajorMatrix& G) const {
  if (is_low_rank()) return joined(G * Q(p), G.transpose() * P(p));
  return VectorXd::Zero(size());
}

VectorXd AttentionParameters::nearest(const Communicator& communicator, const RowMajorMatrix& X) const {
  if (!is_low_rank()) return flat(X);
  VectorXd u(size());
  if (communicator.is_root()) {
    const ThinSvd svd = thin_svd(X);
    const VectorXd root = svd.values.head(rank_).cwiseSqrt();
    u = joined(svd.U.leftCols(rank_) * root.asDiagonal(), svd.V.leftCols(rank_) * root.asDiagonal());
  }
  communicator.broadcast(span_of(u));
  return u;
}

}  // namespace attnreg
