#pragma once

#include <Eigen/Core>
#include <span>

#include "kernels/row_kernels.hpp"

namespace attnreg::kernels {

// Kernels on rows of A in double with d columns. On one thread; local.

/// One entry of a sparse sketching matrix: row `source` of the block goes into row `target` of the sketch.
struct Scatter {
  Index source, target;
  double value;
};

/// out_target += value a_source for all entries, in their order; out row-major with d columns.
void scatter_rows(const double* A, Index d, std::span<const Scatter> entries, double* out);

/// Columns that `multiply_block` handles at once.
constexpr Index kBlockColumns = 16;

/// Y = A N for a block N of 16 columns; A: rows x d, N: d x 16, Y: rows x 16, all row-major. The bits of a row of Y do
/// not depend on the other rows.
void multiply_block(const double* A, Index rows, Index d, const double* N, double* Y);

}  // namespace attnreg::kernels
