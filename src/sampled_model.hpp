#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <limits>
#include <optional>

#include "attnreg/objective.hpp"
#include "attnreg/regression.hpp"
#include "attnreg/row_matrix.hpp"

namespace attnreg {

/// Preconditioners from sampled rows: the centred positive semidefinite model
///
///     M = sum over kept rows of max(delta_i, 0) / p_i (a_i - abar)(a_i - abar)^T + w_i^2 / p_i a_i a_i^T,
///
/// p_i = min(1, c (0.9 score_i + 0.1 d / n)), scores of diag(max(delta, 0) + w^2)^{1/2} A (uncentred rows). The sketch
/// behind the scores is kept, and with it t_i = |a_i^T N|^2: while it serves, the scores s_i t_i of new weights s cost
/// no read of A. When c d >= n or the sketch has as many rows as A, all rows are used, without sketch and scores.
class SampledModel {
 public:
  /// Local. w2: squared weights of this rank's rows. A and w2 must outlive the model.
  SampledModel(const RowMatrix& A, const Eigen::VectorXd& w2, const SamplingOptions& options);

  /// Collective. Lower Cholesky factor of M for this curvature; no value if M is not finite or not definite. `tired`:
  /// the last model served badly. The sketch is made anew then, or when the scores of the model before summed to less
  /// than a quarter of what they did at first; after three tired models in a row all rows are used for good. 2 reads
  /// for a sketch, and the kept rows' share of one (all rows: one read, and one more the first time). 2
  /// collectives, 2 more for a sketch, one more for scores that are rescaled.
  std::optional<Eigen::MatrixXd> factor(const Eigen::VectorXd& delta, const Eigen::VectorXd& centre, bool tired);

  /// Local. Takes over the other model's row scales t instead of a sketch of its own; with `rescale` multiplied, at the
  /// first use, so that the scores sum to d: for models whose weights are about proportional.
  void adopt_scores(const SampledModel& other, bool rescale);

  /// Local, replicated. What the next model will cost, without a sketch, in Hessian products; needs a first one.
  double price() const;

  bool uses_all_rows() const { return all_rows_; }       ///< Local.
  std::int64_t rows_kept() const { return rows_kept_; }  ///< Local, replicated: of the last model.

 private:
  /// This rank's part of the model, and of what goes with it.
  struct Part {
    Eigen::MatrixXd gram;
    double curvature = 0, rows = 0, scores = 0;  // sums over the rows kept, their number; sum of all scores
  };
  void add_all_rows(Part& part, const Eigen::VectorXd& curvature, const Eigen::VectorXd& centre);
  void add_sampled_rows(Part& part, const Eigen::VectorXd& curvature, const Eigen::VectorXd& centre, bool fresh_scores);

  const RowMatrix& A_;
  const Eigen::VectorXd& w2_;
  SamplingOptions options_;
  bool all_rows_;
  double stored_ = 0;           // numbers in A, on all ranks; known after the first model
  Eigen::VectorXd row_scale_;   // t, this rank's rows, which may be none
  bool has_scores_ = false;     // there is a row_scale_: replicated, unlike its size
  bool rescale_ = false;        // row_scale_ has still to be rescaled
  Eigen::MatrixXd ridge_gram_;  // this rank's part of A^T W^2 A, for all rows
  std::uint32_t models_ = 0;    // made so far: keys the samples
  int tired_in_a_row_ = 0;
  std::int64_t rows_kept_ = 0;
  double score_sum_ = std::numeric_limits<double>::infinity();  // of the last model, over all ranks
  double fresh_sum_ = 0;  // of the first model with these scores; 0: there is none yet
};

}  // namespace attnreg
