#include "heads/head_target.hpp"

#include <bit>
#include <cmath>
#include <numeric>

#include "numbers/vector_math.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr double kResolutions = 4;  // b below so many resolutions counts little
constexpr double kLargestQuantile = 0.95;
constexpr Index kKeptNumbers = Index{1} << 25;  // 256 MB; a head of a layer has a hundredth of that
constexpr double kTiny = 1e-20;     // noise and quantisation leave nothing between 0 and that; large logits do,
constexpr double kContinued = 0.1;  // at least as much as that share of the zeros, which then are underflow

/// Numbers of [2^-100, 4) by their exponent and the first eight bits of their fraction: a quantile to 0.4 %.
class LogarithmicHistogram {
 public:
  void add(double value) { counts_[bin(value)] += 1; }
  VectorXd& counts() { return counts_; }
  double count_below(double value) const { return counts_.head(bin(value)).sum(); }
  double quantile(double share) const {
    const double rank = share * counts_.sum();
    double below = 0;
    Index k = 0;
    while (k + 1 < counts_.size() && below + counts_[k] <= rank) below += counts_[k++];
    return k == 0 ? 0 : std::bit_cast<double>((static_cast<std::uint64_t>(k) + kFirst) << kShift);
  }

 private:
  static constexpr int kShift = 44;
  static constexpr std::uint64_t kFirst = std::uint64_t{1023 - 100} << 8, kLast = std::uint64_t{1023 + 2} << 8;
  static Index bin(double value) {
    if (!(value > 0)) return 0;
    return static_cast<Index>(std::clamp(std::bit_cast<std::uint64_t>(value) >> kShift, kFirst, kLast) - kFirst);
  }
  VectorXd counts_ = VectorXd::Zero(static_cast<Index>(kLast - kFirst) + 1);
};

/// All of a range, in order.
bool is_first_range(const std::vector<Index>& places, Index size) { return std::ssize(places) == size; }

}  // namespace

HeadTarget::HeadTarget(const HeadInputs& inputs, const HeadTargets& B) : inputs_(inputs) {
  Index numbers = 0;
  for (const auto& rows : inputs.rows()) {
    B_.push_back(B[rows.index]);
    numbers += rows.queries() * rows.key_count();
    totals_.emplace_back(VectorXd::Zero(rows.queries()));
    log_means_.emplace_back(VectorXd::Zero(rows.queries()));
  }
  if (!inputs.is_whole()) find_resolution();
  for (std::size_t k = 0; k < B_.size(); ++k) {
    if (numbers <= kKeptNumbers) kept_.emplace_back(inputs.rows()[k].key_count(), inputs.rows()[k].queries());
    measure(k);
  }
  inputs.communicator().sum(sizes_);
}

/// Adds a sequence to the sizes, and keeps what later blocks need.
void HeadTarget::measure(std::size_t k) {
  for_each_block(inputs_.rows()[k], [&](Index first, Index count) {
    TargetBlock block = this->block(k, first, count, false);
    totals_[k].segment(first, count) = block.B.colwise().sum().transpose();
    block.log_odds = block.B.cwiseMax(kMissing);
    kernels::log(span_of(block.log_odds), span_of(block.log_odds));
    if (is_dense_) {
      log_means_[k].segment(first, count) = block.log_odds.colwise().mean().transpose();
    } else {
      block.log_odds = (block.weights.array() > 0).select(block.log_odds, 0.0);
      log_means_[k].segment(first, count) = block.weights.cwiseProduct(block.log_odds).colwise().sum().transpose();
      log_means_[k].segment(first, count).array() /= block.weights.colwise().sum().transpose().array().max(kMissing);
    }
    block.log_odds.rowwise() -= log_means_[k].segment(first, count).transpose();
    if (!is_dense_) block.log_odds = (block.weights.array() > 0).select(block.log_odds, 0.0);
    if (keeps_log_odds()) kept_[k].middleCols(first, count) = block.log_odds;
    sizes_[0] +=
        0.5 * (is_dense_ ? block.log_odds.squaredNorm() : block.weights.cwiseProduct(block.log_odds.cwiseAbs2()).sum());
    const VectorXd totals = totals_[k].segment(first, count),
                   shift = log_means_[k].segment(first, count).array() - totals.array().max(kMissing).log();
    sizes_[1] -= block.B.cwiseProduct(block.log_odds).sum() + totals.dot(shift);
    sizes_[2] += 0.5 * block.B.squaredNorm();
    sizes_[3] += totals.sum();
    sizes_[4] += static_cast<double>(block.visible.size() > 0 ? (block.visible.array() != 0).count() : block.B.size());
  });
}

MatrixXd HeadTarget::numbers(std::size_t k, const std::vector<Index>& queries, const std::vector<Index>& keys) const {
  const HeadRows& rows = inputs_.rows()[k];
  MatrixXd B(std::ssize(keys), std::ssize(queries));
  std::vector<Index> columns(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) columns[i] = rows.keys[static_cast<std::size_t>(keys[i])];
  B_[k].with([&](const auto& whole) {
    for (Index j = 0; j < B.cols(); ++j) {
      const auto row = whole.row(rows.rows[static_cast<std::size_t>(queries[static_cast<std::size_t>(j)])]);
      if (is_first_range(columns, whole.cols()))
        B.col(j) = row.template cast<double>().transpose();
      else
        B.col(j) = row(columns).template cast<double>().transpose();
    }
  });
  return B;
}

void HeadTarget::weigh(TargetBlock& block) const {
  if (is_dense_) return;
  const auto B = block.B.array();
  const double square = resolution_ * resolution_;
  block.weights =
      (B > kMissing)
          .select(square > 0 ? (B.square() / (B.square() + square)).eval() : B.Ones(B.rows(), B.cols()).eval(), 0.0)
          .matrix();
}

TargetBlock HeadTarget::block(std::size_t k, Index first, Index count, bool with_log_odds) const {
  const HeadRows& rows = inputs_.rows()[k];
  std::vector<Index> queries(static_cast<std::size_t>(count)), keys(static_cast<std::size_t>(rows.key_count()));
  std::iota(queries.begin(), queries.end(), first);
  std::iota(keys.begin(), keys.end(), 0);
  TargetBlock block{numbers(k, queries, keys), {}, {}, rows.visible_keys(first, count), {}, {}};
  if (block.visible.size() > 0) block.B = (block.visible.array() != 0).select(block.B, 0.0);
  block.totals = totals_[k].segment(first, count);
  weigh(block);
  if (!with_log_odds) return block;
  const auto means = log_means_[k].segment(first, count);
  block.log_shift = means.array() - block.totals.array().max(kMissing).log();
  if (keeps_log_odds()) {
    block.log_odds = kept_[k].middleCols(first, count);
    return block;
  }
  block.log_odds = block.B.cwiseMax(kMissing);
  kernels::log(span_of(block.log_odds), span_of(block.log_odds));
  block.log_odds.rowwise() -= means.transpose();
  if (!is_dense_) block.log_odds = (block.weights.array() > 0).select(block.log_odds, 0.0);
  return block;
}

MatrixXd HeadTarget::log_odds(std::size_t k, const std::vector<Index>& queries, const std::vector<Index>& keys) const {
  MatrixXd L;
  if (keeps_log_odds()) {
    const bool all = std::ssize(queries) == kept_[k].cols() && std::ssize(keys) == kept_[k].rows();
    if (all && is_dense_) return kept_[k];
    L = all ? kept_[k] : MatrixXd(kept_[k](keys, queries));
  } else {
    L = numbers(k, queries, keys).cwiseMax(kMissing);
    kernels::log(span_of(L), span_of(L));
  }
  L.rowwise() -= Eigen::RowVectorXd(L.colwise().mean());
  return L;
}

void HeadTarget::find_resolution() {
  std::array<double, 3> counts{};  // visible numbers, zeros among them, hidden ones
  LogarithmicHistogram histogram;
  for (std::size_t k = 0; k < B_.size(); ++k)
    for_each_block(inputs_.rows()[k], [&](Index first, Index count) {
      const TargetBlock block = this->block(k, first, count, false);
      for (Index i = 0; i < block.B.size(); ++i) {
        const double b = block.B.data()[i];
        const bool seen = block.visible.size() == 0 || block.visible.data()[i] != 0;
        counts[2] += seen ? 0 : 1;
        if (!seen) continue;
        histogram.add(b);
        counts[0] += 1;
        if (!(b > kMissing)) counts[1] += 1;
      }
    });
  inputs_.communicator().sum(counts);
  is_dense_ = counts[1] == 0 && counts[2] == 0;
  zeros_ = counts[0] > 0 ? counts[1] / counts[0] : 0;
  if (counts[1] == 0) return;
  inputs_.communicator().sum(span_of(histogram.counts()));
  if (histogram.count_below(kTiny) - counts[1] >= kContinued * counts[1]) return;
  resolution_ = kResolutions * histogram.quantile(std::min(2 * zeros_, kLargestQuantile));
}

}  // namespace attnreg
