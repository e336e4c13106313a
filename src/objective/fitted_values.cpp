#include "objective/fitted_values.hpp"

#include <cmath>
#include <span>

#include "losses/losses.hpp"
#include "numbers/row_sums.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

LossRows rows_at(const VectorXd& z, const VectorXd& b, Index first, Index rows) {
  const auto part = [&](const VectorXd& v) { return std::span(v.data() + first, static_cast<std::size_t>(rows)); };
  return {part(z), part(b)};
}

/// u(z) / <u(z), 1>, both times exp(-exponent).
VectorXd rescaled_values(const Communicator& communicator, const Loss& loss, const VectorXd& z) {
  const LossRows rows = rows_at(z, z, 0, z.size());
  VectorXd u(z.size());
  loss.fill_scaled(rows, communicator.max(loss.largest_exponent_of(rows)), span_of(u));
  return u / communicator.sum(u.sum());
}

}  // namespace

VectorXd fitted_values(const Communicator& communicator, const Loss& loss, const VectorXd& z) {
  // Where all logits are very negative, the softmax is right and exp(z) is 0.
  if (loss.name() == "rescaled-exp") return fitted_values(communicator, *make_loss("softmax"), z);
  if (loss.form() == HessianForm::coupled) return rescaled_values(communicator, loss, z);
  const VectorXd no_target = VectorXd::Zero(z.size());
  const auto point_at = [&](double reference) {
    auto sums = sum_over_rows<8>(z.size(), [&](Index first, Index rows, LossSums& block) {
      loss.add_value(rows_at(z, no_target, first, rows), reference, block);
    });
    communicator.sum(sums);
    return loss.value(sums, reference);
  };
  const LossRows all = rows_at(z, no_target, 0, z.size());
  LossPoint point = point_at(communicator.max(loss.shift(all)));
  if (point.offset > 0) point = point_at(point.reference);
  VectorXd fitted(z.size());
  loss.fit(all, point, span_of(fitted));
  return fitted;
}

VectorXd with_offsets(VectorXd z, const LogitOffsets& offsets) {
  if (offsets.are_there()) offsets.add_to(span_of(z), 0, span_of(z));
  return z;
}

void require_finite_rows(const RowMatrix& A, const VectorXd& values, const std::string& what) {
  A.communicator().agree([&] {
    for (Index i = 0; i < values.size(); ++i)
      if (!std::isfinite(values[i]))
        throw NotFinite("row " + std::to_string(A.first_row() + i) + " (counted from 0) of " + what +
                        " overflows: it is not finite");
  });
}

}  // namespace attnreg
