#include "surrogate/row_sample.hpp"

#include <cmath>
#include <limits>
#include <utility>

#include "losses/losses.hpp"
#include "ranks/alone.hpp"
#include "ranks/span_of.hpp"
#include "rows/gathered_rows.hpp"
#include "rows/row_passes.hpp"
#include "sampling/sampling.hpp"

namespace attnreg {

namespace {

constexpr Index kOwnRows = 2;

}  // namespace

VectorXd logits_of(const Point& point) {
  const RegressionState& state = RegressionObjective::state_of(point);
  return state.z.array() + state.shift;
}

RowSample::RowSample(const RegressionObjective& all, const Point& base, const VectorXd& probabilities, const Draw& draw,
                     double few)
    : base_(base.x), abar_(RegressionObjective::state_of(base).centre) {
  const RowMatrix& A = all.A();
  const RegressionState& state = RegressionObjective::state_of(base);
  const double reference = state.loss.reference + state.shift;
  const auto sample = keep_rows(
      A, probabilities, {.oversampling = 1, .uniform_share = 0, .seed = draw.seed, .iteration = draw.iteration});
  GatheredRows rows(A, sample.rows);
  const Index d = A.columns(), kept = rows.rows();
  const LogitOffsets& offsets = all.logit_offsets();
  RowMajorMatrix numbers(kept, offsets.are_there() ? 4 : 3);  // h, b, w^2, o
  VectorXd hf(kept);
  for (Index k = 0; k < kept; ++k) {
    const Index i = sample.rows[static_cast<std::size_t>(k)];
    numbers.row(k).head<3>() << sample.weights[k], all.b()[i], all.weights_squared()[i];
    if (offsets.are_there()) numbers(k, 3) = offsets[i];
    hf[k] = sample.weights[k] * std::exp(all.exponent(state, i));
  }
  VectorXd message(d + 3);  // m, S, count, numbers
  message << rows.transpose_multiply(hf), hf.sum(), static_cast<double>(kept), static_cast<double>(rows.numbers());
  A.communicator().sum(span_of(message));
  const double S = message[d];
  count_ = static_cast<std::int64_t>(message[d + 1]);
  share_ = message[d + 1] / static_cast<double>(A.rows_global());
  A.passes().count_reads(share_);
  is_on_root_ = message[d + 2] <= few;
  has_own_rows_ = A.communicator().is_root();
  if (is_on_root_) rows.send_to_root(A.communicator(), numbers);
  if (is_on_root_ && !has_own_rows_) return;
  const Index size = rows.rows() + (has_own_rows_ ? kOwnRows : 0);
  const auto of_rows = [&](Index column) {
    VectorXd result = VectorXd::Zero(size);
    result.head(numbers.rows()) = numbers.col(column);
    return result;
  };
  shares_ = h_ = of_rows(0), b_ = of_rows(1), w2_ = of_rows(2);
  if (has_own_rows_) {
    RowMajorMatrix own(kOwnRows, d);
    own.row(0) = abar_;
    own.row(1) = abar_ - (message.head(d) - S * abar_);
    const VectorXd exponents = VectorXd::Constant(kOwnRows, reference) - own * base_;
    shares_[size - kOwnRows] = -S * std::exp(exponents[0]);
    shares_[size - 1] = std::exp(exponents[1]);
    rows.append(own);
  }
  const Communicator there = is_on_root_ ? alone(A.communicator()) : A.communicator();
  columns_ = std::make_shared<const ScaledColumns>(all.columns().of_rows(
      std::move(rows).matrix(there), offsets.of_rows(offsets.are_there() ? of_rows(3) : VectorXd())));
}

std::unique_ptr<SampledProblem> RowSample::problem(std::string_view loss, const VectorXd& b, const VectorXd& w2,
                                                   double target_sum) const {
  VectorXd target = b;
  if (loss == "cross-entropy") {  // linear in b, and <b, 1> is known
    target = target.cwiseProduct(h_);
    const double sum = columns_->A().communicator().sum(target.sum());
    if (has_own_rows_) target[target.size() - kOwnRows] = target_sum - sum;
  }
  SamplingOptions all_rows;
  all_rows.oversampling = std::numeric_limits<double>::max();
  auto problem = std::make_unique<SampledProblem>(columns_, std::move(target), w2.cwiseProduct(h_).cwiseSqrt(),
                                                  make_sampled_loss(loss), all_rows);
  problem->objective.weigh_rows(h_, shares_);
  return problem;
}

double RowSample::reads(int models) const {
  const RowMatrix& A = columns_->A();
  return share_ * (A.reads() + gram_price * static_cast<double>(models) * static_cast<double>(A.columns()));
}

double RowSample::span_local(const VectorXd& logits, const VectorXd& others, const VectorXd& s) const {
  if (logits.size() == 0) return 0;
  return columns_->logit_offsets().without_masked((logits - others).array() - abar_.dot(s)).cwiseAbs().maxCoeff();
}

}  // namespace attnreg
