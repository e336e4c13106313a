#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include "algebra/distributed_solver.hpp"
#include "objective/regression_objective.hpp"
#include "ranks/span_of.hpp"
#include "rows/distributed_gram.hpp"
#include "rows/row_passes.hpp"

// The Hessian of a RegressionObjective: exact, as products, as a preconditioner.

namespace attnreg {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

Hessian RegressionObjective::hessian(const Point& point) {
  return grid_ ? distributed_hessian(state_of(point)) : hessian_on_root(point);
}

RowForms RegressionObjective::row_forms(const RegressionState& state, const VectorXd& positive) const {
  return {positive, loss_->form() == HessianForm::coupled ? &state.coupling : nullptr, &state.self};
}

Hessian RegressionObjective::distributed_hessian(const RegressionState& state) const {
  const Index d = dimension();
  const bool centred = loss_->form() == HessianForm::centred;
  const VectorXd positive = centred ? VectorXd(state.delta.cwiseMax(0)) : state.positive;
  CurvedRows rows = all_rows(row_forms(state, positive), w2_);
  DistributedMatrix M = distributed_gram(A_, grid_, rows, state.centre);
  const double curvature = A_.communicator().sum(rows.self().sum());
  const VectorXd scale = M.diagonal() + curvature * state.centre.cwiseAbs2();
  const VectorXd negative = positive - state.delta;
  DistributedMatrix H = distributed_gram(A_, grid_, all_rows({negative, nullptr, nullptr}, VectorXd::Zero(w2_.size())),
                                         centred ? state.centre : VectorXd::Zero(d));
  H.local() = M.local() - H.local();
  A_.passes().count_reads(2 * gram_reads(d));
  return {A_.communicator(), {}, {}, scale, std::make_shared<DistributedPencil>(std::move(H), std::move(M))};
}

/// This rank's parts of H+ and H-, H = H+ - H-, without the regulariser but for coupled losses.
RowPasses::SignedGram RegressionObjective::local_grams(const RegressionState& state) const {
  if (loss_->form() == HessianForm::centred) return A_.passes().signed_gram(state.delta, state.centre);
  const VectorXd zero = VectorXd::Zero(dimension());
  RowPasses::SignedGram gram = A_.passes().signed_gram(state.positive - state.delta, zero);
  gram.negative = std::move(gram.positive);
  if (loss_->form() == HessianForm::diagonal) {
    gram.positive = A_.passes().signed_gram(state.positive, zero).positive;
  } else {
    gram.positive =
        local_gram(A_, all_rows(row_forms(state, state.positive), VectorXd::Zero(w2_.size())), state.centre);
    A_.passes().count_reads(1);
  }
  return gram;
}

const MatrixXd& RegressionObjective::ridge_gram_on_root() {
  if (ridge_gram_) return *ridge_gram_;
  MatrixXd gram = A_.passes().signed_gram(w2_, VectorXd::Zero(dimension())).positive;
  A_.communicator().sum_to_root(span_of(gram));
  return ridge_gram_.emplace(A_.communicator().is_root() ? std::move(gram) : MatrixXd());
}

Hessian RegressionObjective::hessian_on_root(const Point& point) {
  const RegressionState& state = state_of(point);
  const auto& communicator = A_.communicator();
  const Index d = dimension(), entries = d * d;
  const MatrixXd& ridge_gram = ridge_gram_on_root();
  const auto gram = local_grams(state);
  const bool coupled = loss_->form() == HessianForm::coupled;
  VectorXd message(2 * entries + 1);
  message << gram.positive.reshaped(), gram.negative.reshaped(),
      coupled ? state.self.sum() : state.delta.cwiseMax(0).sum();
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
  VectorXd product = message.head(dimension());
  if (form == HessianForm::centred) product -= message[dimension()] * state.centre;
  if (form == HessianForm::coupled)  // (-h c^T - c h^T + k c c^T) p, h = A^T m
    product += (state.loss.self * along - state.coupled_centre.dot(p.s)) * state.centre - along * state.coupled_centre;
  return product;
}

bool RegressionObjective::refresh_preconditioner(const Point& point, bool tired) {
  const RegressionState& state = state_of(point);
  const bool centred = loss_->form() == HessianForm::centred;
  const auto made = model_.preconditioner(
      row_forms(state, centred ? VectorXd(state.delta.cwiseMax(0)) : state.positive), state.centre, tired);
  if (made) preconditioner_ = *made;
  largest_ridge_ = std::max(largest_ridge_, model_.ridge());
  return made.has_value();
}

}  // namespace attnreg
