#include <array>
#include <cmath>

#include "losses/loss_pieces.hpp"
#include "losses/losses.hpp"
#include "numbers/vector_clones.hpp"

namespace attnreg {

namespace {

// phi = 1/2 |f - b|^2, f = softmax(z). With g = exp(z - reference), c = g - b and rho = 1 / sum g, f = rho g.
// Sources: Deng, Li, Song 2023, arXiv 2304.10411; formulas and corrections in docs/algorithms.md.
//
// The loops are outside of the class because GCC makes no clones of virtual functions.

ATTNREG_CLONES
void add_value_softmax(const LossRows& rows, double reference, LossSums& sums) {
  double g_sum = 0, c_squared = 0, c_g = 0, g_squared = 0;
  for (std::size_t first = 0; first < rows.z.size(); first += kPieceRows) {
    const auto z = piece_of(rows.z, first), b = piece_of(rows.b, first);
    Piece made;
    const double* const g = exponentials(rows, first, reference, made);
    g_sum += sum_of({g, z.size()});
#pragma omp simd reduction(+ : c_squared, c_g, g_squared)
    for (std::size_t i = 0; i < z.size(); ++i) {
      const double c = g[i] - b[i];
      c_squared += c * c;
      c_g += c * g[i];
      g_squared += g[i] * g[i];
    }
  }
  sums[0] += g_sum, sums[1] += c_squared, sums[2] += c_g, sums[3] += g_squared;
}

ATTNREG_CLONES
void differentiate_softmax(const LossRows& rows, const LossPoint& point, std::span<double> q, std::span<double> f,
                           std::span<double> delta, double gamma) {
  exponentials(rows, point.reference, f);
#pragma omp simd
  for (std::size_t i = 0; i < rows.z.size(); ++i) {
    const double c = f[i] - rows.b[i];
    q[i] = f[i] * (c - gamma);
    delta[i] = f[i] * (f[i] + c - gamma);
  }
}

// f' - f = f (u - S) / (1 + S), u = exp(t y) - 1, S = <f, u>.
ATTNREG_CLONES
void add_change_softmax(const LossRows& rows, std::span<const double> y, double t, const LossPoint& point,
                        LossSums& sums, double gamma) {
  double s = 0, f2_u = 0, f2_u2 = 0, q_u = 0;
  for (std::size_t first = 0; first < rows.z.size(); first += kPieceRows) {
    const auto z = piece_of(rows.z, first), b = piece_of(rows.b, first);
    Piece made, u;
    const double* const f = exponentials(rows, first, point.reference, made);
    exponential_changes(piece_of(y, first), t, u);
#pragma omp simd reduction(+ : s, f2_u, f2_u2, q_u)
    for (std::size_t i = 0; i < z.size(); ++i) {
      const double f_u = f[i] * u[i];
      s += f_u;
      f2_u += f[i] * f_u;
      f2_u2 += f_u * f_u;
      q_u += f_u * (f[i] - b[i] - gamma);
    }
  }
  sums[0] += s, sums[1] += f2_u, sums[2] += f2_u2, sums[3] += q_u;
}

class SoftmaxLoss : public SoftmaxFamily {
 public:
  std::string_view name() const override { return "softmax"; }

  void add_value(const LossRows& rows, double reference, LossSums& sums) const override {
    add_value_softmax(rows, reference, sums);
  }

  LossPoint value(const LossSums& sums, double reference) const override {
    const auto [g_sum, c_squared, c_g, g_squared] = std::array{sums[0], sums[1], sums[2], sums[3]};
    const double rho = 1 / g_sum, e = rho - 1;
    LossPoint point = point_of(sums, reference);
    point.value = 0.5 * (c_squared + 2 * e * c_g + e * e * g_squared);
    point.scalars[kGamma] = rho * (c_g + e * g_squared);
    point.scalars[kNormSquared] = rho * rho * g_squared;
    return point;
  }

  int columns() const override { return 3; }

  // q = rho g c + rho e g^2 - gamma rho g with c = g - b.
  void fill_columns(const LossRows& rows, double reference, std::span<double> U, std::size_t leading) const override {
    fill_rows(rows, reference, U, leading, [](double g, double b, std::span<double> u) {
      u[0] = g;
      u[1] = g * g;
      u[2] = g * (g - b);
    });
  }

  Combination combine(const LossSums& sums, double /*reference*/) const override {
    const double rho = 1 / sums[0], e = rho - 1, gamma = rho * (sums[2] + e * sums[3]);
    return {{-gamma * rho, rho * e, rho}, {rho, 0, 0}, {}};
  }

  void differentiate(const LossRows& rows, const LossPoint& point, const LossDerivatives& out) const override {
    differentiate_softmax(rows, point, out.q, out.f, out.delta, point.scalars[kGamma]);
  }

  void add_change(const LossRows& rows, std::span<const double> y, double t, const LossPoint& point,
                  LossSums& sums) const override {
    add_change_softmax(rows, y, t, point, sums, point.scalars[kGamma]);
  }

  LossChange change(const LossSums& sums, const LossPoint& point) const override {
    const auto [s, f2_u, f2_u2, q_u] = std::array{sums[0], sums[1], sums[2], sums[3]};
    const double moved = f2_u2 - 2 * s * f2_u + s * s * point.scalars[kNormSquared];  // (1 + S)^2 |f' - f|^2
    return {0.5 * moved / ((1 + s) * (1 + s)) + q_u / (1 + s), std::log1p(s)};
  }

 protected:
  enum Scalar { kGamma, kNormSquared };  // <f, f - b>, |f|^2; of a sample sums with h
};

// The same sums with h_i, and with v_i where the row takes part in the normaliser: q = f (h c - v gamma), delta = f (h
// (f + c) - v gamma). Samples are small: no clones.
class SampledSoftmaxLoss final : public SoftmaxLoss {
 public:
  void add_value(const LossRows& rows, double reference, LossSums& sums) const override {
    for_rows(rows, reference, [&](std::size_t i, double g) {
      const double c = g - rows.b[i], h = rows.terms[i];
      sums[0] += rows.shares[i] * g;
      sums[1] += h * c * c;
      sums[2] += h * c * g;
      sums[3] += h * g * g;
    });
  }

  void fill_columns(const LossRows& rows, double reference, std::span<double> U, std::size_t leading) const override {
    for_rows(rows, reference, [&](std::size_t i, double g) {
      const auto u = U.subspan(i * leading);
      u[0] = rows.shares[i] * g;
      u[1] = rows.terms[i] * g * g;
      u[2] = rows.terms[i] * g * (g - rows.b[i]);
    });
  }

  void differentiate(const LossRows& rows, const LossPoint& point, const LossDerivatives& out) const override {
    const double gamma = point.scalars[kGamma];
    for_rows(rows, point.reference, [&](std::size_t i, double f) {
      const double c = f - rows.b[i], h = rows.terms[i], v_gamma = rows.shares[i] * gamma;
      out.q[i] = f * (h * c - v_gamma);
      out.f[i] = rows.shares[i] * f;
      out.delta[i] = f * (h * (f + c) - v_gamma);
    });
  }

  void add_change(const LossRows& rows, std::span<const double> y, double t, const LossPoint& point,
                  LossSums& sums) const override {
    const double gamma = point.scalars[kGamma];
    for_rows(rows, point.reference, [&](std::size_t i, double f) {
      const double f_u = f * std::expm1(t * y[i]), h = rows.terms[i], v = rows.shares[i];
      sums[0] += v * f_u;
      sums[1] += h * f * f_u;
      sums[2] += h * f_u * f_u;
      sums[3] += f_u * (h * (f - rows.b[i]) - v * gamma);
    });
  }
};

}  // namespace

std::unique_ptr<Loss> make_softmax_loss() { return std::make_unique<SoftmaxLoss>(); }
std::unique_ptr<Loss> make_sampled_softmax_loss() { return std::make_unique<SampledSoftmaxLoss>(); }

}  // namespace attnreg
