#pragma once

#include <Eigen/Core>
#include <cstdint>

#include "attnreg/row_matrix.hpp"

namespace attnreg {

/// Random matrices S, rows x n, with E S^T S = I. All entries are functions of (seed, iteration, global row).
enum class SketchKind {
  /// `nonzeros` entries +-1/sqrt(nonzeros) in distinct random rows of each column; 1 is CountSketch. Costs `nonzeros`
  /// scaled additions of a row. Cohen, "Nearly tight oblivious subspace embeddings by trace inequalities", SODA 2016.
  sparse_sign,
  /// Independent N(0, 1/rows). Costs `rows` normal numbers and 2 rows d flops a row: for tests and small problems.
  gaussian,
};

struct SketchOptions {
  SketchKind kind = SketchKind::sparse_sign;
  Index rows = 0;          ///< of the sketch, at least 1 and below 2^31
  int nonzeros = 4;        ///< per column of a sparse sign sketch, 1 to rows
  std::uint64_t seed = 1;  ///< the same numbers on any number of ranks and threads
  std::uint32_t iteration = 0;
};

/// Local, one read of A. This rank's part of S diag(row_scale) A; the sum over the ranks is the sketch.
///
/// The sketch is the same on any number of ranks and threads but for the rounding of the sums; its entries are sums of
/// about n nonzeros / rows terms. Rows with scale 0 are skipped. Needs options.rows x d doubles per thread.
/// row_scale: rows_local, or empty for ones. Result: options.rows x d.
/// Options out of range: `InvalidArgument` on all ranks. A wrong length of row_scale: `InvalidArgument` of this rank.
RowMajorMatrix sketch(const RowMatrix& A, const Eigen::VectorXd& row_scale, const SketchOptions& options);

/// Local. Rows [first, first + count) of this rank's part of a sparse sign sketch that nobody holds whole, count x d;
/// see `sketch`. A row of A is looked at only if it has a nonzero there, but one read is counted.
RowMajorMatrix sketch_panel(const RowMatrix& A, const Eigen::VectorXd& row_scale, const SketchOptions& options,
                            Index first, Index count);

}  // namespace attnreg
