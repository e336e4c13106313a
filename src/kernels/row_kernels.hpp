#pragma once

#include <Eigen/Core>
#include <variant>

namespace attnreg {

/// Row weights of a Hessian product: u_i = curvature_i (y_i - centre) + ridge_i y_i. One number per local row; with the
/// stride 0 one ridge for all.
struct RowCurvature {
  const double* curvature;
  const double* ridge;
  double centre = 0;
  Eigen::Index ridge_stride = 1;

  /// u_i; adds curvature_i (y - centre) to `moment`.
  double weight(Eigen::Index i, double y, double& moment) const {
    const double centred = curvature[i] * (y - centre);
    moment += centred;
    return centred + ridge[i * ridge_stride] * y;
  }
};

}  // namespace attnreg

namespace attnreg::kernels {

using Eigen::Index;

/// Rows of a dense A in one of the types in which they are held, row-major without gaps.
using DenseRows = std::variant<const double*, const float*, const Eigen::half*, const Eigen::bfloat16*>;

/// Some of a rank's rows: `pieces` pieces of `rows` consecutive rows, each piece `stride` rows after the last one.
/// Four pieces are four streams of memory, which are read faster than one (docs/performance.md).
struct RowBlock {
  Index first_local = 0;
  Index rows = 0;    ///< of one piece
  Index pieces = 1;  ///< 1 or 4
  Index stride = 0;

  Index piece(Index k) const { return first_local + k * stride; }  ///< first row of a piece
};

struct DenseBlock {
  DenseRows rows;  ///< all of the rank's
  Index columns = 0;
  RowBlock block;
};

// Dense kernels; A has d columns; sums in double. A block that is read from memory
// should have four pieces some ten kilobytes apart: four streams are read faster than one (docs/performance.md). The
// sum of a row does not depend on the row's place.

/// z_i = a_i . x for the rows of the block, in its order.
void multiply(const DenseBlock& A, const double* x, double* z);

/// z_i = a_i . x - shift, rounded about once: the products' and the sums' errors are summed too (Ogita, Rump, Oishi
/// 2005; the products' only where the CPU has fused multiply-add).
void multiply_compensated(const DenseBlock& A, const double* x, double shift, double* z);

/// out += sum_i a_i u_i^T. U: rows x k, row-major, in the block's order; out: d x k, column-major.
void add_transpose_multiply(const DenseBlock& A, const double* U, Index k, double* out);

/// y_i = a_i . x, by local row, and out += sum_i u_i a_i, u_i as in `RowCurvature`: each row is used twice while it is
/// in cache. out has d + 1 numbers; the last one gets sum_i curvature_i (y_i - centre).
void add_normal_product(const DenseBlock& A, const double* x, const RowCurvature& weights, double* y, double* out);

/// Numbers [first, first + count) of the rows in double.
void widen(const DenseRows& A, Index first, Index count, double* out);

// Of rows in double; others are widened first. These are not compiled once more for each type, as they are called once
// or twice in a solve.

/// out += sum_i u_i |a_i|
void add_absolute_transpose_multiply(const DenseBlock& A, const double* u, double* out);

/// squares_i = |a_i o factor|^2. factor: d
void squared_norms(const DenseBlock& A, const double* factor, double* squares);

// Of rows of a few columns. They are bound by what is done once for a row: here that is done for as many rows as a
// vector has lanes, and sums over rows stay in registers for a whole block. The kernels above leave such rows to these.

constexpr Index kShortColumns = 8;

/// Whether there are such kernels for these rows.
inline bool are_short(const DenseBlock& A) {
  const bool is_known = std::holds_alternative<const double*>(A.rows) || std::holds_alternative<const float*>(A.rows);
  return is_known && A.columns <= kShortColumns;
}

void multiply_short(const DenseBlock& A, const double* x, double* z);
void add_transpose_multiply_short(const DenseBlock& A, const double* U, Index k, double* out);
void add_normal_product_short(const DenseBlock& A, const double* x, const RowCurvature& weights, double* y,
                              double* out);

}  // namespace attnreg::kernels
