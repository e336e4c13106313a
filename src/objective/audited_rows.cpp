#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "objective/audit.hpp"
#include "ranks/hash.hpp"
#include "ranks/span_of.hpp"

// What another rank finds of a block of rows: the same numbers, up to rounding. The bounds are derived in
// docs/experiments.md, "Audit".

namespace attnreg {

namespace {

constexpr double kUnit = std::numeric_limits<double>::epsilon();  // two roundings

/// Whether two numbers differ by more than the bound; not where they, or the bound, overflow, nor by what products lose
/// that underflow.
bool differ(double one, double other, double bound) {
  constexpr double kUnderflow = std::numeric_limits<double>::min();  // 2^52 of the largest such rounding
  if (one == other || !std::isfinite(bound)) return false;
  if (!std::isfinite(one) || !std::isfinite(other)) return std::isfinite(one) != std::isfinite(other);
  return std::abs(one - other) > bound + kUnderflow;
}

bool differ(const MatrixXd& one, const MatrixXd& other, const MatrixXd& bounds) {
  for (Index c = 0; c < one.cols(); ++c)
    for (Index r = 0; r < one.rows(); ++r)
      if (differ(one(r, c), other(r, c), bounds(r, c))) return true;
  return false;
}

/// A block as the loss sees it.
struct SeenRows {
  VectorXd logits;
  std::vector<double> exponentials, slopes;
  LossRows rows;

  SeenRows(const AuditedRows& block, const LogitOffsets& offsets, const Loss& loss, const LossPoint& point)
      : logits(block.z), exponentials(static_cast<std::size_t>(block.rows)) {
    if (block.offsets.size() > 0) offsets.of_rows(block.offsets).add_to(span_of(block.z), 0, span_of(logits));
    rows.z = span_of(std::as_const(logits));
    rows.b = span_of(block.b);
    if (loss.is_shift_invariant()) {
      loss.fit(rows, point, exponentials);
    } else {
      slopes.resize(exponentials.size());
      loss.keep(rows, exponentials, slopes);
      rows.slopes = slopes;
    }
    rows.exponentials = exponentials;
  }
};

/// What has been made, and what its terms add up to, as absolute values.
struct Sized {
  MatrixXd values, sizes;
};

// Every output of a row is a polynomial in b_i, in the exponentials, and in the scalars of the point. Its values with
// both signs of b_i, and of the scalars, are at least as large together as the sum of its absolute terms.
template <class Make>
MatrixXd sizes_over_signs(const AuditedRows& block, Index columns, const LossPoint& point, bool flips_scalars,
                          Make&& make) {
  MatrixXd sizes = MatrixXd::Zero(block.rows, columns);
  for (const double of_b : {1.0, -1.0}) {
    const VectorXd b = of_b * block.b.cwiseAbs();
    for (const double of_scalars : {1.0, -1.0}) {
      LossPoint at = point;
      for (double& scalar : at.scalars) scalar *= of_scalars;
      sizes += make(span_of(b), at).cwiseAbs();
      if (!flips_scalars) break;
    }
  }
  return sizes;
}

Sized outputs_of(const AuditedRows& block, const AuditClaim& claim, const Loss& loss, const LogitOffsets& offsets) {
  const Index n = block.rows, columns = block.U.cols(), of_loss = columns - (claim.is_expected ? 1 : 0);
  const SeenRows seen(block, offsets, loss, claim.point);
  const auto size = static_cast<std::size_t>(n);
  const auto make = [&](std::span<const double> b, const LossPoint& point) {
    RowMajorMatrix U(n, of_loss);
    LossRows rows = seen.rows;
    rows.b = b;
    if (claim.is_expected) {
      loss.fill_columns(rows, point.reference, {U.data(), static_cast<std::size_t>(U.size())},
                        static_cast<std::size_t>(of_loss));
      return MatrixXd(U);
    }
    std::vector<double> q(size), f(size), delta(size), coupling(of_loss > 2 ? size : 0);
    rows.exponentials = {}, rows.slopes = {};  // as in the pass
    loss.differentiate(rows, point, {.q = q, .f = f, .delta = delta, .coupling = coupling});
    for (Index i = 0; i < n; ++i) {
      const auto k = static_cast<std::size_t>(i);
      U(i, 0) = q[k];
      U(i, 1) = f[k];
      if (of_loss > 2) U(i, 2) = coupling[k];
    }
    return MatrixXd(U);
  };
  Sized made{MatrixXd(n, columns), MatrixXd::Zero(n, columns)};
  made.values.leftCols(of_loss) = make(span_of(block.b), claim.point);
  made.sizes.leftCols(of_loss) = sizes_over_signs(block, of_loss, claim.point, !claim.is_expected, make);
  const VectorXd of_ridge = block.w2.array() * (block.z.array() + claim.shift);
  const VectorXd ridge_size = block.w2.array() * (block.z.array().abs() + std::abs(claim.shift));
  const Index ridge = claim.is_expected ? of_loss : 0;
  if (claim.is_expected) made.values.col(ridge).setZero();
  made.values.col(ridge) += of_ridge;
  made.sizes.col(ridge) += ridge_size;
  return made;
}

constexpr Index kValueSums = 9;

/// The sums of a value, row by row, the last one first.
Sized value_of_rows(const AuditedRows& block, double reference, double level, const Loss& loss,
                    const LogitOffsets& offsets) {
  const SeenRows seen(block, offsets, loss, {.reference = reference});
  Sized made{MatrixXd::Zero(kValueSums, 1), MatrixXd::Zero(kValueSums, 1)};
  double* const values = made.values.data();
  double* const sizes = made.sizes.data();
  for (Index i = block.rows - 1; i >= 0; --i) {
    const auto k = static_cast<std::size_t>(i);
    LossRows row{.z = seen.rows.z.subspan(k, 1), .b = {}, .exponentials = seen.rows.exponentials.subspan(k, 1)};
    if (!seen.rows.slopes.empty()) row.slopes = seen.rows.slopes.subspan(k, 1);
    const auto sums_with = [&](const double& b) {
      LossSums sums{};
      row.b = {&b, 1};
      loss.add_value(row, reference, sums);
      return sums;
    };
    const double b = block.b[i], size = std::abs(b), opposite = -size, w2 = block.w2[i];
    const LossSums own = sums_with(b), one = sums_with(size), other = sums_with(opposite);
    for (std::size_t c = 0; c < own.size(); ++c) {
      values[c] += own[c];
      sizes[c] += std::abs(one[c]) + std::abs(other[c]);
    }
    values[kValueSums - 1] += 0.5 * w2 * std::pow(block.z[i] + level, 2);
    sizes[kValueSums - 1] += 0.5 * w2 * std::pow(std::abs(block.z[i]) + std::abs(level), 2);
  }
  return made;
}

constexpr double kOfRow = 64;  // in units of eps: an exponential and some twenty more roundings, of two ranks

}  // namespace

ProductRounding fresh_rounding(const VectorXd& x, double shift) {
  return {2 * kUnit * x.cwiseAbs(), 2 * kUnit * std::abs(shift)};
}

ProductRounding product_rounding(const VectorXd& s) {
  return {(static_cast<double>(s.size()) + 2) * kUnit * s.cwiseAbs(), 0};
}

ProductRounding moved_rounding(const ProductRounding& z, const ProductRounding& As, double t, const VectorXd& s,
                               const VectorXd& x, double shift) {
  return {z.columns + std::abs(t) * As.columns + 2 * kUnit * (std::abs(t) * s.cwiseAbs() + x.cwiseAbs()),
          z.level + std::abs(t) * As.level + 2 * kUnit * std::abs(shift)};
}

Corruption examined_value(const AuditedRows& block, double reference, double level, const Loss& loss,
                          const LogitOffsets& offsets) {
  const Sized made = value_of_rows(block, reference, level, loss, offsets);
  const double rounding = (2 * static_cast<double>(block.rows) + kOfRow) * kUnit;
  return differ(made.values, block.scalars.head(kValueSums), rounding * made.sizes) ? Corruption::values
                                                                                    : Corruption::none;
}

Corruption examined(const AuditedRows& tile, const AuditClaim& claim, const Loss& loss, const ScaledColumns& like) {
  std::uint64_t hash = hash_of(tile.packed);
  for (const auto* const numbers : {&tile.b, &tile.w2, &tile.offsets}) hash = hash_of(span_of(*numbers), hash);
  if (hash != tile.hash) return Corruption::rows;
  const RowPasses& passes = like.A().passes();
  const auto d = static_cast<double>(passes.columns());
  constexpr auto kLong = static_cast<double>(std::numeric_limits<long double>::epsilon());
  const VectorXd bounds = claim.rounding.columns + (d + 2) * kLong * claim.x.cwiseAbs();
  const auto made = passes.remade(tile.packed, tile.rows, claim.x, claim.shift, bounds, tile.U);
  for (Index i = 0; i < tile.rows; ++i)
    if (differ(tile.z[i], made.z[i], made.reach[i] + claim.rounding.level)) return Corruption::logits;
  const Sized outputs = outputs_of(tile, claim, loss, like.logit_offsets());
  if (differ(outputs.values, tile.U, kOfRow * kUnit * outputs.sizes)) return Corruption::outputs;
  if (claim.is_expected) {
    const auto values = examined_value(tile, claim.point.reference, claim.level, loss, like.logit_offsets());
    if (values != Corruption::none) return values;
  }
  const double rounding = (2 * static_cast<double>(tile.rows) + 16) * kUnit;
  const MatrixXd sizes = made.sizes.rowwise() + 2 * tile.before.transpose();
  return differ(made.sums, tile.sums, rounding * sizes) ? Corruption::gradient : Corruption::none;
}

}  // namespace attnreg
