#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include "algebra/distributed_solver.hpp"
#include "numbers/row_sums.hpp"
#include "objective/regression_objective.hpp"
#include "ranks/span_of.hpp"
#include "rows/gram.hpp"
#include "rows/row_passes.hpp"

// The Hessian of a RegressionObjective: exact, as products, as a preconditioner.

namespace attnreg {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

Hessian RegressionObjective::hessian() { return grid_ ? distributed_hessian() : hessian_on_root(); }

/// The rows of H+, H = H+ - H-, without the regulariser.
WeightedRows RegressionObjective::positive_rows() const {
  const bool centred = loss_->form() == HessianForm::centred;
  return {centred ? VectorXd(delta_.cwiseMax(0)) : positive_, {}, coupling_, self_};
}

Hessian RegressionObjective::distributed_hessian() const {
  const Index d = dimension();
  WeightedRows rows = positive_rows();
  rows.ridge = w2_;
  DistributedMatrix M = distributed_gram(A_, grid_, rows, centre_);
  const double curvature = A_.communicator().sum(rows.self_sum());
  const VectorXd scale = M.diagonal() + curvature * centre_.cwiseAbs2();
  const bool centred = loss_->form() == HessianForm::centred;
  DistributedMatrix H = distributed_gram(A_, grid_, {rows.curvature - delta_}, centred ? centre_ : VectorXd::Zero(d));
  H.local() = M.local() - H.local();
  A_.passes().count_reads(2 * gram_reads(d));
  return {A_.communicator(), {}, {}, scale, std::make_shared<DistributedPencil>(std::move(H), std::move(M))};
}

/// This rank's parts of H+ and H-.
SignedGram RegressionObjective::local_grams() const {
  if (loss_->form() == HessianForm::centred) return signed_gram(A_, {delta_}, centre_);
  return {signed_gram(A_, positive_rows(), centre_).positive, signed_gram(A_, {positive_ - delta_}).positive};
}

const MatrixXd& RegressionObjective::make_ridge_gram() {
  if (ridge_known_) return ridge_gram_;
  const Index d = dimension();
  ridge_gram_ = signed_gram(A_, {w2_}).positive;
  A_.communicator().sum_to_root({ridge_gram_.data(), static_cast<std::size_t>(d * d)});
  if (!A_.communicator().is_root()) ridge_gram_.resize(0, 0);
  ridge_known_ = true;
  return ridge_gram_;
}

Hessian RegressionObjective::hessian_on_root() {
  const auto& communicator = A_.communicator();
  const Index d = dimension(), entries = d * d;
  make_ridge_gram();
  const auto gram = local_grams();
  VectorXd message(2 * entries + 1);
  message << gram.positive.reshaped(), gram.negative.reshaped(), positive_rows().self_sum();
  communicator.sum_to_root(span_of(message));
  Hessian hessian{communicator, {}, {}, {}, nullptr};
  if (!communicator.is_root()) return hessian;
  hessian.positive_part = message.head(entries).reshaped(d, d) + ridge_gram_;
  hessian.exact = hessian.positive_part - message.segment(entries, entries).reshaped(d, d);
  hessian.scale = hessian.positive_part.diagonal() + message[2 * entries] * centre_.cwiseAbs2();
  return hessian;
}

MatrixXd RegressionObjective::gauss_newton_on_root() {
  make_ridge_gram();
  VectorXd delta(delta_.size());
  sum_over_rows<1>(z_.size(), [&](Index first, Index rows, auto&) {
    loss_->gauss_newton(rows_of(z_, first, rows), point_, {delta.data() + first, static_cast<std::size_t>(rows)});
  });
  MatrixXd gram = signed_gram(A_, {delta, {}, coupling_, self_}, centre_).positive;
  A_.communicator().sum_to_root(span_of(gram));
  return A_.communicator().is_root() ? MatrixXd(gram + ridge_gram_) : MatrixXd();
}

/// product += (-h c^T - c h^T + k c c^T) p, h = A^T m.
void RegressionObjective::add_coupling(const VectorXd& p, VectorXd& product) const {
  const double along = centre_.dot(p);
  product += (point_.self * along - coupled_centre_.dot(p)) * centre_ - along * coupled_centre_;
}

VectorXd RegressionObjective::hessian_product(const VectorXd& p) {
  const bool centred = loss_->form() == HessianForm::centred;
  const double centre_p = centred ? centre_.dot(p) : 0;
  p_ = p;
  VectorXd message = A_.passes().normal_product(p, {delta_.data(), w2_.data(), centre_p}, product_y_);
  A_.communicator().sum(span_of(message));
  VectorXd product = message.head(dimension());
  if (centred) product -= message[dimension()] * centre_;
  if (loss_->form() == HessianForm::coupled) add_coupling(p, product);
  return product;
}

bool RegressionObjective::refresh_preconditioner(bool tired) {
  const auto made = model_.preconditioner(positive_rows(), centre_, tired);
  if (made) preconditioner_ = *made;
  largest_ridge_ = std::max(largest_ridge_, model_.ridge());
  return made.has_value();
}

}  // namespace attnreg
