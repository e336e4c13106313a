#include "surrogate/row_sample.hpp"

#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "losses/losses.hpp"
#include "ranks/span_of.hpp"
#include "rows/gathered_rows.hpp"
#include "rows/row_passes.hpp"
#include "sampling/sampling.hpp"

namespace attnreg {

namespace {

constexpr double kGramFlops = 0.08;  // reads of a Gram matrix, for each column
constexpr Index kOwnRows = 2;

/// The numbers of some rows, with zeros behind them.
VectorXd chosen(const VectorXd& all, const std::vector<Index>& rows, Index size) {
  VectorXd result = VectorXd::Zero(size);
  for (std::size_t k = 0; k < rows.size(); ++k) result[static_cast<Index>(k)] = all[rows[k]];
  return result;
}

}  // namespace

VectorXd logits_of(const Point& point) {
  const RegressionState& state = RegressionObjective::state_of(point);
  return state.z.array() + state.shift;
}

RowSample::RowSample(const RegressionObjective& all, const Point& base, const VectorXd& probabilities, const Draw& draw)
    : base_(base.x), abar_(RegressionObjective::state_of(base).centre) {
  const RowMatrix& A = all.A();
  const RegressionState& state = RegressionObjective::state_of(base);
  const double reference = state.loss.reference + state.shift;
  auto sample = keep_rows(A, probabilities,
                          {.oversampling = 1, .uniform_share = 0, .seed = draw.seed, .iteration = draw.iteration});
  kept_ = std::move(sample.rows);
  GatheredRows rows(A, kept_);
  const Index size = rows.rows();
  VectorXd hf(size);
  for (Index k = 0; k < size; ++k)
    hf[k] = sample.weights[k] * std::exp(state.z[kept_[static_cast<std::size_t>(k)]] - state.loss.reference);
  VectorXd message(A.columns() + 2);  // m, S, count
  message << rows.transpose_multiply(hf), hf.sum(), static_cast<double>(size);
  A.communicator().sum(span_of(message));
  const Index d = A.columns();
  const double S = message[d];
  count_ = static_cast<std::int64_t>(message[d + 1]);
  share_ = message[d + 1] / static_cast<double>(A.rows_global());
  A.passes().count_reads(share_);
  has_own_rows_ = A.communicator().is_root();
  h_ = VectorXd::Zero(size + (has_own_rows_ ? kOwnRows : 0));
  h_.head(size) = sample.weights;
  shares_ = h_;
  if (has_own_rows_) {
    RowMajorMatrix own(kOwnRows, d);
    own.row(0) = abar_;
    own.row(1) = abar_ - (message.head(d) - S * abar_);
    const VectorXd exponents = VectorXd::Constant(kOwnRows, reference) - own * base_;
    shares_[size] = -S * std::exp(exponents[0]);
    shares_[size + 1] = std::exp(exponents[1]);
    rows.append(own);
  }
  columns_ = std::make_shared<const ScaledColumns>(all.columns().of_rows(std::move(rows).matrix(A.communicator())));
}

std::unique_ptr<SampledProblem> RowSample::problem(std::string_view loss, const VectorXd& b, const VectorXd& w2) const {
  const Index size = h_.size();
  const bool is_linear = loss == "cross-entropy";  // in b
  VectorXd target = chosen(b, kept_, size);
  if (is_linear) target = target.cwiseProduct(h_);
  const VectorXd weights = chosen(w2, kept_, size).cwiseProduct(h_).cwiseSqrt();
  SamplingOptions all_rows;
  all_rows.oversampling = std::numeric_limits<double>::max();
  if (is_linear) {  // <b, 1> is known
    std::array<double, 2> sums{b.sum(), target.sum()};
    columns_->A().communicator().sum(sums);
    if (has_own_rows_) target[size - kOwnRows] = sums[0] - sums[1];
  }
  auto problem =
      std::make_unique<SampledProblem>(columns_, std::move(target), weights, make_sampled_loss(loss), all_rows);
  problem->objective.weigh_rows(h_, shares_);
  return problem;
}

double RowSample::reads(int models) const {
  const RowMatrix& A = columns_->A();
  return share_ * (A.reads() + kGramFlops * static_cast<double>(models) * static_cast<double>(A.columns()));
}

double RowSample::span_local(const VectorXd& logits, const VectorXd& others, const VectorXd& s) const {
  return logits.size() == 0 ? 0 : ((logits - others).array() - abar_.dot(s)).abs().maxCoeff();
}

}  // namespace attnreg
