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
/// not depend on the other rows. used: the columns of N from there on are not wanted; those of Y are undefined then.
/// The rows that follow A's, as many, are asked for, as if they were the next to be multiplied.
void multiply_block(const double* A, Index rows, Index d, const double* N, double* Y, Index used = kBlockColumns);

/// Columns of a group of `add_transposed_block`.
constexpr Index kGroupColumns = 8;

/// out += A^T U, U in groups of 8 columns: rows x 8 groups, row-major; out: one d x 8 matrix for each group, row-major,
/// one after another. A: rows x d, in cache; few rows, as an entry of out gets one chain of sums over them.
void add_transposed_block(const double* A, Index rows, Index d, const double* U, Index groups, double* out);

}  // namespace attnreg::kernels
