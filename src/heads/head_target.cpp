#include "heads/head_target.hpp"

#include <bit>
#include <cmath>

#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr double kResolutions = 4;  // b below so many resolutions counts little
constexpr double kLargestQuantile = 0.95;
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

bool is_first_range(const std::vector<Index>& places, Index size) {
  return std::ssize(places) == size;  // kept in order, without gaps
}

KeyFlags visible_keys(const HeadRows& rows) {
  if (!rows.visible) return {};
  KeyFlags visible(rows.key_count(), rows.queries());
  for (Index j = 0; j < visible.cols(); ++j)
    for (Index k = 0; k < visible.rows(); ++k) visible(k, j) = rows.sees(j, k) ? 1 : 0;
  return visible.all() ? KeyFlags() : visible;
}

}  // namespace

HeadTarget::HeadTarget(const HeadInputs& inputs, const HeadTargets& B) {
  for (const auto& rows : inputs.rows()) {
    const RowMajorMatrix& whole = *B[rows.index];
    TargetRows& target = rows_.emplace_back();
    target.visible = visible_keys(rows);
    if (is_first_range(rows.rows, whole.rows()) && is_first_range(rows.keys, whole.cols()) &&
        target.visible.size() == 0) {
      new (&target.B) Eigen::Map<const MatrixXd>(whole.data(), whole.cols(), whole.rows());
    } else {
      target.kept.resize(rows.key_count(), rows.queries());
      for (Index j = 0; j < rows.queries(); ++j)
        for (Index k = 0; k < rows.key_count(); ++k)
          target.kept(k, j) =
              rows.sees(j, k) ? whole(rows.rows[static_cast<std::size_t>(j)], rows.keys[static_cast<std::size_t>(k)])
                              : 0;
      new (&target.B) Eigen::Map<const MatrixXd>(target.kept.data(), target.kept.rows(), target.kept.cols());
    }
    target.totals = target.B.colwise().sum().transpose();
  }
  if (!inputs.is_whole()) find_resolution(inputs);
  for (auto& target : rows_) {
    add_log_odds(target);
    const auto B_log = target.log_odds.rowwise() + target.log_shift.transpose();
    sizes_[0] += 0.5 * (is_dense_ ? target.log_odds.squaredNorm()
                                  : target.weights.cwiseProduct(target.log_odds.cwiseAbs2()).sum());
    sizes_[1] -= target.B.cwiseProduct(B_log).sum();
    sizes_[2] += 0.5 * target.B.squaredNorm();
    sizes_[3] += target.totals.sum();
    sizes_[4] +=
        static_cast<double>(target.visible.size() > 0 ? (target.visible.array() != 0).count() : target.B.size());
  }
  inputs.communicator().sum(sizes_);
}

void HeadTarget::find_resolution(const HeadInputs& inputs) {
  std::array<double, 3> counts{};  // visible numbers, zeros among them, hidden ones
  LogarithmicHistogram histogram;
  for (const auto& target : rows_)
    for (Index k = 0; k < target.B.size(); ++k) {
      const double b = target.B.data()[k];
      const bool seen = target.visible.size() == 0 || target.visible.data()[k] != 0;
      counts[2] += seen ? 0 : 1;
      if (!seen) continue;
      histogram.add(b);
      counts[0] += 1;
      if (!(b > kMissing)) counts[1] += 1;
    }
  inputs.communicator().sum(counts);
  is_dense_ = counts[1] == 0 && counts[2] == 0;
  zeros_ = counts[0] > 0 ? counts[1] / counts[0] : 0;
  if (counts[1] == 0) return;
  inputs.communicator().sum(span_of(histogram.counts()));
  if (histogram.count_below(kTiny) - counts[1] >= kContinued * counts[1]) return;
  resolution_ = kResolutions * histogram.quantile(std::min(2 * zeros_, kLargestQuantile));
}

void HeadTarget::add_log_odds(TargetRows& target) const {
  const auto B = target.B.array();
  target.log_odds = B.max(kMissing).log().matrix();
  VectorXd means;
  if (is_dense_) {
    means = target.log_odds.colwise().mean().transpose();
  } else {
    const double square = resolution_ * resolution_;
    target.weights =
        (B > kMissing)
            .select(square > 0 ? (B.square() / (B.square() + square)).eval() : B.Ones(B.rows(), B.cols()).eval(), 0.0)
            .matrix();
    target.log_odds = (target.weights.array() > 0).select(target.log_odds, 0.0);
    means = (target.weights.cwiseProduct(target.log_odds).colwise().sum().array() /
             target.weights.colwise().sum().array().max(kMissing))
                .matrix()
                .transpose();
  }
  target.log_odds.rowwise() -= means.transpose();
  if (!is_dense_) target.log_odds = (target.weights.array() > 0).select(target.log_odds, 0.0);
  target.log_shift = means.array() - target.totals.array().max(kMissing).log();
}

}  // namespace attnreg
