#pragma once

#include <Eigen/Core>
#include <cstdint>

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

}  // namespace attnreg
