#include "attention/loss_row.hpp"

#include <cmath>
#include <limits>
#include <span>

#include "numbers/vector_math.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

using Eigen::ArrayXd;
using Eigen::Index;

LossRow::LossRow(const Loss& loss, Index keys) : loss_(loss) { resize(keys); }

void LossRow::resize(Index keys) {
  for (ArrayXd* row : {&exponentials_, &slopes_, &fit_, &q_, &c_, &delta_, &positive_, &coupling_, &self_})
    row->setZero(keys);
}

ArrayXd gathered(ConstArrayRow row, std::span<const Index> places) {
  ArrayXd values(std::ssize(places));
  for (Index k = 0; k < values.size(); ++k) values[k] = row[places[static_cast<std::size_t>(k)]];
  return values;
}

void scatter(const ArrayXd& values, std::span<const Index> places, ArrayRow row) {
  row.setZero();
  for (Index k = 0; k < values.size(); ++k) row[places[static_cast<std::size_t>(k)]] = values[k];
}

void LossRow::move_to(std::span<const double> z, std::span<const double> b, std::span<const Index> visible) {
  visible_ = visible;
  if (visible.empty()) return look_at(z, b);
  const auto row = [](std::span<const double> of) { return Eigen::Map<const ArrayXd>(of.data(), std::ssize(of)); };
  z_ = gathered(row(z), visible);
  b_ = gathered(row(b), visible);
  if (q_.size() != z_.size()) resize(z_.size());
  look_at(span_of(z_), span_of(b_));
}

ArrayXd LossRow::visible(ConstArrayRow row) const { return visible_.empty() ? ArrayXd(row) : gathered(row, visible_); }

void LossRow::spread(const ArrayXd& of_visible, ArrayRow row) const {
  if (visible_.empty())
    row = of_visible;
  else
    scatter(of_visible, visible_, row);
}

void LossRow::look_at(std::span<const double> z, std::span<const double> b) {
  rows_ = {z, b};
  const auto value_at = [&](double reference) {
    LossSums sums{};
    loss_.add_value(rows_, reference, sums);
    return loss_.value(sums, reference);
  };
  if (loss_.is_shift_invariant()) {
    const double log_sum = softmax_row(Eigen::Map<const ArrayXd>(z.data(), exponentials_.size()), exponentials_);
    rows_.exponentials = span_of(exponentials_);
    point_ = value_at(log_sum);
  } else {
    loss_.keep(rows_, span_of(exponentials_), span_of(slopes_));
    rows_.exponentials = span_of(exponentials_);
    rows_.slopes = span_of(slopes_);
    const bool coupled = loss_.form() == HessianForm::coupled;  // by <u, 1>: the reference is known beforehand
    point_ = value_at(coupled ? exponentials_.sum() : 0);
  }
}

double LossRow::misfit() {
  loss_.fit(rows_, point_, span_of(fit_));
  return (fit_ - Eigen::Map<const ArrayXd>(rows_.b.data(), fit_.size())).square().sum();
}

double LossRow::change(ArrayRow y) const {
  if (visible_.empty()) return change_of_visible(y);
  ArrayXd of_visible = visible(y);
  return change_of_visible(of_visible);
}

double LossRow::change_of_visible(ArrayRow y) const {
  if (loss_.is_shift_invariant()) y -= (exponentials_ * y).sum();  // phi does not see it, and it would cancel
  if (!(y.abs().maxCoeff() <= Loss::largest_exponent)) return std::numeric_limits<double>::infinity();
  LossSums sums{};
  loss_.add_change(rows_, {y.data(), rows_.z.size()}, 1, point_, sums);
  return loss_.change(sums, point_).value;
}

void LossRow::differentiate() {
  loss_.differentiate(
      rows_, point_,
      {span_of(q_), span_of(c_), span_of(delta_), span_of(positive_), span_of(coupling_), span_of(self_)});
}

void LossRow::multiply_hessian(ArrayRow t) const {
  if (visible_.empty()) return multiply_visible(t);
  ArrayXd of_visible = visible(t);
  multiply_visible(of_visible);
  scatter(of_visible, visible_, t);
}

void LossRow::multiply_visible(ArrayRow t) const {
  if (loss_.form() == HessianForm::diagonal) {
    t *= delta_;
    return;
  }
  const double mean = (c_ * t).sum();
  if (loss_.form() == HessianForm::centred) {
    t = delta_ * (t - mean);
    t -= c_ * t.sum();
  } else {
    const double along = (coupling_ * t).sum() - point_.self * mean;
    t = delta_ * t - mean * coupling_ - along * c_;
  }
}

LossRow::Model LossRow::model() {
  if (loss_.form() != HessianForm::centred) return {positive_, c_, coupling_, point_.self};
  positive_ = delta_.max(0);
  return {positive_, c_, positive_, positive_.sum()};
}

double softmax_row(ConstArrayRow z, ArrayRow u) {
  const double largest = z.maxCoeff();
  u = z - largest;
  kernels::exp(span_of(u), span_of(u));
  const double sum = u.sum();
  u /= sum;
  return largest + std::log(sum);
}

void softmax_change(ConstArrayRow f, ArrayRow y) {
  y -= (f * y).sum();  // softmax does not see it, and the sum below is then of second order
  kernels::expm1(span_of(y), span_of(y));
  const double growth = (f * y).sum();
  y = f * (y - growth) / (1 + growth);
}

}  // namespace attnreg
