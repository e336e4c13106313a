#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "attnreg/leverage.hpp"
#include "attnreg/row_matrix.hpp"

namespace attnreg {

/// How the columns of Y are chosen. X is n x d with d >> n, and Y Y^T = sum_j weight_j x_j x_j^T is to stand for X X^T.
enum class ColumnMethod {
  /// Columns drawn by their leverage scores x_j^T (X X^T)^+ x_j, independently of each other. Deng, Mahadevan and Song
  /// 2023 (arXiv 2304.04397), Algorithms 1 and 2, which are about rows; here about columns (docs/errata.md).
  leverage,
  /// No randomness: Batson, Spielman and Srivastava 2009 (arXiv 0808.0163), two barriers.
  bss,
  uniform,  ///< drawn with replacement, all alike
  norm,     ///< drawn with replacement, p_j ~ |x_j|^2
  jl,       ///< Y = X G with independent N(0, 1/m) entries: no columns of X, and dense
  topk,     ///< the m columns of the largest norms, as they are: biased
};

struct SparsifyOptions {
  ColumnMethod method = ColumnMethod::leverage;
  /// Wanted: (1 - epsilon) X X^T <= Y Y^T <= (1 + epsilon) X X^T. In (0, 1).
  double epsilon = 0.5;
  double delta = 0.01;  ///< probability of missing that, of the methods that draw; in (0, 1)
  /// Draws, expected number of columns (leverage) or steps (bss: more than the rank of X, and all of them are made).
  /// 0: what epsilon and delta ask for; bss then stops as soon as epsilon is reached.
  std::int64_t columns = 0;
  bool with_replacement = false;  ///< leverage: draws with replacement, as in the paper
  LeverageOptions scores{};       ///< leverage: the approximate scores
  std::uint64_t seed = 1;         ///< of everything that is random
};

/// Why a choice of columns ended.
enum class SparsifyEnd {
  drawn,      ///< the columns were drawn or picked; nothing was iterated
  reached,    ///< bss: the eigenvalues of the chosen columns certify epsilon
  all_steps,  ///< bss: the steps that were asked for, or the ceil(df n) that suffice in exact arithmetic
  /// bss: an eigenvalue met a barrier or no column was left, which only rounding can do. The weights so far are scaled
  /// and described like any others.
  rounding,
};

/// Y = X S, and where its columns come from.
struct Sparsifier {
  /// m x n: the columns of Y as rows, spread over the ranks like those of X. If no column was chosen, as for X = 0, a
  /// single one of zeros.
  RowMatrix Y;
  std::vector<std::int64_t> columns{};  ///< numbers in X of this rank's columns of Y, ascending; none for jl
  Eigen::VectorXd weights{};            ///< Y(:, k) = sqrt(weight_k) x_{column k}; one per local column; none for jl
  std::int64_t columns_global = 0;      ///< of Y, on all ranks; 0 if none was chosen
  std::int64_t draws = 0;               ///< draws with replacement, rows of the JL matrix, or steps of bss
  SparsifyEnd end = SparsifyEnd::drawn;
  /// bss: (lambda_max - lambda_min) / (lambda_max + lambda_min) of the whitened sum of the chosen columns; NaN for the
  /// others, whose error `attention_errors` measures.
  double certified_epsilon = std::numeric_limits<double>::quiet_NaN();
};

/// Collective. Chooses columns of X. The same ones, and for bss the same bits of the weights, on any number of ranks
/// and threads and for any partition.
///
/// X: its columns as the rows of a RowMatrix, d x n, d_local on this rank. Communication and cost, m columns:
/// - leverage: two reads, as `leverage_scores`, and one or two all-reduces. Poisson draws keep column j with p_j =
///   min(1, c (0.9 score_j + 0.1 n / d)), 0.9 c = ln(2 n / delta) / ((1 + epsilon) ln(1 + epsilon) - epsilon): the
///   matrix Chernoff bound of `with_replacement_size`, each column that is drawn adding at most I / (0.9 c), and those
///   with p_j = 1 no error. It holds for exact scores.
/// - bss: `choose_by_barriers`.
/// - uniform, norm, topk, jl: `with_replacement_size` columns, no guarantee for these. One read that belongs to the
///   loading, for the norms. topk: at most 64 all-reduces of 8 bytes more. jl: one read, d m normal numbers and 2 n m d
///   flops, one reduce-scatter of 8 n m bytes.
/// Y takes 8 n m bytes over all ranks, in CSR if X is sparse. Options out of range, X with numbers that are not finite,
/// or, but for leverage, whose squares overflow: `InvalidArgument` on all ranks.
Sparsifier sparsify(const RowMatrix& X, const SparsifyOptions& options);

/// Local. The expected number of columns, or number of draws, that epsilon and delta ask for: c n as above, or
/// `with_replacement_size`. n: the columns of X as it is held.
std::int64_t columns_for(const SparsifyOptions& options, Index n);

/// Local. Y = 0 for X, as a single column of zeros: what every Y has to be better than.
RowMatrix no_columns(const RowMatrix& X);

/// How far Y Y^T, and the attention matrix made of it, are from those of X. With K = scale X X^T, r = max |K_ij|,
/// P(X) = softmax of the rows of K, K_Y and P(Y) likewise.
struct AttentionError {
  double gram = 0;  ///< max |K_Y - K| / r
  /// The least e with (1 - e) K <= K_Y <= (1 + e) K on the range of K; NaN where it was not computed.
  double spectral = std::numeric_limits<double>::quiet_NaN();
  double entry = 0;  ///< max |P(Y)_ij / P(X)_ij - 1|
  /// e^{2 e r} - 1 with e = `spectral`: no entry error is larger. NaN where e is.
  double entry_bound = std::numeric_limits<double>::quiet_NaN();
  double output = 0;  ///< |(P(Y) - P(X)) V|_F / |P(X) V|_F
};

struct AttentionErrors {
  double largest_logit = 0;            ///< r
  Eigen::Index rank = 0;               ///< of X, numerically; 0 where it was not computed
  std::vector<AttentionError> errors;  ///< one per Y
};

struct AttentionErrorOptions {
  double scale = 1;  ///< > 0
  /// The spectral error needs the n x n matrices on rank 0 and 18 n^3 flops per Y; above this n it is left out.
  Eigen::Index spectral_limit = 2048;
  Eigen::Index block_rows = 256;  ///< rows of the attention matrices that are made at a time
};

/// Collective. Measures each Y against X. That (1 - e) K <= K_Y <= (1 + e) K implies |K_Y - K|_ij <= e (K_ii
/// K_jj)^{1/2}
/// <= e r by Cauchy and Schwarz, hence the bound on the entries: the logit and the normaliser give a factor e^{e r}
/// each. The O(r) bound of arXiv 2304.04397 is met by Y = 0, so compare with `no_columns`.
///
/// The attention matrices are made and dropped by blocks of rows, shared between the ranks. n / block_rows reads of X
/// and of each Y; 2 n^2 flops per column of X or Y; all-reduces of 8 block_rows n bytes per matrix and block. Memory:
/// the block, for each matrix and thread; on rank 0 also all of K for n up to `spectral_limit`. Differences of logits
/// are exponentiated without cancellation. Where logits overflow, errors are infinite or NaN.
///
/// X: d x n and each Y: m x n, as rows (see `Sparsifier`), on one communicator. values: V, n x k, k >= 1, replicated.
/// Shapes that do not fit, or options out of range: `InvalidArgument` on all ranks.
AttentionErrors attention_errors(const RowMatrix& X, std::span<const RowMatrix> Ys, const Eigen::MatrixXd& values,
                                 const AttentionErrorOptions& options);

}  // namespace attnreg
