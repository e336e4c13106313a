#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>

#include "algebra/scalapack.hpp"
#include "attnreg/leverage.hpp"
#include "attnreg/row_matrix.hpp"
#include "newton/objective.hpp"
#include "objective/column_terms.hpp"
#include "rows/gram.hpp"

namespace attnreg {

// What the cost model of solves (docs/algorithms.md, section 12) is made of.
/// Of a flop of a Gram matrix at 25 Gflop/s on two cores, in units of a read of 8 bytes at 16 GB/s.
constexpr double gram_price = 0.08;
constexpr double typical_models = 6;  ///< of a solve
/// Hessian products of a typical solve, with models of c d rows.
double typical_products(double c);
constexpr double sparse_oversampling = 30;  ///< c of sparse rows, whose Gram matrices are cheap

/// Local. c where it is not given: 30 for d <= 256, else of 30, 20, 15 and 10 the one with the least work.
/// A sample of c d rows has condition ((sqrt(c) + 1) / (sqrt(c) - 1))^2 (Marchenko and Pastur 1967), of which the
/// products take the root; its Gram matrix c d^3 flops.
double automatic_oversampling(std::int64_t rows, Eigen::Index columns);

/// Preconditioners from sampled rows: the centred positive semidefinite model
///
///     M = sum over kept rows of delta_i / p_i (a_i - abar)(a_i - abar)^T + w_i^2 / p_i a_i a_i^T,
///
/// delta >= 0 the positive part of the curvature, or the coupled terms (`WeightedRows`) in place of the first term; p_i
/// = min(1, c (0.9 score_i + 0.1 d / n)), scores of diag(delta + w^2)^{1/2} A (uncentred rows). The sketch behind the
/// scores is kept, and with it t_i = |a_i^T N|^2: while it serves, the scores s_i t_i of new weights s cost no read of
/// A. When c d >= n or the sketch has as many rows as A, all rows are used, without sketch and scores.
class SampledModel {
 public:
  /// Local. w2: squared weights of this rank's rows. A, w2 and column_terms, if there is one, must outlive the model.
  /// With a grid, M is made and factored over its processes.
  SampledModel(const RowMatrix& A, RidgeWeights w2, const SamplingOptions& options,
               std::shared_ptr<const ProcessGrid> grid = nullptr, const ColumnTerms* column_terms = nullptr);

  /// Collective. The model as a preconditioner: what `factor` makes, on all ranks, or a distributed factor of a model
  /// of the same rows. The distributed one takes one pass over these rows, ceil(d / 256) + 2 collectives, and one for
  /// each 256 rows of a sketch.
  std::optional<Preconditioner> preconditioner(WeightedRows rows, const Eigen::VectorXd& centre, bool tired);

  /// Collective. Lower Cholesky factor of M for this curvature; no value if M is not finite or not definite. `tired`:
  /// the last model served badly. The sketch is made anew then, or when the scores of the model before summed to less
  /// than a quarter of what they did at first; after three tired models in a row all rows are used for good. 2 reads
  /// for a sketch, and the kept rows' share of one (all rows: one read, and one more the first time). 2
  /// collectives, 2 more for a sketch, one more for scores that are rescaled. Of blocks the first of each process has
  /// the factor, the others an empty matrix.
  std::optional<Eigen::MatrixXd> factor(WeightedRows rows, const Eigen::VectorXd& centre, bool tired);

  /// Collective. A v for which v^T N v is more than half of v^T M v or nearly so, N = sum nu_i (a_i - centre)(a_i -
  /// centre)^T over all rows, nu >= 0 and not all 0; none if the trace of M^-1 N, or its largest eigenvalue, is smaller
  /// as far as the scores and a small sample tell. Without scores all rows are used, and counted as a read.
  std::optional<Eigen::VectorXd> direction_above(Eigen::VectorXd nu, const Eigen::VectorXd& centre,
                                                 const Preconditioner& M) const;

  /// Local. Takes over the other model's row scales t instead of a sketch of its own; with `rescale` multiplied, at the
  /// first use, so that the scores sum to d: for models whose weights are about proportional.
  void adopt_scores(const SampledModel& other, bool rescale);

  /// Local. As if no model had been made and no scores adopted.
  void forget();

  /// Local. Takes these t_i, this rank's rows.
  void adopt_scores(Eigen::VectorXd row_scale);
  /// Local. Models for rough solves from now on, where all rows would be used: of 20 d rows and more about 10 d, by
  /// these t_i, whose scores are rescaled each time so that they sum to d.
  void use_few_rows(Eigen::VectorXd row_scale);
  /// Local, replicated. Models so far, one of some rows as its share.
  double models_made() const { return models_made_; }

  /// Local, replicated. What the next model will cost, without a sketch, in Hessian products; needs a first one.
  double price() const;

  bool uses_all_rows() const { return all_rows_; }       ///< Local.
  std::int64_t rows_kept() const { return rows_kept_; }  ///< Local, replicated: of the last model.
  /// Local, replicated. The ridge, relative to M's diagonal, that the last model needed; 1e-14 is added to every one.
  double ridge() const { return ridge_; }

 private:
  /// This rank's rows of a model, and sums of what goes with them.
  struct Part {
    WeightedRows rows;
    double scores = 0;  // the sum of all
    double count() const { return static_cast<double>(rows.curvature.size()); }
  };
  Part choose_rows(WeightedRows rows, bool tired);
  Part sampled_rows(const WeightedRows& rows, bool fresh_scores);
  void make_scores(const Eigen::VectorXd& weights);
  void fill_gram(const WeightedRows& rows, const Eigen::VectorXd& centre, std::span<double> lower);
  auto all_w2() const { return w2_.rows(0, A_.rows_local()); }
  void learn(double rows, double scores, double stored);

  std::optional<Preconditioner> distributed(WeightedRows rows, const Eigen::VectorXd& centre, bool tired);

  const RowMatrix& A_;
  RidgeWeights w2_;
  const ColumnTerms* column_terms_;  // none: zero
  SamplingOptions options_;
  std::shared_ptr<const ProcessGrid> grid_;
  bool all_rows_at_first_, all_rows_;
  double stored_ = 0;          // numbers in A, on all ranks; known after the first model
  Eigen::VectorXd row_scale_;  // t, this rank's rows, which may be none
  bool has_scores_ = false;    // there is a row_scale_: replicated, unlike its size
  bool rescale_ = false;       // row_scale_ has still to be rescaled
  bool is_rough_ = false;      // and is for every model: see `use_few_rows`
  RowMajorMatrix ridge_gram_;  // this rank's part of A^T W^2 A, for all rows: its lower triangle
  std::uint32_t models_ = 0;   // made so far: keys the samples
  double models_made_ = 0;
  int tired_in_a_row_ = 0;
  std::int64_t rows_kept_ = 0;
  double ridge_ = 0;
  bool singular_ = false;                                       // the last model was
  double score_sum_ = std::numeric_limits<double>::infinity();  // of the last model, over all ranks
  double fresh_sum_ = 0;  // of the first model with these scores; 0: there is none yet
};

}  // namespace attnreg
