#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "algebra/scalapack.hpp"
#include "losses/losses.hpp"
#include "objective/fitted_values.hpp"
#include "objective/regression_objective.hpp"
#include "ranks/once_in_process.hpp"
#include "ranks/root_clock.hpp"
#include "ranks/span_of.hpp"
#include "rows/gram.hpp"
#include "rows/row_passes.hpp"

// The Hessian of a RegressionObjective: exact, as products, as a preconditioner.

namespace attnreg {

Hessian RegressionObjective::hessian(const Point& point) {
  return grid_ ? distributed_hessian(point) : hessian_on_root(point, on_stop_in_gram(A_));
}

/// The rows of H+, H = H+ - H-, without the regulariser.
WeightedRows RegressionObjective::positive_rows(const Point& point) const {
  const RowCurvatures& rows = curvatures(point);
  const bool centred = loss_->form() == HessianForm::centred;
  return {centred ? VectorXd(rows.delta.cwiseMax(0)) : rows.positive, {}, rows.coupling, rows.self};
}

Hessian RegressionObjective::distributed_hessian(const Point& point) const {
  const RegressionState& state = state_of(point);
  const Index d = dimension();
  WeightedRows rows = positive_rows(point);
  rows.ridge = weights_squared();
  DistributedMatrix M = distributed_gram(A_, grid_, rows, state.centre, OnStop::leave);
  if (!column_terms_.is_zero())
    M.for_each([&](Index i, Index j, double& entry) { entry += column_terms_.hessian(i, j); });
  const bool centred = loss_->form() == HessianForm::centred;
  DistributedMatrix H = distributed_gram(A_, grid_, {rows.curvature - curvatures(point).delta},
                                         centred ? state.centre : VectorXd::Zero(d), OnStop::leave);
  std::array sums{uncentred_sum(rows), RootClock::part(A_.communicator(), 0)};
  A_.communicator().sum(sums);
  RootClock::seconds_of(A_.communicator(), sums[1]);
  const VectorXd scale = M.diagonal() + H.diagonal() + sums[0] * state.centre.cwiseAbs2();
  H.local() = M.local() - H.local();
  A_.passes().count_reads(2 * gram_reads(d));
  return {A_.communicator(), {}, {}, scale, std::make_shared<DistributedPencil>(std::move(H), std::move(M))};
}

/// Adds this rank's parts of H+ and H-, lower triangles.
void RegressionObjective::add_local_grams(const Point& point, double* positive, double* negative,
                                          OnStop on_stop) const {
  const RowCurvatures& rows = curvatures(point);
  const VectorXd& centre = state_of(point).centre;
  if (loss_->form() == HessianForm::centred)
    return add_signed_gram(A_, {rows.delta}, centre, positive, negative, on_stop);
  add_signed_gram(A_, positive_rows(point), centre, positive, nullptr, on_stop);
  add_signed_gram(A_, {rows.positive - rows.delta}, {}, negative, nullptr, on_stop);
}

const MatrixXd& RegressionObjective::ridge_gram_on_root(OnStop on_stop) {
  if (ridge_gram_) return *ridge_gram_;
  MatrixXd gram = positive_gram(A_, {weights_squared()}, {}, on_stop);
  A_.communicator().sum_to_root(span_of(gram));
  if (!A_.communicator().is_root()) gram.resize(0, 0);
  if (gram.size() > 0 && !column_terms_.is_zero()) gram += column_terms_.hessian();
  ridge_gram_ = std::make_shared<const MatrixXd>(std::move(gram));  // once left early, no more use is made of it
  return *ridge_gram_;
}

void RegressionObjective::replicate_ridge_gram() {
  const MatrixXd& on_root = ridge_gram_on_root();
  const auto gram = once_in_process(A_.communicator(), [&] {
    return std::make_shared<MatrixXd>(on_root.size() > 0 ? on_root : MatrixXd(dimension(), dimension()));
  });
  A_.communicator().broadcast(span_of(*gram));
  replicated_ridge_gram_ = gram;
}

Hessian RegressionObjective::hessian_on_root(const Point& point, OnStop on_stop) {
  const RegressionState& state = state_of(point);
  const auto& communicator = A_.communicator();
  const Index d = dimension(), entries = d * d;
  const MatrixXd& ridge_gram = ridge_gram_on_root(on_stop);
  VectorXd message = VectorXd::Zero(2 * entries + 1);
  add_local_grams(point, message.data(), message.data() + entries, on_stop);
  message[2 * entries] = uncentred_sum(positive_rows(point));
  communicator.sum_to_root(span_of(message));
  is_left(A_, on_stop);
  Hessian hessian{communicator, {}, {}, {}, nullptr};
  if (!communicator.is_root()) return hessian;
  hessian.positive_part = full_symmetric(message.data(), d) + ridge_gram;
  const MatrixXd negative_part = full_symmetric(message.data() + entries, d);
  hessian.exact = hessian.positive_part - negative_part;
  hessian.scale =
      hessian.positive_part.diagonal() + negative_part.diagonal() + message[2 * entries] * state.centre.cwiseAbs2();
  return hessian;
}

VectorXd RegressionObjective::hessian_product(const Point& point, Direction& p) {
  const RegressionState& state = state_of(point);
  const HessianForm form = loss_->form();
  const double along = form == HessianForm::diagonal ? 0 : state.centre.dot(p.s);
  const double centre_p = form == HessianForm::centred ? along : 0;
  const RowCurvature weights{curvatures(point).delta.data(), w2_.data(), centre_p, w2_.stride()};
  VectorXd message = A_.passes().normal_product(p.s, weights, p.As);
  if (audit_) p.rounding = product_rounding(p.s);
  message.conservativeResize(message.size() + 1);
  message[message.size() - 1] = RootClock::part(A_.communicator(), 0);
  A_.communicator().sum(span_of(message));
  RootClock::seconds_of(A_.communicator(), message[message.size() - 1]);
  VectorXd product = message.head(dimension()) + column_terms_.gradient(p.s) + correction_.product(p.s);
  if (form == HessianForm::centred) product -= message[dimension()] * state.centre;
  if (form == HessianForm::coupled)  // (-h c^T - c h^T + k c c^T) p, h = A^T m
    product += (state.loss.self * along - state.coupled_centre.dot(p.s)) * state.centre - along * state.coupled_centre;
  return product;
}

/// This rank's part of the curvature of rows with these weights, in columns of equal size. Local.
double RegressionObjective::total_curvature(const VectorXd& weights) const {
  return (weights + weights_squared()).dot(columns_->row_norms().cwiseAbs2());
}

bool RegressionObjective::is_flat(const Point& point) const {
  if (column_terms_.has_ridge()) return false;
  const VectorXd curvature = curvatures(point).delta.cwiseAbs() + weights_squared();
  return A_.communicator().sum(curvature.dot(columns_->row_norms())) == 0;
}

std::optional<VectorXd> RegressionObjective::suspected_descent(const Point& point) {
  constexpr double kStale = 0.1;        // of a model's curvature: where no more is left of it, the model says nothing
  if (is_sample_) return std::nullopt;  // its saddles do not matter
  const RegressionState& state = state_of(point);
  VectorXd rows = positive_rows(point).curvature;
  std::array<double, 3> sums{total_curvature(rows), curvature_of_model_, 0};
  rows -= curvatures(point).delta;  // the negative ones
  sums[2] = rows.sum();
  A_.communicator().sum(sums);
  if (!(sums[2] > 0)) return std::nullopt;
  const bool is_stale = sums[0] < kStale * sums[1];
  if ((preconditioner_.empty() || is_stale) && !refresh_preconditioner(point, is_stale)) return std::nullopt;
  const bool centred = loss_->form() == HessianForm::centred;
  return model_.direction_above(std::move(rows), centred ? state.centre : VectorXd::Zero(dimension()), preconditioner_);
}

// z_i has the rounding of a random sum, at most eps |a_i| max|x|. exp(z - reference) carries it, that of the reference,
// |reference| <= |z_i| + |ln f_i|, and its own; u(z) of the other losses carries it and its own. Offsets have a
// rounding of their size more.
PointRows RegressionObjective::point_rows(const Point& point) const {
  constexpr double kEps = std::numeric_limits<double>::epsilon(), kTiny = std::numeric_limits<double>::min();
  const RegressionState& state = state_of(point);
  PointRows rows{
      loss_->is_shift_invariant() ? fitted(point) : VectorXd(), b_, curvatures(point).delta, {}, {}, state.loss};
  if (!loss_->is_shift_invariant()) rows.z = with_offsets(state.z, logit_offsets());
  rows.z_error = kEps * (4 + 2 * state.largest_x * columns_->row_norms().array());
  if (loss_->is_shift_invariant())
    rows.z_error.array() -= kEps * rows.f.array().max(kTiny).log().min(0.0);
  else
    rows.z_error += kEps * rows.z.cwiseAbs();
  if (logit_offsets().are_there())
    for (Index i = 0; i < rows.z_error.size(); ++i)
      if (!logit_offsets().is_masked(i)) rows.z_error[i] += 2 * kEps * std::abs(logit_offsets()[i]);
  return rows;
}

// Of centred losses the curvatures of rows are relative to f, and what is negative beside the model's is so.
double RegressionObjective::curvature_rounding(const Point& point, const Direction& along) const {
  constexpr double kEps = std::numeric_limits<double>::epsilon();
  if (loss_->is_shift_invariant()) return 0;
  const RegressionState& state = state_of(point);
  const RowCurvatures& curvature = curvatures(point);
  const PointRows rows = point_rows(point);
  const LossBounds::Rounding rounding = loss_bounds(loss_->name()).rounding(rows, SumOfRanks(A_.communicator()));
  const bool coupled = loss_->form() == HessianForm::coupled;
  const double c = std::abs(state.centre.dot(along.s)), h = coupled ? std::abs(state.coupled_centre.dot(along.s)) : 0;
  const auto y = along.As.array().abs();
  const auto terms = 2 * curvature.positive.array() - curvature.delta.array();
  std::array<double, 4> sums{};  // errors: from delta, of c, of h; what the error of c is multiplied by
  sums[0] = ((rounding.delta.array() + 8 * kEps * terms) * y.square()).sum() +
            8 * kEps * (2 * c * (curvature.m().array().abs() * y).sum() + c * c * curvature.k().array().abs().sum());
  sums[1] = (rounding.centre.array() * y).sum();
  if (coupled) sums[2] = (rounding.coupling.array() * y).sum();
  sums[3] = c * curvature.self.sum();
  A_.communicator().sum(sums);
  return sums[0] + 2 * (sums[1] * (h + sums[3]) + sums[2] * c);
}

/// In units of eps: that of `ColumnTerms`, and of the numbers that rows share.
VectorXd RegressionObjective::shared_rounding(const Point& point) const {
  const RegressionState& state = state_of(point);
  VectorXd rounding = column_terms_.rounding(point.x);
  if (loss_->form() != HessianForm::coupled) return rounding;
  const auto [reference, other] = loss_->shared_rounding(state.loss);
  return rounding + reference * (state.loss.self * state.centre - state.coupled_centre).cwiseAbs() +
         other * state.centre.cwiseAbs();
}

// With a little of the negative curvature: where nothing is positive it gives M a scale.
bool RegressionObjective::refresh_preconditioner(const Point& point, bool tired) {
  constexpr double kAbsolute = 1e-8;
  WeightedRows rows = positive_rows(point);
  const double curvature = total_curvature(rows.curvature);
  rows.curvature -= kAbsolute * curvatures(point).delta.cwiseMin(0);
  const auto made = model_.preconditioner(std::move(rows), state_of(point).centre, tired);
  if (made) {
    preconditioner_ = *made;
    curvature_of_model_ = curvature;
  }
  largest_ridge_ = std::max(largest_ridge_, model_.ridge());
  return made.has_value();
}

}  // namespace attnreg
