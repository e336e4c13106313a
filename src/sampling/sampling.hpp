#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <vector>

#include "attnreg/row_matrix.hpp"

namespace attnreg {

/// Rows drawn with probabilities that follow their leverage scores. sum_{i drawn} weight_i D_i a_i a_i^T is an unbiased
/// estimate of A^T D A for every diagonal D.
///
/// The same rows for the same scores on any number of ranks: all random numbers are keyed by the global row or by the
/// draw, and scores are rounded to multiples of 2^-40, so that scores that differ by rounding mostly count as equal.
struct SampledRows {
  std::vector<Index> rows;        ///< local numbers of this rank's rows that were drawn, ascending
  Eigen::VectorXd weights;        ///< one per row drawn: 1 / p_i, or count_i / (m p_i)
  std::int64_t count_global = 0;  ///< distinct rows on all ranks, replicated
};

/// How each row is kept or not, independently of the others.
struct PoissonOptions {
  double oversampling = 30;    ///< c > 0; 30 (110) for a spectral error of 0.5 (0.25) with 99 % probability
  double uniform_share = 0.1;  ///< u in [0, 1]: guards against scores that came out too small
  std::uint64_t seed = 1;
  std::uint32_t iteration = 0;
};

/// Collective. Keeps row i with p_i = min(1, c ((1 - u) score_i + u d / n)) and weight 1 / p_i; about c d rows
/// at most. Rows with p_i = 1 are kept for certain.
/// No read of A, one all-reduce of 8 bytes. scores: rows_local; rounded, and at most 1 is counted.
/// Options out of range, scores of wrong length, negative or not finite on any rank: `InvalidArgument` on all ranks.
SampledRows sample_poisson(const RowMatrix& A, const Eigen::VectorXd& scores, const PoissonOptions& options);

struct ReplacementOptions {
  std::int64_t draws = 0;  ///< m, at least 1, below 2^31; see `with_replacement_size`
  std::uint64_t seed = 1;
  std::uint32_t iteration = 0;
};

/// Collective. Draws m rows with replacement, row i with probability p_i = score_i / (sum of the scores), and gives it
/// the weight count_i / (m p_i). Definition 5.3 of arXiv 2304.04397, corrected: p_i >= beta sigma_i / d for the true
/// scores sigma needs 0 < beta <= 1 (not beta >= 1), as the p_i sum to 1 and the sigma_i to d.
///
/// The scores are counted in units of 2^-40, at most 1, and at least one unit if positive; probabilities and cumulative
/// sums are exact in 64-bit integers, as long as the scores sum to less than 2^21. Draws depend on (seed, iteration,
/// draw). Every rank makes all m draws and keeps its own: O(m) time and memory. All scores 0: an empty sample.
/// No read of A, one all-gather and one all-reduce of 8 bytes. scores: rows_local.
/// Errors as for `sample_poisson`; also if the scores sum to 2^21 or more.
SampledRows sample_with_replacement(const RowMatrix& A, const Eigen::VectorXd& scores,
                                    const ReplacementOptions& options);

/// Local. The number of draws m for which (1 - epsilon) A^T D A <= A^T D~ A <= (1 + epsilon) A^T D A with probability
/// at least 1 - delta, where D >= 0, p_i >= beta sigma_i / d for the scores sigma of D^{1/2} A:
///
///     m = ceil( d ln(2 d / delta) / (beta ((1 + epsilon) ln(1 + epsilon) - epsilon)) ) = O(epsilon^-2 d log(d /
///     delta)).
///
/// Each draw adds a matrix of norm at most d / (m beta), in the norm of A^T D A, and their sum has mean I; matrix
/// Chernoff bounds (Tropp, "User-friendly tail bounds for sums of random matrices", 2012, Theorem 1.1) then bound the
/// probability of either side by d exp(-m beta ((1 + epsilon) ln(1 + epsilon) - epsilon) / d). Lemma 2.1.16 of the
/// thesis states O(d log(n / delta)), without epsilon. Measured needs are 2 to 4 times smaller. epsilon in (0, 1],
/// delta in (0, 1), beta in (0, 1], d >= 1; else `InvalidArgument` on all ranks.
std::int64_t with_replacement_size(Index d, double epsilon, double delta, double beta = 1);

/// D~ of Lemma 2.1.16 of the thesis: diagonal, nonzero for the sampled rows only, D~_ii = D_i weight_i. It belongs
/// inside the quadratic form, A^T D~ A; arXiv 2304.04397 has its square root, which multiplies rows.
class SparseDiagonal {
 public:
  /// Local. D: rows_local, of either sign.
  SparseDiagonal(const SampledRows& sample, const Eigen::VectorXd& D);

  const std::vector<Index>& rows() const { return rows_; }        ///< local numbers, ascending
  const Eigen::VectorXd& values() const { return values_; }       ///< D_i weight_i for these rows
  std::int64_t nonzeros_global() const { return count_global_; }  ///< rows sampled on all ranks

  /// Collective. How far D~ is from D on the columns v of `probes`:
  ///
  ///     max_v | v^T A^T (D~ - D) A v | / (v^T A^T |D| A v),
  ///
  /// which is |v^T A^T D~ A v / v^T A^T D A v - 1| if D >= 0. A lower estimate of the spectral error, which is the
  /// maximum over all v; random probes average over its directions, so expect it to be several times larger. 0 if all
  /// denominators vanish.
  /// One read of A for all probes, one all-reduce of 16 k bytes. D: rows_local, as given to the constructor. probes:
  /// d x k, replicated: `gaussian_probes`, or the N of a `LeverageBasis` for diag(|D|)^{1/2} A that was not used for
  /// this sample, whose columns do not favour the large directions of A.
  double spectral_error(const RowMatrix& A, const Eigen::VectorXd& D, const Eigen::MatrixXd& probes) const;

 private:
  std::vector<Index> rows_;
  Eigen::VectorXd values_;
  std::int64_t count_global_;
};

/// Local. Independent N(0, 1) numbers, d x count, functions of (seed, iteration).
Eigen::MatrixXd gaussian_probes(Index d, int count, std::uint64_t seed, std::uint32_t iteration = 0);

/// Local, count_global / n of a read. This rank's part of
///
///     sum_j weights_j (a_j - centre)(a_j - centre)^T + ridge_j a_j a_j^T
///
/// over the sampled rows j, d x d, symmetric and full; reads only these rows, d^2 flops each; rows of weight and ridge
/// 0 are left out. The caller adds up the ranks' parts. The same bits for equal numbers of threads. weights: one per
/// sampled row, for instance D_j sample.weights_j, of either sign where its ridge is 0. centre: d, or empty for 0.
/// ridge: likewise, >= 0, or empty for 0.
Eigen::MatrixXd sampled_gram(const RowMatrix& A, const SampledRows& sample, const Eigen::VectorXd& weights,
                             const Eigen::VectorXd& centre, const Eigen::VectorXd& ridge = {});

/// Local. `sample_poisson` without its checks and without the count of all ranks (`count_global` stays 0), for callers
/// that add the count to a message of their own. scores: finite, >= 0.
SampledRows keep_rows(const RowMatrix& A, const Eigen::VectorXd& scores, const PoissonOptions& options);

}  // namespace attnreg
