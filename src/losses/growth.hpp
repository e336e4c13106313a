#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string_view>

#include "losses/loss_pieces.hpp"

namespace attnreg {

// The functions u of exponential and hyperbolic regression, entry by entry: u, its derivative v = u', and differences.
// In all of them u'' = u.

/// u_i = v_i = exp(z_i)
struct Exponential {
  static constexpr std::string_view name = "exp", expression = "exp(A x)", rescaled = "softmax(A x)";
  static constexpr bool is_even = false, vanishes_at_zero = false;
  static constexpr double infimum = 0;

  static double exponent(double z) { return z; }
  /// u(z) exp(-exponent), which does not overflow; so in all of them.
  static double scaled(double z, double exponent) { return std::exp(z - exponent); }
  static void evaluate(std::span<const double> z, std::span<double> u, std::span<double> v) {
    kernels::exp(z, u.first(z.size()));
    std::copy_n(u.begin(), z.size(), v.begin());
  }
  /// du_i = u(z_i + h_i) - u(z_i)
  static void difference(std::span<const double> z, std::span<const double> u, std::span<const double> /*v*/,
                         std::span<const double> h, std::span<double> du) {
    kernels::expm1(h, du.first(h.size()));
    for (std::size_t i = 0; i < z.size(); ++i) du[i] *= u[i];
  }
};

/// exp(z) - 1 and exp(-z) - 1 of a piece.
struct BothExponentials {
  Piece plus, minus;
  explicit BothExponentials(std::span<const double> z) {
    for (std::size_t i = 0; i < z.size(); ++i) minus[i] = -z[i];
    kernels::expm1(z, std::span(plus).first(z.size()));
    kernels::expm1(std::span<const double>(minus).first(z.size()), std::span(minus).first(z.size()));
  }
  double cosh(std::size_t i) const { return 1 + 0.5 * (plus[i] + minus[i]); }
  double cosh_minus_1(std::size_t i) const { return -0.5 * plus[i] * minus[i]; }
  double sinh(std::size_t i) const { return 0.5 * (plus[i] - minus[i]); }  ///< relatively accurate next to 0 too
};

/// What cosh and sinh have in common.
template <class Hyperbolic>
struct HyperbolicGrowth {
  static double exponent(double z) { return std::abs(z); }

  /// u (cosh h - 1) + v sinh h; where h is large that cancels, and u(z + h) - u(z) does not.
  static void difference(std::span<const double> z, std::span<const double> u, std::span<const double> v,
                         std::span<const double> h, std::span<double> du) {
    const BothExponentials e(h);
    bool large = false;
    for (std::size_t i = 0; i < z.size(); ++i) {
      du[i] = u[i] * e.cosh_minus_1(i) + v[i] * e.sinh(i);
      large = large || std::abs(h[i]) > 1;
    }
    if (!large) return;
    Piece there, u_there, v_there;
    for (std::size_t i = 0; i < z.size(); ++i) there[i] = z[i] + h[i];
    Hyperbolic::evaluate(std::span<const double>(there).first(z.size()), u_there, v_there);
    for (std::size_t i = 0; i < z.size(); ++i)
      if (std::abs(h[i]) > 1) du[i] = u_there[i] - u[i];
  }
};

/// u_i = cosh(z_i), v_i = sinh(z_i)
struct Cosh : HyperbolicGrowth<Cosh> {
  static constexpr std::string_view name = "cosh", expression = "cosh(A x)", rescaled = "cosh(A x) / <cosh(A x), 1>";
  static constexpr bool is_even = true, vanishes_at_zero = false;
  static constexpr double infimum = 1;

  static double scaled(double z, double exponent) { return 0.5 * (std::exp(z - exponent) + std::exp(-z - exponent)); }
  static void evaluate(std::span<const double> z, std::span<double> u, std::span<double> v) {
    const BothExponentials e(z);
    for (std::size_t i = 0; i < z.size(); ++i) u[i] = e.cosh(i), v[i] = e.sinh(i);
  }
};

/// u_i = sinh(z_i), v_i = cosh(z_i)
struct Sinh : HyperbolicGrowth<Sinh> {
  static constexpr std::string_view name = "sinh", expression = "sinh(A x)", rescaled = "sinh(A x) / <sinh(A x), 1>";
  static constexpr bool is_even = false, vanishes_at_zero = true;
  static constexpr double infimum = -std::numeric_limits<double>::infinity();

  static double scaled(double z, double exponent) {
    return std::copysign(0.5 * std::exp(std::abs(z) - exponent) * -std::expm1(-2 * std::abs(z)), z);
  }
  static void evaluate(std::span<const double> z, std::span<double> u, std::span<double> v) {
    const BothExponentials e(z);
    for (std::size_t i = 0; i < z.size(); ++i) u[i] = e.sinh(i), v[i] = e.cosh(i);
  }
};

/// u and v of a piece: the caller's, where it has them.
template <class U>
class GrowthPiece {
 public:
  GrowthPiece(const LossRows& rows, std::size_t first) : u(rows.exponentials), v(rows.slopes) {
    if (u.empty()) {
      U::evaluate(piece_of(rows.z, first), made_u_, made_v_);
      u = made_u_, v = made_v_;
    } else {
      u = piece_of(u, first), v = piece_of(v, first);
    }
  }
  GrowthPiece(const GrowthPiece&) = delete;
  GrowthPiece& operator=(const GrowthPiece&) = delete;

  /// u(z + t y) - u(z)
  void difference(std::span<const double> z, std::span<const double> y, double t, Piece& du) const {
    Piece h;
    for (std::size_t i = 0; i < z.size(); ++i) h[i] = t * y[i];
    U::difference(z, u, v, std::span<const double>(h).first(z.size()), du);
  }

  std::span<const double> u, v;

 private:
  Piece made_u_, made_v_;
};

/// What the losses of u have in common: they grow like exp(2 |z|).
template <class U>
class GrowingLoss : public Loss {
 public:
  double largest_move() const override { return 5; }  // u grows 150 times
  double exponent_rounding(double z, double /*reference*/) const override { return 1 + std::abs(z); }
  double shift(const LossRows& /*rows*/) const override { return 0; }

  double largest_exponent_of(const LossRows& rows) const override {
    double exponent = 0;
    for (const double z : rows.z) exponent = std::max(exponent, U::exponent(z));
    return exponent;
  }

  void keep(const LossRows& rows, std::span<double> exponentials, std::span<double> slopes) const override {
    for (std::size_t first = 0; first < rows.z.size(); first += kPieceRows)
      U::evaluate(piece_of(rows.z, first), piece_of(exponentials, first), piece_of(slopes, first));
  }

 protected:
  /// visit(first, size, b of the piece, u and v of the piece)
  template <class Visit>
  static void for_each_piece(const LossRows& rows, Visit&& visit) {
    for (std::size_t first = 0; first < rows.z.size(); first += kPieceRows) {
      const auto b = piece_of(rows.b, first);
      visit(first, b.size(), b, GrowthPiece<U>(rows, first));
    }
  }

 private:
  bool is_even_function() const override { return U::is_even; }
};

}  // namespace attnreg
