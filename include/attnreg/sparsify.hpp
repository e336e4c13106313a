#pragma once

#include <cstdint>
#include <limits>
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

}  // namespace attnreg
