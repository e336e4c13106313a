#include <cmath>

#include "losses/loss_pieces.hpp"
#include "losses/losses.hpp"
#include "numbers/vector_clones.hpp"

namespace attnreg {

namespace {

/// log(1 + s) - s without cancellation.
double log1p_minus(double s) {
  if (std::abs(s) > 0.02) return std::log1p(s) - s;
  double sum = 0;
  for (int k = 10; k >= 2; --k) sum = (k % 2 ? 1.0 : -1.0) / k + s * sum;  // the next term is below 0.02^9 / 11
  return s * s * sum;
}

// phi = <b, 1> lse(z) - <b, z>: convex, its minimisers have softmax(z) ~ b / <b, 1>. Needs <b, 1> > 0.
//
// The loops are outside of the class because GCC makes no clones of virtual functions.

ATTNREG_CLONES
void add_value_cross_entropy(const LossRows& rows, double reference, LossSums& sums) {
  double g_sum = 0, b_sum = 0, b_z = 0;
  for (std::size_t first = 0; first < rows.z.size(); first += kPieceRows) {
    const auto z = piece_of(rows.z, first), b = piece_of(rows.b, first);
    Piece made;
    const double* const g = exponentials(rows, first, reference, made);
    g_sum += sum_of({g, z.size()});
    b_sum += sum_of(b);
#pragma omp simd reduction(+ : b_z)
    for (std::size_t i = 0; i < z.size(); ++i) b_z += b[i] * (reference - z[i]);
  }
  sums[0] += g_sum, sums[1] += b_sum, sums[2] += b_z;
}

ATTNREG_CLONES
void differentiate_cross_entropy(const LossRows& rows, const LossPoint& point, std::span<double> q, std::span<double> f,
                                 std::span<double> delta, double mass) {
  exponentials(rows, point.reference, f);
#pragma omp simd
  for (std::size_t i = 0; i < rows.z.size(); ++i) {
    delta[i] = mass * f[i];
    q[i] = delta[i] - rows.b[i];
  }
}

// phi' - phi = <b, 1> log(1 + S) - t <b, y>, S = <f, u>, u = exp(t y) - 1; the terms of first order are paired.
ATTNREG_CLONES
void add_change_cross_entropy(const LossRows& rows, std::span<const double> y, double t, const LossPoint& point,
                              LossSums& sums, double mass) {
  double f_u = 0, q_ty = 0, f_beyond = 0, f_ty = 0;
  for (std::size_t first = 0; first < rows.z.size(); first += kPieceRows) {
    const auto z = piece_of(rows.z, first), b = piece_of(rows.b, first), y_piece = piece_of(y, first);
    Piece made, u;
    const double* const f = exponentials(rows, first, point.reference, made);
    exponential_changes(y_piece, t, u);
#pragma omp simd reduction(+ : f_u, q_ty, f_beyond, f_ty)
    for (std::size_t i = 0; i < z.size(); ++i) {
      const double ty = t * y_piece[i];
      f_u += f[i] * u[i];
      q_ty += (mass * f[i] - b[i]) * ty;
      f_beyond += f[i] * (u[i] - ty);
      f_ty += f[i] * ty;
    }
  }
  sums[0] += f_u, sums[1] += q_ty, sums[2] += f_beyond, sums[3] += f_ty;
}

class CrossEntropyLoss : public SoftmaxFamily {
 public:
  std::string_view name() const override { return "cross-entropy"; }

  void add_value(const LossRows& rows, double reference, LossSums& sums) const override {
    add_value_cross_entropy(rows, reference, sums);
  }

  LossPoint value(const LossSums& sums, double reference) const override {
    LossPoint point = point_of(sums, reference);
    point.value = sums[1] * std::log(sums[0]) + sums[2];
    point.scalars[kMass] = sums[1];
    return point;
  }

  int columns() const override { return 2; }

  // q = mass rho g - b with rho = 1 / sum g.
  void fill_columns(const LossRows& rows, double reference, std::span<double> U, std::size_t leading) const override {
    fill_rows(rows, reference, U, leading, [](double g, double b, std::span<double> u) {
      u[0] = g;
      u[1] = b;
    });
  }

  Combination combine(const LossSums& sums, double /*reference*/) const override {
    const double rho = 1 / sums[0];
    return {{sums[1] * rho, -1, 0}, {rho, 0, 0}, {}};
  }

  void differentiate(const LossRows& rows, const LossPoint& point, const LossDerivatives& out) const override {
    differentiate_cross_entropy(rows, point, out.q, out.f, out.delta, point.scalars[kMass]);
  }

  void add_change(const LossRows& rows, std::span<const double> y, double t, const LossPoint& point,
                  LossSums& sums) const override {
    add_change_cross_entropy(rows, y, t, point, sums, point.scalars[kMass]);
  }

  LossChange change(const LossSums& sums, const LossPoint& point) const override {
    const double s = sums[0], log_sum = std::log1p(s);
    const double beyond = s < 1 ? sums[2] + log1p_minus(s) : log_sum - sums[3];  // log(1 + S) - <f, t y>
    return {sums[1] + point.scalars[kMass] * beyond, log_sum};
  }

 protected:
  enum Scalar { kMass };  // <b, 1>
};

// f_i counts v_i times, b_i once: a row's target has been multiplied by what it stands for.
class SampledCrossEntropyLoss final : public CrossEntropyLoss {
 public:
  void add_value(const LossRows& rows, double reference, LossSums& sums) const override {
    for_rows(rows, reference, [&](std::size_t i, double g) {
      sums[0] += rows.shares[i] * g;
      sums[1] += rows.b[i];
      sums[2] += rows.b[i] * (reference - rows.z[i]);
    });
  }

  void fill_columns(const LossRows& rows, double reference, std::span<double> U, std::size_t leading) const override {
    for_rows(rows, reference, [&](std::size_t i, double g) {
      U[i * leading] = rows.shares[i] * g;
      U[i * leading + 1] = rows.b[i];
    });
  }

  void differentiate(const LossRows& rows, const LossPoint& point, const LossDerivatives& out) const override {
    const double mass = point.scalars[kMass];
    for_rows(rows, point.reference, [&](std::size_t i, double f) {
      const double v_f = rows.shares[i] * f;
      out.q[i] = mass * v_f - rows.b[i];
      out.f[i] = v_f;
      out.delta[i] = mass * v_f;
    });
  }

  void add_change(const LossRows& rows, std::span<const double> y, double t, const LossPoint& point,
                  LossSums& sums) const override {
    const double mass = point.scalars[kMass];
    for_rows(rows, point.reference, [&](std::size_t i, double f) {
      const double ty = t * y[i], u = std::expm1(ty), v_f = rows.shares[i] * f;
      sums[0] += v_f * u;
      sums[1] += (mass * v_f - rows.b[i]) * ty;
      sums[2] += v_f * (u - ty);
      sums[3] += v_f * ty;
    });
  }
};

}  // namespace

std::unique_ptr<Loss> make_cross_entropy_loss() { return std::make_unique<CrossEntropyLoss>(); }
std::unique_ptr<Loss> make_sampled_cross_entropy_loss() { return std::make_unique<SampledCrossEntropyLoss>(); }

}  // namespace attnreg
