#include <algorithm>
#include <array>
#include <cmath>

#include "numbers/row_sums.hpp"
#include "objective/fitted_values.hpp"
#include "objective/regression_objective.hpp"
#include "objective/row_parts.hpp"

// What a RegressionObjective says of a point to those who report it.

namespace attnreg {

double RegressionObjective::log_value(const Point& point) const {
  if (std::isfinite(point.value)) return std::log(point.value);
  const RegressionState& state = state_of(point);
  const double exponent = A_.communicator().max(largest_of_rows(state.z, &Loss::largest_exponent_of));
  auto sums = sum_over_rows<9>(state.z.size(), [&](Index first, Index count, std::array<double, 9>& block) {
    Scratch scratch;
    const auto z = part(state.z, first, count);
    LossSums of_loss{};
    loss_->add_scaled_value(rows_of(z, first, scratch), exponent, of_loss);
    std::copy(of_loss.begin(), of_loss.end(), block.begin());
    block[8] = ridge_value(z, first, state.level());
  });
  A_.communicator().sum(sums);
  const double log_phi = loss_->log_value(loss_sums(sums.data()), exponent);
  return log_phi + std::log1p((sums[8] + column_terms_.ridge(point.x)) * std::exp(-log_phi));
}

VectorXd RegressionObjective::fitted(const Point& point) const {
  const RegressionState& state = state_of(point);
  if (loss_->form() == HessianForm::coupled && !std::isnormal(state.loss.reference))
    return fitted_values(A_.communicator(), *loss_, with_offsets(state.z, logit_offsets()));
  VectorXd fitted(state.z.size());
  sum_over_rows<1>(state.z.size(), [&](Index first, Index rows, auto&) {
    Scratch scratch;
    loss_->fit(rows_of(part(state.z, first, rows), first, scratch), state.loss,
               {fitted.data() + first, static_cast<std::size_t>(rows)});
  });
  return fitted;
}

}  // namespace attnreg
