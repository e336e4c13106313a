#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "objective/regression_objective.hpp"

namespace attnreg {

/// An objective on sampled rows, with the target it refers to. It stays where it was made.
struct SampledProblem {
  SampledProblem(std::shared_ptr<const ScaledColumns> columns, Eigen::VectorXd target, const Eigen::VectorXd& w,
                 std::unique_ptr<Loss> loss, const SamplingOptions& sampling)
      : b(std::move(target)), objective(std::move(columns), b, w, std::move(loss), sampling) {}
  SampledProblem(const SampledProblem&) = delete;
  SampledProblem& operator=(const SampledProblem&) = delete;

  Eigen::VectorXd b;
  RegressionObjective objective;
};

/// Rows that stand for all of a softmax or cross-entropy objective near a base point: row i is kept with probability
/// p_i and counts h_i = 1 / p_i times. It is a small distributed matrix of its own, and an ordinary
/// `RegressionObjective` on it is the sampled loss. What a sum over all rows with known mean could tell is not left to
/// chance: with f and abar = A^T f of the base, m = sum h_i f_i a_i, S = sum h_i f_i and u_i = (a_i - abar) . s, s = x
/// - base, the normaliser is
///
///     D(s) / D(0) = sum h_i f_i (exp(u_i) - 1) + exp(-(m - S abar) . s),
///
/// exact to first order and never below 1. The last two terms are two more rows, abar with the share -S and abar - m +
/// S abar with the share 1, which count in the normaliser only.
///
/// The kept rows stay on their rank, and those two are the last rank's, behind all others: so the numbers of the kept
/// rows are the same on any number of ranks. Where there are so few that messages take longer than the work on them,
/// all are sent to rank 0, and what it finds out is the caller's to broadcast.
class RowSample {
 public:
  /// What the ranks are on. Blocks of rows are on any, as the result must not depend on it.
  enum class Nodes { one, any, several };

  /// Local, replicated. How many numbers rank 0 works on alone: the time in which other ranks would do their part of
  /// it, (1 - 1 / ranks) (1 + d / 200) for a number, goes into messages, 1 + log2(ranks), which take an eighth between
  /// ranks of one node. For two ranks and d = 100 it is 2^17 there, and 2^20 on two nodes; on any, the geometric mean.
  static double few_numbers(int ranks, Eigen::Index d, Nodes nodes);

  /// Keys the random numbers: the same numbers u_i, row i being kept if u_i < p_i.
  struct Draw {
    std::uint64_t seed = 1;
    std::uint32_t iteration = 0;
  };
  /// Where the rows go: so many numbers are sent to rank 0, at most. Where it is known how many there will be, about,
  /// this decides, and rank 0 alone knows `rows` until the others `learn` it.
  struct Place {
    double few = 0;
    std::optional<double> expected{};
  };
  /// Collective. Reads the kept rows' share of A; one all-reduce of d + 3, and one all-gather of 8 bytes or what
  /// `GatheredRows::send_to_root` takes; if they are expected to be few, the last only. base: a point of `all`, with a
  /// fresh or updated A x. probabilities: this rank's rows, in [0, 1].
  RowSample(const RegressionObjective& all, const Point& base, const Eigen::VectorXd& probabilities, const Draw& draw,
            const Place& place);

  bool is_on_root() const { return is_on_root_; }        ///< Local, replicated. Rank 0 has all of them.
  bool is_here() const { return columns_ != nullptr; }   ///< Local. This rank takes part in what is done with them.
  const Eigen::VectorXd& weights() const { return h_; }  ///< Local. h of the rows here, 0 of the two.
  const Eigen::VectorXd& b() const { return b_; }        ///< Local. The target of the rows here, with the two.
  const Eigen::VectorXd& weights_squared() const { return w2_; }  ///< Local. Likewise.
  /// Collective over the ranks where the rows are, if columns are centred. The sampled loss of this name, of a target
  /// and squared weights of the rows here. target_sum: of all rows. The sample must outlive it.
  std::unique_ptr<SampledProblem> problem(std::string_view loss, const Eigen::VectorXd& b, const Eigen::VectorXd& w2,
                                          double target_sum) const;

  std::int64_t rows() const { return count_; }  ///< Local, replicated, once it is known. On all ranks.
  double share() const { return share_; }       ///< Likewise. Of the rows of A.
  /// Logically collective. rows: of rank 0. Counts their share as read, unless it is counted.
  void learn(std::int64_t rows);
  /// Local. In reads of A, what the passes over these rows took, and `models` d x d models of them. Where they are.
  double reads(double models) const;
  /// Local. |u_i| of the rows here, at most: from the logits of two points of a `problem`.
  double span_local(const Eigen::VectorXd& logits, const Eigen::VectorXd& others, const Eigen::VectorXd& s) const;
  const Eigen::VectorXd& base() const { return base_; }  ///< Local.

 private:
  Eigen::VectorXd h_, shares_, b_, w2_;  // of the rows here
  Eigen::VectorXd base_, abar_;          // d
  bool is_on_root_ = false;
  bool has_own_rows_ = false;  // this rank has the two of the normaliser
  bool is_counted_ = false;
  std::int64_t count_ = 0;
  double share_ = 0;
  RowMatrix A_;
  std::shared_ptr<const ScaledColumns> columns_;
};

/// Local. A x of a point, this rank's rows, without the offsets of the logits.
Eigen::VectorXd logits_of(const Point& point);

}  // namespace attnreg
