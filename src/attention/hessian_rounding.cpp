#include "attention/hessian_rounding.hpp"

#include <cmath>
#include <limits>

#include "losses/losses.hpp"

namespace attnreg {

namespace {

using Eigen::ArrayXd;
using Eigen::VectorXd;

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kTiny = std::numeric_limits<double>::min();

/// One row of logits, of the visible keys, with the norms of these.
struct RowOfLogits {
  VectorXd z, b;
  VectorXd z_error;  // as in `gradient_rounding`
  ArrayXd norms;
};

/// Of C = A2^T B A2 for the row: what rounding does to delta, to the centres, and to a sum of terms.
double form_rounding(const Loss& loss, const LossBounds& bounds, LossRow& row, const RowOfLogits& at) {
  row.differentiate();
  const bool centred = loss.is_shift_invariant();
  const ArrayXd &norms = at.norms, &f = row.weights(), &delta = row.curvature();
  PointRows rows{f, at.b, delta, at.z_error, at.z, row.point()};
  if (centred) rows.z_error.array() -= kEpsilon * f.max(kTiny).log().min(0.0);
  const LossBounds::Rounding rounding = bounds.rounding(rows, SumOfRanks());
  const double c = (f.abs() * norms).sum(), of_c = (rounding.centre.array() * norms).sum();
  const ArrayXd reach = norms + (centred ? c : 0);
  const double of_delta = (rounding.delta.array() * reach.square()).sum();
  if (centred) return of_delta + 2 * of_c * (delta.abs() * reach).sum();
  const LossRow::Model model = row.model();
  const ArrayXd terms = 2 * model.delta - delta;
  const double h = (model.m.abs() * norms).sum(), k = model.self,
               of_h = rounding.coupling.size() > 0 ? (rounding.coupling.array() * norms).sum() : 0;
  const double of_sum = 8 * kEpsilon * ((terms * norms.square()).sum() + 2 * c * h + c * c * k);
  return of_delta + of_sum + 2 * (of_c * (h + k * c) + of_h * c);
}

/// The same of a row with values, both blocks: terms that are not negative in place of differences. f: the row of F,
/// which leaves hidden keys out of all sums.
AttentionHessianRounding value_rounding(const RowOfLogits& at, const ArrayXd& f, const RowMajorMatrix& values,
                                        const RowMajorMatrix& V) {
  const ArrayXd error = f * (at.z_error.array() - kEpsilon * f.max(kTiny).log());
  const VectorXd size = (V.transpose() * f.matrix()).cwiseAbs() + at.b.cwiseAbs();
  const ArrayXd value_norms = V.rowwise().norm();
  const ArrayXd reach = at.norms + (f * at.norms).sum(), value_reach = value_norms + (f * value_norms).sum();
  const ArrayXd terms = (V.cwiseAbs() * size).array() + value_reach.square();
  const double of_row = (error * values.rowwise().norm().array()).sum();
  return {8 * (error * terms * reach.square()).sum(), 4 * of_row * (values.transpose() * f.matrix()).norm()};
}

}  // namespace

AttentionHessianRounding hessian_rounding(AttentionPasses& passes, const AttentionUnknowns& at) {
  const LossBounds& bounds = loss_bounds(passes.loss().name());
  const ValueRows V = passes.value_rows(at.Y);
  auto sums = passes.sum({{1, 2}}, [&](const QueryBlock& block, MatrixSums& part) {
    const RowMajorMatrix Z = block.logits(at.X), T = product(block.queries(), at.X);
    const ArrayXd norms = block.keys().rowwise().norm(), query_squares = block.queries().rowwise().squaredNorm();
    const auto errors_at = [&](Index j) -> ArrayXd {
      return kEpsilon * (4 + Z.row(j).transpose().array().abs() + 2 * T.row(j).norm() * norms);
    };
    if (passes.with_values()) {
      const RowMajorMatrix F = block.attention(at.X);
      for (Index j = 0; j < Z.rows(); ++j) {
        const RowOfLogits row{Z.row(j), block.target().row(j), errors_at(j), norms};
        const auto errors = value_rounding(row, F.row(j).transpose(), block.values(), (*V)[block.index]);
        part[0](0, 0) += query_squares[j] * errors.X;
        part[0](0, 1) += errors.Y;
      }
      return;
    }
    for_each_row(block, passes.loss(), Z, [&](Index j, LossRow& row) {
      double error = form_rounding(
          passes.loss(), bounds, row,
          {row.visible(Z.row(j).transpose().array()), row.visible(block.target().row(j).transpose().array()),
           row.visible(errors_at(j)), row.visible(norms)});
      if (block.is_weighted())
        error += 4 * kEpsilon * (block.weights_squared().row(j).transpose().array() * norms.square()).sum();
      part[0](0, 0) += query_squares[j] * error;
    });
  });
  return {sums[0](0, 0), sums[0](0, 1)};
}

}  // namespace attnreg
