#pragma once

#include <Eigen/Core>
#include <cstdint>

#include "attnreg/communicator.hpp"
#include "attnreg/row_matrix.hpp"

namespace attnreg {

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
