#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <span>

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

}  // namespace attnreg
