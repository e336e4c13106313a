#include "surrogate/row_sample.hpp"

#include <algorithm>
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

double RowSample::few_numbers(int ranks, Index d, Nodes nodes) {
  constexpr double kFew = 1 << 19, kUsual = 1.5;
  const double P = std::max(2, ranks);  // one rank does as two do
  const double messages = 0.5 * (1 + std::log2(P));
  const double work = (1 - 1 / P) * (1 + static_cast<double>(d) / 200) / kUsual;
  const double latency = nodes == Nodes::one ? 0.125 : nodes == Nodes::any ? std::sqrt(0.125) : 1;
  return kFew * messages / work * latency;
}

void RowSample::learn(std::int64_t rows) {
  count_ = rows;
  share_ = static_cast<double>(rows) / static_cast<double>(A_.rows_global());
  if (!std::exchange(is_counted_, true)) A_.passes().count_reads(share_);
}

RowSample::RowSample(const RegressionObjective& all, const Point& base, const VectorXd& probabilities, const Draw& draw,
                     const Place& place)
    : base_(base.x), abar_(RegressionObjective::state_of(base).centre), A_(all.A()) {
  const RegressionState& state = RegressionObjective::state_of(base);
  const double reference = state.loss.reference + state.shift;
  const auto sample = keep_rows(
      A_, probabilities, {.oversampling = 1, .uniform_share = 0, .seed = draw.seed, .iteration = draw.iteration});
  GatheredRows rows(A_, sample.rows);
  const Index d = A_.columns(), kept = rows.rows();
  const LogitOffsets& offsets = all.logit_offsets();
  RowMajorMatrix numbers(kept, offsets.are_there() ? 5 : 4);  // h, b, w^2, h f, o
  for (Index k = 0; k < kept; ++k) {
    const Index i = sample.rows[static_cast<std::size_t>(k)];
    const double h = sample.weights[k];
    numbers.row(k).head<4>() << h, all.b()[i], all.weights_squared()[i], h * std::exp(all.exponent(state, i));
    if (offsets.are_there()) numbers(k, 4) = offsets[i];
  }
  VectorXd m = VectorXd::Zero(d);
  double S = 0;
  const auto add_up = [&] {
    m = rows.transpose_multiply(numbers.col(3));
    S = numbers.col(3).sum();
  };
  is_on_root_ = place.expected && *place.expected <= place.few;
  const Communicator& ranks = A_.communicator();
  if (is_on_root_) {
    rows.send_to_root(ranks, numbers);
    if (!ranks.is_root()) return;
    add_up();
    count_ = rows.rows();
    share_ = static_cast<double>(count_) / static_cast<double>(A_.rows_global());
  } else {
    add_up();
    VectorXd message(d + 3);  // m, S, count, numbers
    message << m, S, static_cast<double>(kept), static_cast<double>(rows.numbers());
    ranks.sum(span_of(message));
    m = message.head(d);
    S = message[d];
    learn(static_cast<std::int64_t>(message[d + 1]));
    is_on_root_ = !place.expected && message[d + 2] <= place.few;
    if (is_on_root_) rows.send_to_root(ranks, numbers);
    if (is_on_root_ && !ranks.is_root()) return;
  }
  has_own_rows_ = is_on_root_ || ranks.rank() == ranks.size() - 1;
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
    own.row(1) = abar_ - (m - S * abar_);
    const VectorXd exponents = VectorXd::Constant(kOwnRows, reference) - own * base_;
    shares_[size - kOwnRows] = -S * std::exp(exponents[0]);
    shares_[size - 1] = std::exp(exponents[1]);
    rows.append(own);
  }
  const Communicator there = is_on_root_ ? alone(ranks) : ranks;
  columns_ = std::make_shared<const ScaledColumns>(all.columns().of_rows(
      std::move(rows).matrix(there), offsets.of_rows(offsets.are_there() ? of_rows(4) : VectorXd())));
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

double RowSample::reads(double models) const {
  const double grams = gram_price * models * static_cast<double>(A_.columns());
  return share_ * (columns_->A().reads() + grams);
}

double RowSample::span_local(const VectorXd& logits, const VectorXd& others, const VectorXd& s) const {
  if (logits.size() == 0) return 0;
  return columns_->logit_offsets().without_masked((logits - others).array() - abar_.dot(s)).cwiseAbs().maxCoeff();
}

}  // namespace attnreg
