#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "attnreg/row_matrix.hpp"

namespace attnreg {

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
