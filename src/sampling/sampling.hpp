#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <string>
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

/// Local. p_i = min(1, c ((1 - u) score_i + u d / n)), the score in units of 2^-40.
double keeping_probability(const RowMatrix& A, double score, const PoissonOptions& options);

/// Local. The c for which (1 - epsilon) A^T D A <= A^T D~ A <= (1 + epsilon) A^T D A with probability at least 1 -
/// delta, for the scores of D^{1/2} A, of this rank: ln(2 rank / delta) / ((1 - u) ((1 + epsilon) ln(1 + epsilon) -
/// epsilon)), as in `with_replacement_size`.
double poisson_oversampling(Index rank, double epsilon, double delta, const PoissonOptions& options);

/// Collective. Keeps row i with `keeping_probability` and weight 1 / p_i; about c d rows
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

/// Local. Throws `InvalidArgument` (this rank) unless there is one finite number >= 0 for each of its rows. `what`:
/// "score".
void check_row_numbers(const RowMatrix& A, const Eigen::VectorXd& numbers, const std::string& what);

/// Local. Independent N(0, 1) numbers, d x count, functions of (seed, iteration).
Eigen::MatrixXd gaussian_probes(Index d, int count, std::uint64_t seed, std::uint32_t iteration = 0);

/// Local. `sample_poisson` without its checks and without the count of all ranks (`count_global` stays 0), for callers
/// that add the count to a message of their own. scores: finite, >= 0.
SampledRows keep_rows(const RowMatrix& A, const Eigen::VectorXd& scores, const PoissonOptions& options);

}  // namespace attnreg
