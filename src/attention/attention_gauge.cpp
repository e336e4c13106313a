#include "attention/attention_gauge.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "algebra/dense_factors.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

/// A matrix without its part in the column space of an orthonormal basis.
template <class Matrix>
Matrix outside(const MatrixXd& basis, const Matrix& matrix) {
  if (basis.cols() == 0) return matrix;
  return matrix - basis * (basis.transpose() * matrix);
}

void add_square(const RowMajorMatrix& rows, MatrixXd& gram) { gram += rows.transpose() * rows; }

}  // namespace

AttentionGauge::AttentionGauge(const AttentionPasses& passes, const std::vector<AttentionSequence>& sequences,
                               const AttentionParameters& parameters, const VectorXd& u, bool with_Y)
    : parameters_(parameters) {
  const AttentionShape& shape = passes.shape();
  const Communicator& communicator = passes.communicator();
  const bool shift = passes.loss().is_shift_invariant();
  MatrixXd queries = MatrixXd::Zero(shape.d1, shape.d1), keys = MatrixXd::Zero(shape.d2, shape.d2), seen = keys,
           values = MatrixXd::Zero(shape.d3, shape.d3);
  for (const auto& sequence : sequences) {
    add_square(sequence.queries, queries);
    add_square(sequence.keys, keys);
    const bool sees_shift = !shift || sequence.weights;
    const Eigen::RowVectorXd mean = sequence.keys.colwise().mean();
    add_square(sees_shift ? sequence.keys : RowMajorMatrix(sequence.keys.rowwise() - mean), seen);
    if (sequence.values) add_square(*sequence.values, values);
  }
  communicator.sum(span_of(queries));
  queries_ = null_space(communicator, queries);
  const Index unseen = null_space(communicator, keys).cols();
  keys_ = null_space(communicator, seen);
  values_ = null_space(communicator, values);

  const Index r = parameters.rank(), d1 = parameters.is_low_rank() ? r : shape.d2,
              d2 = parameters.is_low_rank() ? r : shape.d1;  // columns that a null space of A1, A2 is free in
  name(queries_.cols() * d1,
       "queries have " + std::to_string(queries_.cols()) + " null directions n, A1 n = 0: X + n y^T");
  name(unseen * d2, "keys have " + std::to_string(unseen) + " null directions v, A2 v = 0: X + y v^T");
  name((keys_.cols() - unseen) * d2, "a shift of the logits, which the loss does not see: X + y v^T, A2 v constant");
  const Index left1 = shape.d1 - queries_.cols(), left2 = shape.d2 - keys_.cols();
  if (parameters.is_low_rank()) {
    dimension_ = (left1 + left2) * r;
    find_factor_gauge(communicator, u);
  } else {
    dimension_ = left1 * left2;
  }
  name(values_.cols() * shape.dv,
       "values have " + std::to_string(values_.cols()) + " null directions n, A3 n = 0: Y + n z^T");
  if (with_Y) {
    d3_ = shape.d3;
    dv_ = shape.dv;
    dimension_ += (d3_ - values_.cols()) * dv_;
  }
}

void AttentionGauge::name(Index dimension, const std::string& text) {
  if (dimension > 0) names_.push_back(std::to_string(dimension) + ": " + text);
}

/// In columns of equal size; an eigenvalue is 0 where it drowns in rounding.
MatrixXd AttentionGauge::null_space(const Communicator& communicator, const MatrixXd& gram) const {
  const Index d = gram.rows();
  if (d == 0) return {};
  VectorXd message = VectorXd::Zero(1 + d * d);
  if (communicator.is_root()) {
    const VectorXd scale =
        gram.diagonal().unaryExpr([](double square) { return square > 0 ? 1 / std::sqrt(square) : 1.0; });
    const SymmetricEigen eigen = symmetric_eigen(scale.asDiagonal() * gram * scale.asDiagonal(), true);
    if (eigen.finite) {
      const Index null = (eigen.values.array() <= 4 * eigenvalue_rounding(d, eigen.values.norm())).count();
      message[0] = static_cast<double>(null);
      if (null > 0)
        message.segment(1, d * null) =
            orthonormal_columns(scale.asDiagonal() * eigen.vectors.leftCols(null)).reshaped();
    }
  }
  communicator.broadcast(span_of(message));
  const auto null = static_cast<Index>(message[0]);
  return message.segment(1, d * null).reshaped(d, null);
}

void AttentionGauge::find_factor_gauge(const Communicator& communicator, const VectorXd& u) {
  const Index r = parameters_.rank();
  P_ = outside(queries_, RowMajorMatrix(parameters_.P(u)));
  Q_ = outside(keys_, RowMajorMatrix(parameters_.Q(u)));
  VectorXd message = VectorXd::Zero(2 * r * (r + 1));
  if (communicator.is_root()) {
    const SymmetricEigen left = symmetric_eigen(P_.transpose() * P_, true);
    const SymmetricEigen right = symmetric_eigen(Q_.transpose() * Q_, true);
    if (left.finite && right.finite)
      message << left.values, right.values, left.vectors.reshaped(), right.vectors.reshaped();
  }
  communicator.broadcast(span_of(message));
  a_ = message.head(r).cwiseMax(0);
  b_ = message.segment(r, r).cwiseMax(0);
  U_ = message.segment(2 * r, r * r).reshaped(r, r);
  V_ = message.tail(r * r).reshaped(r, r);
  const double rounding = eigenvalue_rounding(r, a_.norm() + b_.norm());
  const Index moves = ((a_.replicate(1, r) + b_.transpose().replicate(r, 1)).array() > rounding).count();
  name(moves, "the factors, X = P Q^T = (P S)(Q S^-T)^T");
  dimension_ -= moves;
}

/// S of (P S, -Q S^T) that is nearest: P^T P S + S Q^T Q = P^T dP - dQ^T Q.
void AttentionGauge::leave_out_factor_gauge(RowMajorMatrix& dP, RowMajorMatrix& dQ) const {
  const double rounding = eigenvalue_rounding(a_.size(), a_.norm() + b_.norm());
  MatrixXd S = U_.transpose() * (P_.transpose() * dP - dQ.transpose() * Q_) * V_;
  for (Index j = 0; j < S.cols(); ++j)
    for (Index i = 0; i < S.rows(); ++i) S(i, j) = a_[i] + b_[j] > rounding ? S(i, j) / (a_[i] + b_[j]) : 0;
  S = U_ * S * V_.transpose();
  dP -= P_ * S;
  dQ += Q_ * S.transpose();
}

VectorXd AttentionGauge::project(const VectorXd& v) const {
  const VectorXd of_X = v.head(parameters_.size());
  VectorXd result(v.size());
  if (parameters_.is_low_rank()) {
    RowMajorMatrix dP = outside(queries_, RowMajorMatrix(parameters_.P(of_X)));
    RowMajorMatrix dQ = outside(keys_, RowMajorMatrix(parameters_.Q(of_X)));
    leave_out_factor_gauge(dP, dQ);
    result.head(of_X.size()) << flat(dP), flat(dQ);
  } else {
    const RowMajorMatrix X = outside(queries_, parameters_.X(of_X));
    result.head(of_X.size()) = flat(RowMajorMatrix(outside(keys_, RowMajorMatrix(X.transpose())).transpose()));
  }
  if (dv_ > 0) {
    const Eigen::Map<const RowMajorMatrix> Y(v.data() + of_X.size(), d3_, dv_);
    result.tail(d3_ * dv_) = flat(outside(values_, RowMajorMatrix(Y)));
  }
  return result;
}

}  // namespace attnreg
