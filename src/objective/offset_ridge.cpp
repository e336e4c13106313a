#include "objective/offset_ridge.hpp"

#include "numbers/compensated_sum.hpp"
#include "ranks/span_of.hpp"
#include "rows/row_passes.hpp"

namespace attnreg {

OffsetRidge::OffsetRidge(const ScaledColumns& columns, const RidgeWeights& w2) {
  if (!columns.is_centred()) return;
  const RowMatrix& A = columns.A();
  const Index d = A.columns();
  VectorXd message(d + 1);
  const VectorXd of_rows = w2.rows(0, A.rows_local());
  message << A.passes().transpose_multiply(of_rows), compensated_sum(of_rows);
  A.communicator().sum(span_of(message));
  weight_ = message[d];
  if (weight_ == 0) return;
  c_ = columns.offset();
  v_ = message.head(d) + 0.5 * weight_ * c_;
}

VectorXd OffsetRidge::gradient(const VectorXd& x) const {
  if (is_zero()) return VectorXd::Zero(x.size());
  return v_.dot(x) * c_ + c_.dot(x) * v_;
}

double OffsetRidge::change(const VectorXd& x, const VectorXd& s, double t) const {
  return is_zero() ? 0 : t * gradient(x).dot(s) + t * t * value(s);
}

VectorXd OffsetRidge::rounding(const VectorXd& x) const {
  if (is_zero()) return VectorXd::Zero(x.size());
  constexpr double kRoundings = 4;  // of the weights' sum, both terms of v, c . x, v . x, the products and their sum
  const VectorXd size = kRoundings * x.cwiseAbs();
  return v_.cwiseAbs().dot(size) * c_.cwiseAbs() + c_.cwiseAbs().dot(size) * v_.cwiseAbs();
}

}  // namespace attnreg
