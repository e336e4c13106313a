#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string_view>

#include "losses/loss.hpp"
#include "numbers/vector_math.hpp"

namespace attnreg {

/// -inf for no values: the identity of a maximum over ranks.
inline double largest(std::span<const double> values) {
  return values.empty() ? -std::numeric_limits<double>::infinity() : *std::max_element(values.begin(), values.end());
}

/// Losses work on pieces of a block, with a number for each row of a piece on the stack.
constexpr std::size_t kPieceRows = 256;
using Piece = std::array<double, kPieceRows>;

/// The rows of `block` from `first` on, at most a piece.
template <class T>
std::span<T> piece_of(std::span<T> block, std::size_t first) {
  return block.subspan(first, std::min(kPieceRows, block.size() - first));
}

/// The sum of a piece, in the same order whatever the vectors: 16 partial sums side by side. All f_i have the relative
/// error of <exp(z), 1>, so it must not grow with the rows: it is about an ulp, where a plain sum of equal numbers may
/// lose half an ulp with each of them.
inline double sum_of(std::span<const double> piece) {
  constexpr std::size_t kParts = 16;
  std::array<double, kParts> parts{};
  std::size_t i = 0;
  for (; i + kParts <= piece.size(); i += kParts)
    for (std::size_t k = 0; k < kParts; ++k) parts[k] += piece[i + k];
  for (std::size_t k = 0; i + k < piece.size(); ++k) parts[k] += piece[i + k];
  for (std::size_t half = kParts / 2; half > 0; half /= 2)
    for (std::size_t k = 0; k < half; ++k) parts[k] += parts[k + half];
  return parts[0];
}

/// out_i = exp(z_i - reference)
inline void exponentials(std::span<const double> z, double reference, std::span<double> out) {
#pragma omp simd
  for (std::size_t i = 0; i < z.size(); ++i) out[i] = z[i] - reference;
  kernels::exp(out.first(z.size()), out.first(z.size()));
}

/// The same for all rows of a block, and for a piece of them: the caller's exponentials, where it has them.
inline void exponentials(const LossRows& rows, double reference, std::span<double> out) {
  if (rows.exponentials.empty())
    exponentials(rows.z, reference, out);
  else
    std::copy(rows.exponentials.begin(), rows.exponentials.end(), out.begin());
}
inline const double* exponentials(const LossRows& rows, std::size_t first, double reference, Piece& made) {
  if (!rows.exponentials.empty()) return rows.exponentials.data() + first;
  exponentials(piece_of(rows.z, first), reference, made);
  return made.data();
}

/// out_i = exp(t y_i) - 1
inline void exponential_changes(std::span<const double> y, double t, std::span<double> out) {
#pragma omp simd
  for (std::size_t i = 0; i < y.size(); ++i) out[i] = t * y[i];
  kernels::expm1(out.first(y.size()), out.first(y.size()));
}

/// What the losses of f = softmax(z) have in common. With g = exp(z - reference), the first of their sums is sum g.
class SoftmaxFamily : public Loss {
 public:
  double shift(const LossRows& rows) const override { return largest(rows.z); }
  double exponent_rounding(double z, double reference) const override { return std::abs(z) + std::abs(reference); }
  std::string_view fitted_expression() const override { return "softmax(A x)"; }
  double infimum() const override { return 0; }
  void fit(const LossRows& rows, const LossPoint& point, std::span<double> fitted) const override {
    exponentials(rows, point.reference, fitted);
  }

 protected:
  static LossPoint point_of(const LossSums& sums, double reference) {
    return {.reference = reference + std::log(sums[0]), .offset = std::abs(std::log(sums[0]))};
  }

  /// visit(i, exp(z_i - reference)) for all rows of a block.
  template <class Visit>
  static void for_rows(const LossRows& rows, double reference, Visit&& visit) {
    for (std::size_t first = 0; first < rows.z.size(); first += kPieceRows) {
      Piece made;
      const double* const g = exponentials(rows, first, reference, made);
      for (std::size_t i = 0; i < piece_of(rows.z, first).size(); ++i) visit(first + i, g[i]);
    }
  }

  /// fill(g_i, b_i, the numbers of row i)
  template <class Fill>
  static void fill_rows(const LossRows& rows, double reference, std::span<double> U, std::size_t leading, Fill&& fill) {
    for (std::size_t first = 0; first < rows.z.size(); first += kPieceRows) {
      const auto z = piece_of(rows.z, first), b = piece_of(rows.b, first);
      Piece made;
      const double* const g = exponentials(rows, first, reference, made);
      for (std::size_t i = 0; i < z.size(); ++i) fill(g[i], b[i], U.subspan((first + i) * leading));
    }
  }
};

}  // namespace attnreg
