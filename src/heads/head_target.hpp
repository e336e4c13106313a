#pragma once

#include <array>
#include <vector>

#include "heads/head_inputs.hpp"

namespace attnreg {

/// The target of some queries of one sequence; a column for each of the queries, a row for each key.
struct TargetBlock {
  MatrixXd B;          ///< 0 where the query does not see the key
  MatrixXd log_odds;   ///< log b, centred over the weights of its query; 0 where b is missing
  MatrixXd weights;    ///< of the log-odds, 0 where b is missing; empty: all are 1
  KeyFlags visible;    ///< empty: all
  VectorXd totals;     ///< <b, 1> of each query
  VectorXd log_shift;  ///< log of b / <b, 1> is log_odds + this
};

/// The target of one head. Log-odds are known where b > 0; zeros that neither a mask nor underflow explains show the
/// resolution of B: numbers near it count little, with weights b^2 / (b^2 + sigma^2). Replicated but for blocks, which
/// are made of B when they are asked for. Log-odds of up to 2^25 numbers are kept.
class HeadTarget {
 public:
  /// Collective: 1 to 3 all-reduces of up to 10^5 numbers. One read of B, 1 logarithm for each number; two reads more
  /// if B has zeros or hidden numbers. The inputs, and B, must outlive this.
  HeadTarget(const HeadInputs& inputs, const HeadTargets& B);

  /// Local. Queries [first, first + count) of the k-th of `HeadInputs::rows`; without log-odds B, weights, visible,
  /// totals.
  TargetBlock block(std::size_t k, Index first, Index count, bool with_log_odds = true) const;
  /// Local. log b of a rectangle in which all b > 0, centred over its keys: keys x queries.
  MatrixXd log_odds(std::size_t k, const std::vector<Index>& queries, const std::vector<Index>& keys) const;

  bool is_dense() const { return is_dense_; }        ///< all weights are 1
  double zeros() const { return zeros_; }            ///< the share of visible numbers of B that are 0
  double resolution() const { return resolution_; }  ///< sigma; 0: B has no zeros
  bool keeps_log_odds() const { return !kept_.empty(); }
  /// How large each loss is where nothing is fitted: 1/2 |log-odds|^2, the entropy of B and 1/2 |B|^2.
  double log_odds_size() const { return sizes_[0]; }
  double entropy() const { return sizes_[1]; }
  double half_square() const { return sizes_[2]; }
  double total() const { return sizes_[3]; }            ///< <B, 1>
  double visible_numbers() const { return sizes_[4]; }  ///< pairs of a query and a key that it sees

 private:
  void find_resolution();
  void measure(std::size_t k);
  MatrixXd numbers(std::size_t k, const std::vector<Index>& queries, const std::vector<Index>& keys) const;
  void weigh(TargetBlock& block) const;

  const HeadInputs& inputs_;
  std::vector<TargetMatrix> B_;               ///< of each of `HeadInputs::rows`
  std::vector<MatrixXd> kept_;                ///< the log-odds, or empty
  std::vector<VectorXd> totals_, log_means_;  ///< <b, 1>, and the weighted mean of log b
  bool is_dense_ = true;
  double zeros_ = 0, resolution_ = 0;
  std::array<double, 5> sizes_{};
};

}  // namespace attnreg
