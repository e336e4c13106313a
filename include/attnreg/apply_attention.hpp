#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <string_view>
#include <vector>

#include "attnreg/communicator.hpp"
#include "attnreg/row_matrix.hpp"

namespace attnreg {

/// g in the attention weights P_ij = g(z_ij) / sum_k g(z_ik) of the logits z_ij = scale q_i . k_j.
struct AttentionKernel {
  enum class Kind {
    softmax,     ///< g(z) = e^z
    polynomial,  ///< g(z) = z^degree (arXiv 2310.20051); `scale` cancels
  };
  Kind kind = Kind::softmax;
  std::int64_t degree = 2;  ///< at least 1; odd ones refuse negative logits, with which P would not be a distribution
  double scale = 1;         ///< > 0: 1 and 1/d in the papers, 1/sqrt(d) in practice
};

/// P V, and by how much the rows were normalised.
struct AttentionOutput {
  RowMajorMatrix output;           ///< rows_local of the queries x columns of V
  Eigen::VectorXd log_normaliser;  ///< ln sum_k g(z_ik), one per local query
};

/// Collective. P V for the queries q_i and keys k_j, rows of `queries` and `keys`. P is never formed: keys and values
/// pass by in blocks of 256 rows, and every rank adds them to the rows of its own queries, with the largest ln g met so
/// far as reference, so that no finite logit overflows. Powers are taken in the form degree ln|z|, which costs a
/// relative error of about eps degree |ln|z|| in a weight; z = 0 has weight 0.
///
/// One all-reduce of 256 (d + d_v) numbers a block (each number comes from one rank, so the sum is exact), and one of 8
/// bytes. 2 n_q n_k (d + d_v) flops, shared by the queries. Memory: the output and a block. The output depends on the
/// number of ranks in its rounding only.
///
/// queries: n_q x d, keys: n_k x d, values: n_k x d_v, on one communicator, each with a partition of its own; dense or
/// sparse. Shapes that do not fit, a degree or scale out of range, negative logits for an odd degree, logits
/// that overflow and queries whose logits are all 0 (polynomial): `InvalidArgument` on all ranks, naming the lowest
/// failing rank's first query.
AttentionOutput apply_attention(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix& values,
                                const AttentionKernel& kernel);

/// The attention matrix P, made by blocks of rows and not kept: two of them can be compared row by row without n_q x
/// n_k numbers anywhere.
class AttentionRows {
 public:
  /// Collective. Gathers the keys on every rank, n_k d doubles, with all-reduces as for `apply_attention`. `queries`
  /// must outlive this. Errors of shapes and options as there.
  AttentionRows(const RowMatrix& queries, const RowMatrix& keys, const AttentionKernel& kernel);

  /// Local. Rows [first_local, first_local + count) of P, count x n_k; 2 count n_k d flops. `InvalidArgument` (this
  /// rank) for logits as above.
  RowMajorMatrix rows(Index first_local, Index count) const;

 private:
  const RowMatrix& queries_;
  RowMajorMatrix keys_;
  AttentionKernel kernel_;
};

/// Local. Replaces the rows of inner products q_i . k_j by rows of P. `first_row` is the number of the first row in
/// messages. `InvalidArgument` (this rank) as above.
void normalise_attention(const AttentionKernel& kernel, std::int64_t first_row, RowMajorMatrix& products);

/// Attention that is exact where it is large: with the logits z_ij = scale q_i . k_j and the marked keys
/// S_i = {j: z_ij >= tau}
///
///     A_ij = e^{z_ij} for j in S_i,   c_i for the others;   output_i = sum_j A_ij v_j / sum_j A_ij,
///
/// a sparse matrix plus one of rank one (after arXiv 2307.08045).
struct ThresholdOptions {
  enum class Background {
    row_mean,     ///< c_i = mean of e^{z_ij} over the others: keeps the row's normaliser; the best where logits spread
    exp_of_mean,  ///< c_i = e^{mean of z_ij}
    zero,         ///< c_i = 0: the sparse part alone
  };
  double tau = 0;
  Background background = Background::row_mean;
  double scale = 1;  ///< > 0
};

struct ThresholdAttention {
  RowMajorMatrix output;             ///< local queries x d_v
  std::vector<std::int64_t> marked;  ///< |S_i|, one per local query
};

/// Collective. One exact scan of all pairs, in the blocks, with the messages and the cost of `apply_attention` and one
/// more product with the values; A is never formed. Which keys are marked can depend on rounding where z_ij = tau to
/// the last digits.
///
/// Shapes and errors as for `apply_attention`; also tau that is NaN, and for `Background::zero` a query without a
/// marked key.
ThresholdAttention threshold_attention(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix& values,
                                       const ThresholdOptions& options);

/// Local. Queries to an oracle for S_i that Grover searches for all `marked` of `items` keys take, the number of marked
/// ones not being known: a simulation, not a quantum computation. Each search (Boyer, Brassard, Hoyer, Tapp 1998) draws
/// j uniformly from the integers below M, runs j iterations of j queries and one query to check, succeeds with
/// probability sin^2((2 j + 1) theta), sin^2 theta = t / N, and else makes M 6/5 times larger, at most sqrt(N); a key
/// that was found is taken out. About 2.3 to 2.9 sqrt(N marked) together, for few marked. That none is left is not
/// searched for. Random numbers depend on (seed, query).
///
/// items >= 1, 0 <= marked <= items; else `InvalidArgument` (this rank).
std::int64_t simulated_grover_queries(std::int64_t items, std::int64_t marked, std::uint64_t seed, std::int64_t query);

/// (epsilon, delta) of differential privacy: P(output in S | X) <= e^epsilon P(output in S | X') + delta for neighbours
/// X, X'.
struct PrivacyBudget {
  double epsilon = 1;   ///< in (0, 1], where the rule below was checked
  double delta = 1e-3;  ///< in (0, 1)
};

/// Local. The largest sensitivity with which k samples are (epsilon, delta)-private,
///
///     Delta <= min( epsilon / sqrt(8 k ln(1 / delta)),  epsilon / (8 ln(1 / delta)) ),
///
/// Delta >= |Sigma^{1/2} Sigma'^{-1} Sigma^{1/2} - I|_F for all neighbours (arXiv 2305.04701). For changes of rank one
/// it is conservative by a factor of 3.5 to 4.4; its constants are not checked beyond these. Budget out of range, k <
/// 1: `InvalidArgument` on all ranks.
double sensitivity_limit(const PrivacyBudget& budget, std::int64_t samples);

/// Local. The largest number of samples that `sensitivity` > 0 allows, at most 2^40; 0 if none.
std::int64_t sample_limit(const PrivacyBudget& budget, double sensitivity);

struct PrivateAttentionOptions {
  PrivacyBudget budget{};
  double sensitivity = 0;          ///< Delta > 0; a promise of the caller about all neighbours, not checked
  std::int64_t samples = 0;        ///< k; 0: `sample_limit`
  double ridge = 0;                ///< lambda >= 0, added to the covariance before and taken off after
  double smallest_eigenvalue = 0;  ///< eta >= 0: what lambda_min(Sigma) must reach
  double scale = 1;                ///< of the logits, after the release
  std::uint64_t seed = 0;          ///< whoever knows or guesses it undoes the noise
};

/// The matrices are on rank 0 and empty elsewhere. Only `covariance` and `attention` are private; the errors are
/// computed from the true Sigma and must not be published, nor must `smallest_eigenvalue`.
struct PrivateAttention {
  RowMajorMatrix covariance;  ///< Sigma^ = 1/k sum_s g_s g_s^T, g_s ~ N(0, Sigma), n x n
  RowMajorMatrix attention;   ///< softmax of the rows of scale (Sigma^ - lambda I): post-processing
  std::int64_t samples = 0;
  double sensitivity_limit = 0;
  double smallest_eigenvalue = 0;                            ///< of Sigma; on rank 0
  double spectral_error = 0, expected_spectral_error = 0;    ///< |L^{-1} Sigma^ L^{-T} - I|_2; about 2 sqrt(n/k) + n/k
  double frobenius_error = 0, expected_frobenius_error = 0;  ///< the same in this norm; sqrt(n (n + 1) / k)
  double attention_error = 0;                                ///< max |P^_ij / P_ij - 1|
};

/// Collective. X X^T on every rank: n x n. n / 256 all-reduces of 2048 d bytes, one all-gather of 8 n^2. X: n x d.
Eigen::MatrixXd row_gram(const RowMatrix& X);

/// Collective. Releases Sigma = covariance + lambda I = L L^T by the Gaussian sampling mechanism. Refuses, with
/// `InvalidArgument` on all ranks that says which condition fails: Sigma not symmetric, not finite or, to rounding, not
/// positive definite; lambda_min(Sigma) < eta; Delta above either term of `sensitivity_limit`; options out of range.
///
/// What is not certified: sampling in floating point (the mechanism is private for real numbers), the generator (Philox
/// is not a cryptographic one, its key has 64 bits), Delta, and the conditions themselves, which look at the data.
///
/// One reduce of 8 n^2 bytes, two agreements; k n^2 flops shared by the ranks, 30 n^3 on rank 0. The samples depend on
/// the seed, not on the number of ranks. covariance: n x n, replicated.
PrivateAttention private_attention(const Communicator& communicator, const Eigen::MatrixXd& covariance,
                                   const PrivateAttentionOptions& options);

}  // namespace attnreg
