#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "numbers/row_sums.hpp"
#include "objective/fitted_values.hpp"
#include "objective/regression_objective.hpp"
#include "objective/row_parts.hpp"
#include "ranks/span_of.hpp"

// The value of a RegressionObjective, and what it says of a point to those who report it.

namespace attnreg {

// The clock of rank 0 rides along: time is replicated too, and so is whether a rank was asked to stop.
RegressionObjective::Totals RegressionObjective::totals(std::vector<RowPasses::MapRequest> requests,
                                                        std::span<const AuditClaim> claims, double clock) const {
  const auto& communicator = A_.communicator();
  const RowPasses& passes = A_.passes();
  if (audit_) audit_->draw(requests);
  auto sums = requests.size() == 1 ? std::vector{passes.map(requests[0])} : passes.maps(requests);
  if (audit_) audit_->exchange(claims);
  std::vector<double> message;
  for (const auto& [columns, scalars] : sums) {
    message.insert(message.end(), columns.data(), columns.data() + columns.size());
    message.insert(message.end(), scalars.begin(), scalars.end());
  }
  message.push_back(RootClock::part(communicator, clock));
  communicator.sum(message);
  const double* next = message.data();
  for (auto& [columns, scalars] : sums)
    for (const std::span<double> values : {span_of(columns), span_of(scalars)}) {
      std::copy_n(next, values.size(), values.begin());
      next += values.size();
    }
  const double seconds = RootClock::seconds_of(communicator, message.back());
  return {std::move(sums), seconds, !audit_ || audit_->settle()};
}

/// Local. -infinity of no rows.
double RegressionObjective::largest_of_rows(const VectorXd& z, double (Loss::*of_rows)(const LossRows&) const) const {
  double largest = -std::numeric_limits<double>::infinity();
  Scratch scratch;
  for (Index first = 0; first < z.size(); first += kMostBlockRows)
    largest = std::max(largest, (loss_.get()->*of_rows)(rows_of(
                                    part(z, first, std::min(kMostBlockRows, z.size() - first)), first, scratch)));
  return largest;
}

double RegressionObjective::ridge_value(std::span<const double> z, Index first, double level) const {
  const Eigen::Map<const Eigen::ArrayXd> logits(z.data(), static_cast<Index>(z.size()));
  return 0.5 * w2_.rows(first, logits.size()).dot((logits + level).square().matrix());
}

void RegressionObjective::add_value(const LossRows& rows, std::span<const double> z, Index first, double level,
                                    double reference, std::span<double, 9> sums) const {
  LossSums of_loss{};
  loss_->add_value(rows, reference, of_loss);
  for (std::size_t k = 0; k < of_loss.size(); ++k) sums[k] += of_loss[k];
  sums[8] += ridge_value(z, first, level);
}

RegressionObjective::Value RegressionObjective::value_of(const double* sums, double reference) const {
  const LossPoint point = loss_->value(loss_sums(sums), reference);
  return {point, point.value + sums[8]};
}

/// This rank's part.
std::array<double, 9> RegressionObjective::value_sums(const VectorXd& z, double level, double reference) const {
  const std::size_t number = audit_ ? audit_->begin_value(reference, level) : 0;
  return sum_over_rows<9>(z.size(), [&](Index first, Index rows, std::array<double, 9>& block) {
    Scratch scratch;
    const auto of_block = part(z, first, rows);
    add_value(rows_of(of_block, first, scratch), of_block, first, level, reference, block);
    if (audit_) audit_->keep_value(number, first, of_block, block);
  });
}

/// What the regulariser adds to z at A v, or at the state's z + A v.
double RegressionObjective::level_of(const RegressionState& state, const VectorXd& v, Logits meaning) const {
  return (meaning == Logits::step ? state.level() : state.shift) + column_terms_.offset(v);
}

RegressionObjective::Value RegressionObjective::value_at(const VectorXd& z, double level, double reference) const {
  auto sums = value_sums(z, level, reference);
  A_.communicator().sum(sums);
  return value_of(sums.data(), reference);
}

RegressionObjective::Value RegressionObjective::value_from_scratch(const VectorXd& z, double level) const {
  const Value rough = value_at(z, level, A_.communicator().max(largest_of_rows(z, &Loss::shift)));
  return rough.loss.offset > 0 ? value_at(z, level, rough.loss.reference) : rough;
}

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
