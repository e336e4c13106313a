#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "attnreg/attention_regression.hpp"
#include "attnreg/communicator.hpp"
#include "attnreg/row_matrix.hpp"

namespace attnreg {

// Attention for given queries, keys and values: softmax or polynomial, exact above a threshold, and with differential
// privacy (docs/experiments.md).

/// g in the attention weights P_ij = g(z_ij) / sum_k g(z_ik) of the logits z_ij = scale q_i . k_j.
struct AttentionKernel {
  enum class Kind {
    softmax,     ///< g(z) = e^z
    polynomial,  ///< g(z) = z^degree (arXiv 2310.20051); `scale` cancels
  };
  Kind kind = Kind::softmax;
  std::int64_t degree = 2;  ///< at least 1; an odd one refuses negative logits, with which P is no distribution
  double scale = 1;         ///< > 0; 1 or 1/d in the papers, 1/sqrt(d) in practice
};

/// P V, and by how much the rows were normalised.
struct AttentionOutput {
  RowMajorMatrix output;           ///< rows_local of the queries x columns of V
  Eigen::VectorXd log_normaliser;  ///< ln sum_k g(z_ik), one per local query
};

/// Collective. P V for the queries q_i and keys k_j, the rows of `queries` and `keys`. P is never formed: keys and
/// values pass by in blocks of 256 rows, and every rank adds a block to the rows of its own queries. The reference of
/// the exponentials is the largest ln g met so far, so that no finite logit overflows. A power is exp(degree ln|z|),
/// with a relative error of about eps degree |ln|z||; z = 0 has weight 0.
///
/// Per block one all-reduce of 256 (d + d_v) numbers, which is exact, as each comes from one rank; at the end one of 8
/// bytes. 2 n_q n_k (d + d_v) flops, shared by the queries. Memory: the output and a block. On another number of ranks
/// the output differs by rounding only.
///
/// queries: n_q x d, keys: n_k x d, values: n_k x d_v, on one communicator, each with a partition of its own; dense or
/// sparse. mask: which keys a query sees, its rows those of this rank's queries; null: all. `InvalidArgument` on all
/// ranks, with the first query of the lowest failing rank: shapes that do not fit, a degree or scale out of range,
/// negative logits for an odd degree, for polynomials queries whose logits are all 0, queries that see no key.
/// `NotFinite` on all ranks, with the query: logits, or sums of values, that overflow.
AttentionOutput apply_attention(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix& values,
                                const AttentionKernel& kernel, const AttentionMask* mask = nullptr);

/// How polynomial attention is sketched.
struct PolynomialSketch {
  /// What the estimates of (q . k)^degree are. squares: of a sketch of half the degree, which is even then, so that
  /// none is below 0; unbiased: a sketch of the degree itself, single ones may be below 0; by_degree: squares where
  /// they can be.
  enum class Weights { by_degree, squares, unbiased };

  std::int64_t degree = 2;       ///< 1 to 64
  std::int64_t features = 1024;  ///< M >= 4
  std::uint64_t seed = 1;
  Weights weights = Weights::by_degree;
};

struct SketchedAttention {
  RowMajorMatrix output;  ///< as of `AttentionOutput`
  Index features = 0;     ///< at most M
};

/// Collective. About P V of polynomial attention, in time linear in n: with features phi of M numbers, phi(q)^T phi(k)
/// near (q . k)^degree, it is (phi(Q) (phi(K)^T V)) divided row by row by phi(Q) (phi(K)^T 1). phi is a TensorSketch t
/// (Pham, Pagh 2013), or has the products t_a t_b of one of half the degree with about (2 M)^{1/2} numbers (arXiv
/// 2310.01655). The error of a weight falls as M^{-1/2}, of squares as M^{-1/4}, and grows with (|q| |k|)^degree beside
/// the weights themselves. Where M is enough for all products of entries it is exact: degree 1 for M >= d, 2 for M >=
/// m_2 = d (d + 1) / 2, 4 for M >= m_2 (m_2 + 1) / 2, and so on.
///
/// One all-reduce of 8 M (d_v + 1) bytes, and n_k d_v / 256 others where keys and values are spread in different ways.
/// 2 (n_q + n_k) M d_v flops and degree (n_q + n_k) transforms of length M, over ranks and threads. A function of the
/// seed; on another number of ranks it differs by rounding. Arguments as of `apply_attention`. `InvalidArgument` on all
/// ranks: shapes, options out of range, squares for an odd degree, a query whose weights do not sum to a number above
/// 0. `NotFinite`, `OutOfMemory` likewise.
SketchedAttention sketched_attention(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix& values,
                                     const PolynomialSketch& options);

/// The attention matrix P by blocks of rows, none of which is kept: so two such matrices can be compared row by row
/// although no rank has room for n_q x n_k numbers.
class AttentionRows {
 public:
  /// Collective. Gathers the keys on every rank, n_k d doubles, with all-reduces as for `apply_attention`. `queries`
  /// must outlive this. Failures of shapes and options as there.
  AttentionRows(const RowMatrix& queries, const RowMatrix& keys, const AttentionKernel& kernel);

  /// Local. Rows [first_local, first_local + count) of P, count x n_k. 2 count n_k d flops. `InvalidArgument` (this
  /// rank) for logits that `apply_attention` refuses.
  RowMajorMatrix rows(Index first_local, Index count) const;

 private:
  const RowMatrix& queries_;
  RowMajorMatrix keys_;
  AttentionKernel kernel_;
};

/// Attention that is exact where it is large: with the logits z_ij = scale q_i . k_j and the marked keys
/// S_i = {j: z_ij >= tau}
///
///     A_ij = e^{z_ij} for j in S_i,   c_i for the others;   output_i = sum_j A_ij v_j / sum_j A_ij,
///
/// a sparse matrix plus one of rank one (after arXiv 2307.08045). Under a mask all sums and means are over the keys
/// that the query sees.
struct ThresholdOptions {
  /// c_i, from the logits of the keys that are not marked.
  enum class Background {
    row_mean,     ///< the mean of e^{z_ij}, which keeps the normaliser of the row; the best where logits spread
    exp_of_mean,  ///< e to the mean of z_ij
    zero,         ///< 0: the sparse part alone
  };
  double tau = 0;  ///< any number
  Background background = Background::row_mean;
  double scale = 1;  ///< > 0
  std::int64_t top =
      0;  ///< K > 0: the K largest logits of a query are marked, of equal ones the first, in place of tau
  bool keep_entries = false;  ///< `entries` and `rank_one` are wanted; with `top` they always are there
};

struct ThresholdAttention {
  RowMajorMatrix output;              ///< local queries x d_v
  std::vector<std::int64_t> marked;   ///< |S_i|, one per local query
  std::vector<std::int64_t> visible;  ///< keys that the query sees
  /// The attention matrix is P~ = entries + rank_one 1^T, under a mask with the ones at the keys that are seen: local
  /// queries x n_k, (A_ij - c_i) / sum_k A_ik at the marked keys; and c_i / sum_k A_ik. Empty unless they were wanted.
  CsrRows entries;
  Eigen::VectorXd rank_one;
};

/// Collective. One exact scan of all pairs, in the blocks, with the messages and at the cost of `apply_attention` and
/// of one more product with the values. A is never formed. Where z_ij equals tau to the last digits, rounding decides
/// whether key j is marked.
///
/// Shapes and failures as for `apply_attention`; `InvalidArgument` also for a tau that is NaN, and with
/// `Background::zero` for a query without a marked key.
ThresholdAttention threshold_attention(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix& values,
                                       const ThresholdOptions& options, const AttentionMask* mask = nullptr);

/// Local. How many queries to an oracle for S_i Grover's search would take to find all `marked` of N = `items` keys if
/// their number is not known. This is a simulation, not a quantum computation. Source: Boyer, Brassard, Hoyer, Tapp
/// 1998.
///
/// A search draws j uniformly from the integers below M, takes j queries and one to check, and succeeds with the
/// probability sin^2((2 j + 1) theta), sin^2 theta = t / N for t keys that are left; else M grows by 6/5, up to
/// sqrt(N). A key that was found is taken out, and nobody searches when none is left. For few marked keys about 2.3
/// to 2.9 sqrt(N marked) queries in all. The random numbers are functions of (seed, query).
///
/// items >= 1, 0 <= marked <= items; else `InvalidArgument` (this rank).
std::int64_t simulated_grover_queries(std::int64_t items, std::int64_t marked, std::uint64_t seed, std::int64_t query);

/// (epsilon, delta) of differential privacy: P(output in S | X) <= e^epsilon P(output in S | X') + delta for all sets S
/// and all neighbours X, X'.
struct PrivacyBudget {
  double epsilon = 1;   ///< > 0
  double delta = 1e-3;  ///< in (0, 1)
};

/// What neighbours X, X' change, in any order, at most: a statement on the eigenvalues of Sigma'^{-1} Sigma, where
/// Sigma = X X^T + lambda I. All privacy is told from them (docs/experiments.md has the proofs).
struct CovarianceChange {
  enum class Eigenvalues {
    any,   ///< |Sigma^{1/2} Sigma'^{-1} Sigma^{1/2} - I|_F <= size < 1, whatever the rank of the change is
    one,   ///< one is in [1 / (1 + size), 1 + size], all others are 1
    pair,  ///< one is in [1, 1 + size], one in [1 / (1 + size), 1], all others are 1
  };
  Eigenvalues eigenvalues = Eigenvalues::any;
  double size = 0;  ///< > 0

  /// Local. The largest |Sigma^{1/2} Sigma'^{-1} Sigma^{1/2} - I|_F of such a change.
  double frobenius() const;
};

/// Which X and X' are neighbours: matrices of n rows, no row longer than `row_norm`, that differ in one row, and there
/// by a vector not longer than `change`.
struct Neighbours {
  std::int64_t rows = 0;                                    ///< n >= 1
  double row_norm = 0;                                      ///< C > 0
  double change = std::numeric_limits<double>::infinity();  ///< > 0; from 2 C on any row replaces another
};

/// Local. What such neighbours change with a ridge lambda > 0: size = Lambda - 1, where for whole rows, n >= 2,
///
///     (Lambda - 1)^2 / Lambda = 4 (n - 1) C^4 / (lambda (lambda + n C^2)),
///
/// which some neighbours reach; for smaller changes and n = 1 see docs/experiments.md. `InvalidArgument` on all ranks
/// for numbers out of range.
CovarianceChange covariance_change(const Neighbours& neighbours, double ridge);

/// What is proved of delta(epsilon): it is at most `delta`, and at least delta - error for the worst change of the
/// kind.
struct PrivacyDelta {
  double delta = 1;
  double error = 1;
};

/// Local. The delta with which k samples are (epsilon, delta)-private under the change. The privacy loss is a weighted
/// sum of chi-squares; delta is the inversion of its transform by the trapezoidal rule, whose aliasing, truncation and
/// rounding are bounded (error 1e-5 of delta, unless delta is so small that its Chernoff bound stands in for it).
/// `any`: a Chernoff bound, which holds for every set of eigenvalues; some 3 times delta where that is 0.001.
/// Milliseconds, whatever k is. epsilon > 0, k >= 1; else `InvalidArgument` on all ranks, as for a change that is out
/// of range.
PrivacyDelta privacy_delta(const CovarianceChange& change, std::int64_t samples, double epsilon);

/// Local. The largest number of samples that the budget allows under the change, at most 2^40; 0 if none. Failures as
/// above.
std::int64_t sample_limit(const PrivacyBudget& budget, const CovarianceChange& change);

/// Local. The largest change of this kind under which k samples keep the budget. Failures as above.
CovarianceChange change_limit(const PrivacyBudget& budget, std::int64_t samples,
                              CovarianceChange::Eigenvalues eigenvalues);

/// Local. The smallest ridge with which k samples keep the budget for these neighbours. Failures as above.
double smallest_ridge(const PrivacyBudget& budget, std::int64_t samples, const Neighbours& neighbours);

struct PrivateAttentionOptions {
  PrivacyBudget budget{};
  CovarianceChange change{};       ///< the caller's promise about all neighbours, which nothing checks
  std::int64_t samples = 0;        ///< k; 0: `sample_limit`
  double ridge = 0;                ///< lambda >= 0, added to the covariance before the release and taken off after it
  double smallest_eigenvalue = 0;  ///< eta >= 0: what lambda_min(Sigma) must reach
  double scale = 1;                ///< of the logits, after the release
  std::uint64_t seed = 0;          ///< a secret: whoever knows or guesses it undoes the noise
};

/// How far what is published is from the truth.
struct ReleaseError {
  double entry = 0;       ///< of the attention matrix, max |P^_ij / P_ij - 1|
  double attention = 0;   ///< |P^ - P|_F / |P|_F
  double covariance = 0;  ///< of the published covariance, |Sigma^ - X X^T|_F / |X X^T|_F
};

/// What is released, on rank 0; the matrices are empty elsewhere. Only `covariance` and `attention` are private. The
/// errors and `smallest_eigenvalue` are computed from the true Sigma and must not be published.
struct PrivateAttention {
  RowMajorMatrix covariance;  ///< Sigma^ = 1/k sum_s g_s g_s^T, g_s ~ N(0, Sigma), n x n
  RowMajorMatrix attention;   ///< softmax of the rows of scale (Sigma^ - lambda I): post-processing
  std::int64_t samples = 0;
  PrivacyDelta privacy;            ///< of these samples at epsilon
  double sensitivity_limit = 0;    ///< `CovarianceChange::frobenius` of the largest change that they allow
  double smallest_eigenvalue = 0;  ///< of Sigma; on rank 0
  double spectral_error = 0, expected_spectral_error = 0;    ///< |L^{-1} Sigma^ L^{-T} - I|_2; about 2 sqrt(n/k) + n/k
  double frobenius_error = 0, expected_frobenius_error = 0;  ///< the same in this norm; sqrt(n (n + 1) / k)
  ReleaseError release;
  ReleaseError nothing;      ///< of uniform attention, 1 / n everywhere, and of the covariance 0
  ReleaseError ridge_alone;  ///< of as many samples as one likes: Sigma itself
  /// Uniform attention is at least as near to the true one.
  bool is_worse_than_nothing() const {
    return !(release.entry < nothing.entry) || !(release.attention < nothing.attention);
  }
};

/// Collective. X X^T, n x n, on every rank. n / 256 all-reduces of 2048 d bytes, one all-gather of 8 n^2. X: n x d.
Eigen::MatrixXd row_gram(const RowMatrix& X);

/// Collective. Releases Sigma = covariance + lambda I = L L^T by the Gaussian sampling mechanism. Source: arXiv
/// 2305.04701.
///
/// What is not certified: sampling in floating point (the mechanism is private for real numbers), the generator (Philox
/// is not a cryptographic one, its key has 64 bits), the change, and the conditions themselves, which look at the data.
///
/// One reduce of 8 n^2 bytes and two agreements. k n^2 flops shared by the ranks, 30 n^3 on rank 0. The samples depend
/// on the seed, not on the number of ranks. covariance: n x n, replicated. `InvalidArgument` on all ranks says which
/// condition fails: Sigma is not symmetric, not finite or, to rounding, not positive definite; lambda_min(Sigma) < eta;
/// the samples are more than `sample_limit`; an option is out of range.
PrivateAttention private_attention(const Communicator& communicator, const Eigen::MatrixXd& covariance,
                                   const PrivateAttentionOptions& options);

}  // namespace attnreg
