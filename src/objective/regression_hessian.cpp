#include <algorithm>
#include <memory>
#include <utility>

#include "algebra/scalapack.hpp"
#include "objective/regression_objective.hpp"
#include "ranks/span_of.hpp"
#include "rows/gram.hpp"
#include "rows/row_passes.hpp"

// The Hessian of a RegressionObjective: exact, as products, as a preconditioner.

namespace attnreg {

Hessian RegressionObjective::hessian(const Point& point) {
  return grid_ ? distributed_hessian(state_of(point)) : hessian_on_root(point);
}

/// The rows of H+, H = H+ - H-, without the regulariser.
WeightedRows RegressionObjective::positive_rows(const RegressionState& state) const {
  const bool centred = loss_->form() == HessianForm::centred;
  return {centred ? VectorXd(state.delta.cwiseMax(0)) : state.positive, {}, state.coupling, state.self};
}

Hessian RegressionObjective::distributed_hessian(const RegressionState& state) const {
  const Index d = dimension();
  WeightedRows rows = positive_rows(state);
  rows.ridge = w2_;
  DistributedMatrix M = distributed_gram(A_, grid_, rows, state.centre);
  const double curvature = A_.communicator().sum(rows.self_sum());
  if (!offset_ridge_.is_zero())
    M.for_each([&](Index i, Index j, double& entry) { entry += offset_ridge_.hessian(i, j); });
  const VectorXd scale = M.diagonal() + curvature * state.centre.cwiseAbs2();
  const bool centred = loss_->form() == HessianForm::centred;
  DistributedMatrix H =
      distributed_gram(A_, grid_, {rows.curvature - state.delta}, centred ? state.centre : VectorXd::Zero(d));
  H.local() = M.local() - H.local();
  A_.passes().count_reads(2 * gram_reads(d));
  return {A_.communicator(), {}, {}, scale, std::make_shared<DistributedPencil>(std::move(H), std::move(M))};
}

/// This rank's parts of H+ and H-.
SignedGram RegressionObjective::local_grams(const RegressionState& state) const {
  if (loss_->form() == HessianForm::centred) return signed_gram(A_, {state.delta}, state.centre);
  return {signed_gram(A_, positive_rows(state), state.centre).positive,
          signed_gram(A_, {state.positive - state.delta}).positive};
}

const MatrixXd& RegressionObjective::ridge_gram_on_root() {
  if (ridge_gram_) return *ridge_gram_;
  MatrixXd gram = signed_gram(A_, {w2_}).positive;
  A_.communicator().sum_to_root(span_of(gram));
  if (!A_.communicator().is_root()) return ridge_gram_.emplace();
  if (!offset_ridge_.is_zero()) gram += offset_ridge_.hessian();
  return ridge_gram_.emplace(std::move(gram));
}

Hessian RegressionObjective::hessian_on_root(const Point& point) {
  const RegressionState& state = state_of(point);
  const auto& communicator = A_.communicator();
  const Index d = dimension(), entries = d * d;
  const MatrixXd& ridge_gram = ridge_gram_on_root();
  const auto gram = local_grams(state);
  VectorXd message(2 * entries + 1);
  message << gram.positive.reshaped(), gram.negative.reshaped(), positive_rows(state).self_sum();
  communicator.sum_to_root(span_of(message));
  Hessian hessian{communicator, {}, {}, {}, nullptr};
  if (!communicator.is_root()) return hessian;
  hessian.positive_part = message.head(entries).reshaped(d, d) + ridge_gram;
  hessian.exact = hessian.positive_part - message.segment(entries, entries).reshaped(d, d);
  hessian.scale = hessian.positive_part.diagonal() + message[2 * entries] * state.centre.cwiseAbs2();
  return hessian;
}

VectorXd RegressionObjective::hessian_product(const Point& point, Direction& p) {
  const RegressionState& state = state_of(point);
  const HessianForm form = loss_->form();
  const double along = form == HessianForm::diagonal ? 0 : state.centre.dot(p.s);
  const double centre_p = form == HessianForm::centred ? along : 0;
  VectorXd message = A_.passes().normal_product(p.s, {state.delta.data(), w2_.data(), centre_p}, p.As);
  A_.communicator().sum(span_of(message));
  VectorXd product = message.head(dimension()) + offset_ridge_.gradient(p.s);
  if (form == HessianForm::centred) product -= message[dimension()] * state.centre;
  if (form == HessianForm::coupled)  // (-h c^T - c h^T + k c c^T) p, h = A^T m
    product += (state.loss.self * along - state.coupled_centre.dot(p.s)) * state.centre - along * state.coupled_centre;
  return product;
}

std::optional<VectorXd> RegressionObjective::suspected_descent(const Point& point) {
  if (preconditioner_.empty() && !refresh_preconditioner(point, false)) return std::nullopt;
  const RegressionState& state = state_of(point);
  const bool centred = loss_->form() == HessianForm::centred;
  return model_.direction_above(positive_rows(state).curvature - state.delta,
                                centred ? state.centre : VectorXd::Zero(dimension()), preconditioner_);
}

bool RegressionObjective::refresh_preconditioner(const Point& point, bool tired) {
  const RegressionState& state = state_of(point);
  const auto made = model_.preconditioner(positive_rows(state), state.centre, tired);
  if (made) preconditioner_ = *made;
  largest_ridge_ = std::max(largest_ridge_, model_.ridge());
  return made.has_value();
}

}  // namespace attnreg
