#include "objective/column_terms.hpp"

#include "numbers/compensated_sum.hpp"
#include "ranks/span_of.hpp"
#include "rows/row_passes.hpp"

namespace attnreg {

ColumnTerms::ColumnTerms(const ScaledColumns& columns, const RidgeWeights& w2) : r_(columns.ridge()) {
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

VectorXd ColumnTerms::ridge_gradient(const VectorXd& x) const {
  if (G_) return *G_ * x;
  return r_.size() > 0 ? r_.cwiseProduct(x).eval() : VectorXd::Zero(x.size());
}

VectorXd ColumnTerms::gradient(const VectorXd& x) const {
  VectorXd result = ridge_gradient(x);
  if (c_.size() > 0) result += v_.dot(x) * c_ + c_.dot(x) * v_;
  return result;
}

double ColumnTerms::change(const VectorXd& x, const VectorXd& s, double t) const {
  return is_zero() ? 0 : t * gradient(x).dot(s) + t * t * value(s);
}

double ColumnTerms::hessian(Index i, Index j) const {
  if (G_) return (*G_)(i, j);
  return (i == j && has_ridge() ? r_[i] : 0) + (c_.size() == 0 ? 0 : c_[i] * v_[j] + v_[i] * c_[j]);
}

MatrixXd ColumnTerms::hessian() const {
  if (G_) return *G_;
  MatrixXd H = has_ridge() ? MatrixXd(r_.asDiagonal()) : MatrixXd::Zero(c_.size(), c_.size());
  if (c_.size() > 0) H += c_ * v_.transpose() + v_ * c_.transpose();
  return H;
}

double ColumnTerms::model(Index i, Index j) const {
  if (G_) return (*G_)(i, j);
  return (i == j && has_ridge() ? r_[i] : 0) + (c_.size() == 0 ? 0 : weight_ * c_[i] * c_[j]);
}

MatrixXd ColumnTerms::model() const {
  if (G_) return *G_;
  MatrixXd M = has_ridge() ? MatrixXd(r_.asDiagonal()) : MatrixXd::Zero(c_.size(), c_.size());
  if (c_.size() > 0) M += weight_ * c_ * c_.transpose();
  return M;
}

VectorXd ColumnTerms::rounding(const VectorXd& x) const {
  constexpr double kRoundings = 4;  // of the weights' sum, both terms of v, c . x, v . x, the products and their sum
  const VectorXd size = kRoundings * x.cwiseAbs();
  if (G_) return kRoundings * (G_->cwiseAbs() * x.cwiseAbs());
  VectorXd result = VectorXd::Zero(x.size());
  if (has_ridge()) result = r_.cwiseProduct(x.cwiseAbs());  // the product, and the sum with the rest
  if (c_.size() > 0) result += v_.cwiseAbs().dot(size) * c_.cwiseAbs() + c_.cwiseAbs().dot(size) * v_.cwiseAbs();
  return result;
}

}  // namespace attnreg
