#pragma once

#include <deque>
#include <optional>

#include "heads/head_inputs.hpp"

namespace attnreg {

using KeyFlags = Eigen::Matrix<std::uint8_t, Eigen::Dynamic, Eigen::Dynamic>;

/// B of one head and one sequence as the passes use it; a column for each of this rank's queries, a row for each key.
struct TargetRows {
  MatrixXd kept;  ///< B, where it had to be copied
  Eigen::Map<const MatrixXd> B{nullptr, 0, 0};
  MatrixXd log_odds;   ///< log b, centred over the weights of its query; 0 where b is missing
  VectorXd log_shift;  ///< log of b / <b, 1> is log_odds + this
  MatrixXd weights;    ///< of the log-odds, 0 where b is missing; empty: all are 1
  KeyFlags visible;    ///< empty: all
  VectorXd totals;     ///< <b, 1> of each query
};

/// The target of one head. Log-odds are known where b > 0; zeros that neither a mask nor underflow explains show the
/// resolution of B: numbers near it count little, with weights b^2 / (b^2 + sigma^2). Replicated but for `rows`.
class HeadTarget {
 public:
  /// Collective: 2 to 4 all-reduces of up to 10^5 numbers. One read of B, 1 logarithm for each number. B must stay.
  HeadTarget(const HeadInputs& inputs, const HeadTargets& B);

  const std::deque<TargetRows>& rows() const { return rows_; }  ///< as `HeadInputs::rows`
  bool is_dense() const { return is_dense_; }                   ///< all weights are 1
  double zeros() const { return zeros_; }                       ///< the share of visible numbers of B that are 0
  double resolution() const { return resolution_; }             ///< sigma; 0: B has no zeros
  /// How large each loss is where nothing is fitted: 1/2 |log-odds|^2, the entropy of B and 1/2 |B|^2.
  double log_odds_size() const { return sizes_[0]; }
  double entropy() const { return sizes_[1]; }
  double half_square() const { return sizes_[2]; }
  double total() const { return sizes_[3]; }            ///< <B, 1>
  double visible_numbers() const { return sizes_[4]; }  ///< pairs of a query and a key that it sees

 private:
  void find_resolution(const HeadInputs& inputs);
  void add_log_odds(TargetRows& target) const;

  std::deque<TargetRows> rows_;
  bool is_dense_ = true;
  double zeros_ = 0, resolution_ = 0;
  std::array<double, 5> sizes_{};
};

}  // namespace attnreg
