#include <cmath>
#include <limits>
#include <string>

#include "losses/growth.hpp"
#include "losses/losses.hpp"

namespace attnreg {

namespace {

// phi = 1/2 |u(z) - alpha b|^2, alpha = <u(z), 1>, u = exp, cosh or sinh entry by entry: softmax regression without the
// division, and its relatives. With v = u', r = u - alpha b, gamma = <b, r> and eta = r - gamma 1,
//
//     q = v o eta,   Hess phi = diag(v^2 + u o eta) - v (v o b)^T - (v o b) v^T + |b|^2 v v^T.
//
// The reference of the sums is alpha. Near a fit they are taken of c = u - reference b; with e = alpha - reference, r =
// c - e b. Sources: arXiv 2305.00660, 2303.15725; docs/algorithms.md.
template <class U>
class RescaledLoss final : public GrowingLoss<U> {
  using Combination = Loss::Combination;
  // <u, 1>, |c|^2, <c, b>, |b|^2, |u|^2, <|u| + |v z|, 1>
  enum Sum { kAlpha, kSquares, kAlong, kTarget, kSize, kTerms };
  enum ChangeSum { kMoved, kFirst, kSecond, kMovedAlong };  // <du, 1>, <eta, du>, |du|^2, <b, du>
  enum Scalar { kGamma, kAlphaTerms, kGammaTerms };         // <b, r>; what the terms of alpha and gamma add up to

 public:
  std::string_view name() const override { return name_; }
  HessianForm form() const override { return HessianForm::coupled; }
  std::string_view fitted_expression() const override { return U::rescaled; }
  double infimum() const override { return std::min(U::infimum, 0.0); }

  void add_value(const LossRows& rows, double reference, LossSums& sums) const override {
    this->for_each_piece(rows, [&](std::size_t first, std::size_t size, const auto& b, const GrowthPiece<U>& at) {
      const auto z = piece_of(rows.z, first);
      LossSums all{};  // in registers
      all[kAlpha] = sum_of(at.u.first(size));
      for (std::size_t i = 0; i < size; ++i) {
        const double c = at.u[i] - reference * b[i];
        all[kSquares] += c * c;
        all[kAlong] += c * b[i];
        all[kTarget] += b[i] * b[i];
        all[kSize] += at.u[i] * at.u[i];
        all[kTerms] += std::abs(at.u[i]) + std::abs(at.v[i] * z[i]);
      }
      for (std::size_t k = 0; k < all.size(); ++k) sums[k] += all[k];
    });
  }

  LossPoint value(const LossSums& sums, double reference) const override {
    const double e = sums[kAlpha] - reference;
    LossPoint point;
    point.value = 0.5 * (sums[kSquares] - 2 * e * sums[kAlong] + e * e * sums[kTarget]);
    if (std::isnan(point.value)) point.value = std::numeric_limits<double>::infinity();  // inf - inf
    point.reference = sums[kAlpha];
    point.offset = e == 0 ? 0 : std::abs(e) * std::sqrt(sums[kTarget] / sums[kSize]);
    point.self = sums[kTarget];
    point.scalars[kGamma] = sums[kAlong] - e * sums[kTarget];
    point.scalars[kAlphaTerms] = sums[kTerms];
    point.scalars[kGammaTerms] = 2 * std::sqrt(sums[kTarget]) * std::sqrt(sums[kSize]);
    return point;
  }
  Loss::SharedRounding shared_rounding(const LossPoint& point) const override {
    return {point.scalars[kAlphaTerms], point.scalars[kGammaTerms]};
  }

  void add_scaled_value(const LossRows& rows, double exponent, LossSums& sums) const override {
    for (std::size_t i = 0; i < rows.z.size(); ++i) {
      const double u = U::scaled(rows.z[i], exponent), b = rows.b[i];
      sums[kAlpha] += u;
      sums[kSquares] += u * u;
      sums[kAlong] += u * b;
      sums[kTarget] += b * b;
    }
  }
  void fill_scaled(const LossRows& rows, double exponent, std::span<double> u) const override {
    for (std::size_t i = 0; i < rows.z.size(); ++i) u[i] = U::scaled(rows.z[i], exponent);
  }
  double log_value(const LossSums& sums, double exponent) const override {
    const double alpha = sums[kAlpha];
    return 2 * exponent + std::log(0.5 * (sums[kSquares] - 2 * alpha * sums[kAlong] + alpha * alpha * sums[kTarget]));
  }

  // q = v c - e v b - gamma v
  int columns() const override { return 3; }
  void fill_columns(const LossRows& rows, double reference, std::span<double> U_rows,
                    std::size_t leading) const override {
    this->for_each_piece(rows, [&](std::size_t first, std::size_t size, const auto& b, const GrowthPiece<U>& at) {
      for (std::size_t i = 0; i < size; ++i) {
        const auto row = U_rows.subspan((first + i) * leading);
        row[0] = at.v[i];
        row[1] = at.v[i] * b[i];
        row[2] = at.v[i] * (at.u[i] - reference * b[i]);
      }
    });
  }
  Combination combine(const LossSums& sums, double reference) const override {
    const double e = sums[kAlpha] - reference;
    return {{e * sums[kTarget] - sums[kAlong], -e, 1}, {1, 0, 0}, {0, 1, 0}};
  }

  void differentiate(const LossRows& rows, const LossPoint& point, const LossDerivatives& out) const override {
    const double alpha = point.reference, gamma = point.scalars[kGamma];
    this->for_each_piece(rows, [&](std::size_t first, std::size_t size, const auto& b, const GrowthPiece<U>& at) {
      for (std::size_t i = 0; i < size; ++i) {
        const double u = at.u[i], v = at.v[i], eta = u - alpha * b[i] - gamma;
        out.q[first + i] = v * eta;
        out.f[first + i] = v;
        out.delta[first + i] = v * v + u * eta;
        if (!out.positive.empty()) out.positive[first + i] = v * v + std::max(u * eta, 0.0);
        if (!out.coupling.empty()) out.coupling[first + i] = v * b[i];
        if (!out.self.empty()) out.self[first + i] = b[i] * b[i];
        if (!out.terms.empty())
          out.terms[first + i] = std::abs(v) * (std::abs(u) + std::abs(alpha * b[i]) + std::abs(gamma));
      }
    });
  }

  void fit(const LossRows& rows, const LossPoint& point, std::span<double> fitted) const override {
    const double alpha = point.reference;
    this->for_each_piece(rows, [&](std::size_t first, std::size_t size, const auto&, const GrowthPiece<U>& at) {
#pragma omp simd
      for (std::size_t i = 0; i < size; ++i) fitted[first + i] = at.u[i] / alpha;
    });
  }

  // r' - r = du - <du, 1> b
  void add_change(const LossRows& rows, std::span<const double> y, double t, const LossPoint& point,
                  LossSums& sums) const override {
    this->for_each_piece(rows, [&](std::size_t first, std::size_t size, const auto& b, const GrowthPiece<U>& at) {
      Piece du;
      at.difference(piece_of(rows.z, first), piece_of(y, first), t, du);
      LossSums all = sums;  // in registers
      for (std::size_t i = 0; i < size; ++i) {
        all[kMoved] += du[i];
        all[kFirst] += du[i] * (at.u[i] - point.reference * b[i] - point.scalars[kGamma]);
        all[kSecond] += du[i] * du[i];
        all[kMovedAlong] += b[i] * du[i];
      }
      sums = all;
    });
  }
  LossChange change(const LossSums& sums, const LossPoint& point) const override {
    const double moved = sums[kMoved];
    return {sums[kFirst] + 0.5 * (sums[kSecond] - 2 * moved * sums[kMovedAlong] + moved * moved * point.self), moved};
  }

 private:
  bool is_zero_at_zero() const override { return U::vanishes_at_zero; }

  const std::string name_ = "rescaled-" + std::string(U::name);
};

}  // namespace

std::unique_ptr<Loss> make_rescaled_exp_loss() { return std::make_unique<RescaledLoss<Exponential>>(); }
std::unique_ptr<Loss> make_rescaled_cosh_loss() { return std::make_unique<RescaledLoss<Cosh>>(); }
std::unique_ptr<Loss> make_rescaled_sinh_loss() { return std::make_unique<RescaledLoss<Sinh>>(); }

}  // namespace attnreg
