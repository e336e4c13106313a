#pragma once

#include <Eigen/Core>

namespace attnreg {

/// Row weights of a Hessian product: u_i = curvature_i (y_i - centre) + ridge_i y_i. One number per local row.
struct RowCurvature {
  const double* curvature;
  const double* ridge;
  double centre = 0;
};

}  // namespace attnreg

namespace attnreg::kernels {

using Eigen::Index;

/// Some of a rank's rows: `pieces` pieces of `rows` consecutive rows, each piece `stride` rows after the last one.
/// Four pieces are four streams of memory, which are read faster than one (docs/performance.md).
struct RowBlock {
  Index first_local = 0;
  Index rows = 0;    ///< of one piece
  Index pieces = 1;  ///< 1 or 4
  Index stride = 0;

  Index piece(Index k) const { return first_local + k * stride; }  ///< first row of a piece
};

}  // namespace attnreg::kernels
