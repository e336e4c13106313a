#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "attnreg/leverage.hpp"
#include "attnreg/row_matrix.hpp"

namespace attnreg {

// Few columns of X that keep X X^T, and what that does to the attention matrix (docs/sparsification.md).

/// How the columns of Y are chosen. X is n x d with d >> n, and Y Y^T = sum_j weight_j x_j x_j^T is to stand for X X^T.
enum class ColumnMethod {
  /// Drawn by their leverage scores x_j^T (X X^T)^+ x_j, independently of each other. Source: Deng, Mahadevan and Song
  /// 2023 (arXiv 2304.04397), Algorithms 1 and 2, for columns in place of rows (docs/errata.md).
  leverage,
  bss,      ///< picked by two barriers, without randomness: Batson, Spielman and Srivastava 2009 (arXiv 0808.0163)
  uniform,  ///< drawn with replacement, all with the same probability
  norm,     ///< drawn with replacement, with probabilities in proportion to |x_j|^2
  jl,       ///< none: Y = X G, G having independent N(0, 1/m) entries; Y is dense
  topk,     ///< the m columns of the largest norms, with weight 1: biased
};

struct SparsifyOptions {
  ColumnMethod method = ColumnMethod::leverage;
  /// Wanted: (1 - epsilon) X X^T <= Y Y^T <= (1 + epsilon) X X^T. In (0, 1).
  double epsilon = 0.5;
  double delta = 0.01;  ///< probability with which a method that draws may miss that, in (0, 1)
  /// How many: for leverage the expected number of columns, for bss the number of steps, which must be above the rank
  /// of X, else the number of draws. 0: as many as epsilon and delta ask for, and bss stops when epsilon is reached.
  std::int64_t columns = 0;
  bool with_replacement = false;  ///< of leverage: draws with replacement, as in the paper
  LeverageOptions scores{};       ///< of leverage: how the scores are approximated
  std::uint64_t seed = 1;         ///< of everything that is random
};

/// Why a choice of columns ended.
enum class SparsifyEnd {
  drawn,      ///< the columns were drawn or picked; nothing was iterated
  reached,    ///< bss: the eigenvalues of the chosen columns certify epsilon
  all_steps,  ///< bss: the steps that were asked for, or the ceil(df n) that suffice in exact arithmetic
  rounding,   ///< bss: an eigenvalue met a barrier or no column was left, which only rounding can do; Y is as it was
              ///< then
};

/// Y = X S, and where its columns come from.
struct Sparsifier {
  /// m x n: the columns of Y as rows, spread over the ranks like those of X. A single column of zeros if none was
  /// chosen, as for X = 0.
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

/// Collective. Chooses columns of X. On any number of ranks and threads, and for any partition, they are the same ones;
/// for bss the bits of the weights are the same, too.
///
/// Communication and cost, for m columns of Y:
/// - leverage: those of `leverage_scores`, and one or two all-reduces. Column j is kept with the probability p_j =
///   min(1, c (0.9 score_j + 0.1 n / d)), 0.9 c = ln(2 n / delta) / ((1 + epsilon) ln(1 + epsilon) - epsilon). So the
///   matrix Chernoff bound holds for exact scores: a column that is drawn adds at most I / (0.9 c), one with p_j = 1
///   no error.
/// - bss: see docs/sparsification.md.
/// - uniform, norm, topk, jl: as many columns as draws with replacement need for the same bound, which does not hold
/// for
///   these. One read, for the norms, which is counted as part of the loading. topk: at most 64 all-reduces of 8 bytes
///   more. jl: one read, d m normal numbers, 2 n m d flops, one reduce-scatter of 8 n m bytes.
///
/// X: its columns as the rows of a RowMatrix, d x n. Y takes 8 n m bytes over all ranks, and is sparse if X is. Options
/// out of range, numbers of X that are not finite or, but for leverage, whose squares overflow: `InvalidArgument` on
/// all ranks.
Sparsifier sparsify(const RowMatrix& X, const SparsifyOptions& options);

/// Local. The expected number of columns, or the number of draws, that epsilon and delta ask for, as above. n: the
/// length of the columns of X.
std::int64_t columns_for(const SparsifyOptions& options, Index n);

/// Local. Y = 0 for X, as a single column of zeros. Every useful Y has smaller errors than this one.
RowMatrix no_columns(const RowMatrix& X);

/// How far Y Y^T, and the attention matrix made of it, are from those of X. K = scale X X^T, r = max |K_ij|, P(X) is
/// the softmax of the rows of K; K_Y and P(Y) are those of Y.
struct AttentionError {
  double gram = 0;  ///< max |K_Y - K| / r
  /// The least e with (1 - e) K <= K_Y <= (1 + e) K on the range of K; NaN where it was not computed.
  double spectral = std::numeric_limits<double>::quiet_NaN();
  double entry = 0;  ///< max |P(Y)_ij / P(X)_ij - 1|
  /// e^{2 e r} - 1 with e = `spectral`: no entry error is larger. NaN where e is.
  double entry_bound = std::numeric_limits<double>::quiet_NaN();
  double output = 0;  ///< |(P(Y) - P(X)) V|_F / |P(X) V|_F
};

/// The errors of several Y for the same X. Replicated.
struct AttentionErrors {
  double largest_logit = 0;            ///< r
  Eigen::Index rank = 0;               ///< of X, numerically; 0 where it was not computed
  std::vector<AttentionError> errors;  ///< one per Y
};

struct AttentionErrorOptions {
  double scale = 1;  ///< of the logits, > 0
  /// Above this n the spectral error is left out: it takes n x n matrices on rank 0 and 18 n^3 flops for each Y.
  Eigen::Index spectral_limit = 2048;
  Eigen::Index block_rows = 256;  ///< rows of the attention matrices that are made at a time
};

/// Collective. Measures each Y against X. From (1 - e) K <= K_Y <= (1 + e) K follows, by Cauchy and Schwarz, |K_Y -
/// K|_ij <= e (K_ii K_jj)^{1/2} <= e r, and so the bound on the entries: the logit and the normaliser give a factor
/// e^{e r} each. The O(r) bound of arXiv 2304.04397 says nothing, as Y = 0 meets it: compare with `no_columns`.
///
/// The attention matrices are made by blocks of rows, which the ranks share, and dropped: n / block_rows reads of X and
/// of each Y, 2 n^2 flops per column of X or Y, an all-reduce of 8 block_rows n bytes per matrix and block. Memory: a
/// block for each matrix and thread; on rank 0 also K for n up to `spectral_limit`. Differences of logits are
/// exponentiated without cancellation. Where logits overflow, errors are infinite or NaN.
///
/// X: d x n and each Y: m x n, as rows (see `Sparsifier`), on one communicator. values: V, n x k, k >= 1, replicated.
/// Shapes that do not fit, or options out of range: `InvalidArgument` on all ranks.
AttentionErrors attention_errors(const RowMatrix& X, std::span<const RowMatrix> Ys, const Eigen::MatrixXd& values,
                                 const AttentionErrorOptions& options);

}  // namespace attnreg
