#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "objective/audit.hpp"
#include "ranks/hash.hpp"
#include "ranks/span_of.hpp"
#include "rows/remade_rows.hpp"

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

/// The same with bounds of rounding * sizes(), which cost as much as the numbers or more. Absolute terms add up to no
/// less than the number itself, so that most blocks are within smaller bounds already, which cost nothing.
template <class Sizes>
bool differ(const MatrixXd& made, const MatrixXd& other, double rounding, Sizes&& sizes) {
  return differ(made, other, rounding * made.cwiseAbs()) && differ(made, other, rounding * sizes());
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

/// The outputs of the rows that go into the sums, and |.| of the terms of the regulariser's.
class RemadeOutputs {
 public:
  RemadeOutputs(const AuditedRows& block, const AuditClaim& claim, const Loss& loss, const LogitOffsets& offsets)
      : block_(block),
        claim_(claim),
        loss_(loss),
        of_loss_(block.U.cols() - (claim.is_expected ? 1 : 0)),
        seen_(block, offsets, loss, claim.point) {}

  MatrixXd values() const {
    return with_ridge(made(span_of(block_.b), claim_.point), block_.w2.array() * (block_.z.array() + claim_.shift));
  }
  /// What their terms add up to, as absolute values. Every output of the loss is a polynomial in b_i, in the
  /// exponentials, and in the scalars of the point. Its values with both signs of b_i, and of the scalars, are at least
  /// as large together as the sum of its absolute terms.
  MatrixXd sizes() const {
    MatrixXd sizes = MatrixXd::Zero(block_.rows, of_loss_);
    for (const double of_b : {1.0, -1.0}) {
      const VectorXd b = of_b * block_.b.cwiseAbs();
      for (const double of_scalars : {1.0, -1.0}) {
        LossPoint at = claim_.point;
        for (double& scalar : at.scalars) scalar *= of_scalars;
        sizes += made(span_of(b), at).cwiseAbs();
        if (claim_.is_expected) break;
      }
    }
    return with_ridge(std::move(sizes), block_.w2.array() * (block_.z.array().abs() + std::abs(claim_.shift)));
  }

 private:
  MatrixXd made(std::span<const double> b, const LossPoint& point) const {
    const Index n = block_.rows;
    const auto size = static_cast<std::size_t>(n);
    RowMajorMatrix U(n, of_loss_);
    LossRows rows = seen_.rows;
    rows.b = b;
    if (claim_.is_expected) {
      loss_.fill_columns(rows, point.reference, {U.data(), static_cast<std::size_t>(U.size())},
                         static_cast<std::size_t>(of_loss_));
      return U;
    }
    std::vector<double> q(size), f(size), delta(size), coupling(of_loss_ > 2 ? size : 0);
    rows.exponentials = {}, rows.slopes = {};  // as in the pass
    loss_.differentiate(rows, point, {.q = q, .f = f, .delta = delta, .coupling = coupling});
    for (Index i = 0; i < n; ++i) {
      const auto k = static_cast<std::size_t>(i);
      U(i, 0) = q[k];
      U(i, 1) = f[k];
      if (of_loss_ > 2) U(i, 2) = coupling[k];
    }
    return U;
  }
  MatrixXd with_ridge(MatrixXd of_loss, const VectorXd& of_ridge) const {
    if (claim_.is_expected) {
      of_loss.conservativeResize(Eigen::NoChange, of_loss_ + 1);
      of_loss.col(of_loss_) = of_ridge;
    } else {
      of_loss.col(0) += of_ridge;
    }
    return of_loss;
  }

  const AuditedRows& block_;
  const AuditClaim& claim_;
  const Loss& loss_;
  Index of_loss_;
  SeenRows seen_;
};

constexpr Index kValueSums = 9;

/// The sums of a value, row by row, the last one first; of the terms as they are, or of their absolute values.
class RemadeValue {
 public:
  RemadeValue(const AuditedRows& block, double reference, double level, const Loss& loss, const LogitOffsets& offsets)
      : block_(block),
        reference_(reference),
        level_(level),
        loss_(loss),
        seen_(block, offsets, loss, {.reference = reference}) {}

  MatrixXd values() const {
    MatrixXd sums = MatrixXd::Zero(kValueSums, 1);
    for (Index i = block_.rows - 1; i >= 0; --i) {
      const LossSums own = of_row(i, block_.b[i]);
      for (std::size_t c = 0; c < own.size(); ++c) sums(static_cast<Index>(c), 0) += own[c];
      const double logit = block_.z[i] + level_;
      sums(kValueSums - 1, 0) += 0.5 * block_.w2[i] * logit * logit;
    }
    return sums;
  }
  MatrixXd sizes() const {
    MatrixXd sums = MatrixXd::Zero(kValueSums, 1);
    for (Index i = block_.rows - 1; i >= 0; --i) {
      const LossSums one = of_row(i, std::abs(block_.b[i])), other = of_row(i, -std::abs(block_.b[i]));
      for (std::size_t c = 0; c < one.size(); ++c)
        sums(static_cast<Index>(c), 0) += std::abs(one[c]) + std::abs(other[c]);
      const double logit = std::abs(block_.z[i]) + std::abs(level_);
      sums(kValueSums - 1, 0) += 0.5 * block_.w2[i] * logit * logit;
    }
    return sums;
  }

 private:
  LossSums of_row(Index i, const double& b) const {
    const auto k = static_cast<std::size_t>(i);
    LossRows row{.z = seen_.rows.z.subspan(k, 1), .b = {&b, 1}, .exponentials = seen_.rows.exponentials.subspan(k, 1)};
    if (!seen_.rows.slopes.empty()) row.slopes = seen_.rows.slopes.subspan(k, 1);
    LossSums sums{};
    loss_.add_value(row, reference_, sums);
    return sums;
  }

  const AuditedRows& block_;
  double reference_, level_;
  const Loss& loss_;
  SeenRows seen_;
};

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
  const RemadeValue made(block, reference, level, loss, offsets);
  const double rounding = (2 * static_cast<double>(block.rows) + kOfRow) * kUnit;
  const bool is_wrong = differ(made.values(), block.scalars.head(kValueSums), rounding, [&] { return made.sizes(); });
  return is_wrong ? Corruption::values : Corruption::none;
}

Corruption examined(const AuditedRows& tile, const AuditClaim& claim, const Loss& loss, const ScaledColumns& like) {
  const RowPasses& passes = like.A().passes();
  std::uint64_t hash = passes.hash_of_packed(tile.packed, tile.rows);
  for (const auto* const numbers : {&tile.b, &tile.w2, &tile.offsets}) hash = hash_of(span_of(*numbers), hash);
  if (hash != tile.hash) return Corruption::rows;
  const RemadeRows rows(passes, tile.packed, tile.rows);
  const ProductRounding own = fresh_rounding(claim.x, claim.shift);
  const VectorXd z = rows.products(claim.x, claim.shift), bounds = claim.rounding.columns + own.columns;
  const double level = claim.rounding.level + own.level, least = 2 * kUnit;  // of |a_i| . bounds, in units of |a_i . x|
  for (Index i = 0; i < tile.rows; ++i) {
    if (!std::isfinite(z[i])) continue;  // sums on the way overflow, and others may where this rank's do not
    if (differ(tile.z[i], z[i], least * std::abs(z[i] + claim.shift)) &&
        differ(tile.z[i], z[i], rows.reach(i, bounds) + level))
      return Corruption::logits;
  }
  const RemadeOutputs outputs(tile, claim, loss, like.logit_offsets());
  if (differ(outputs.values(), tile.U, kOfRow * kUnit, [&] { return outputs.sizes(); })) return Corruption::outputs;
  if (claim.is_expected) {
    const auto values = examined_value(tile, claim.point.reference, claim.level, loss, like.logit_offsets());
    if (values != Corruption::none) return values;
  }
  const double rounding = (2 * static_cast<double>(tile.rows) + 16) * kUnit;
  const bool is_wrong = differ(rows.sums(tile.U), tile.sums, rounding, [&]() -> MatrixXd {
    return rows.sizes(tile.U).rowwise() + 2 * tile.before.transpose();
  });
  return is_wrong ? Corruption::gradient : Corruption::none;
}

}  // namespace attnreg
