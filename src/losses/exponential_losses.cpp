#include <cmath>

#include "losses/growth.hpp"
#include "losses/losses.hpp"

namespace attnreg {

namespace {

// phi = 1/2 |u(z) - b|^2, u = exp, cosh or sinh entry by entry. With r = u - b and v = u', q = v r and Hess phi =
// diag(v^2 + u r); a row needs to know nothing of the others. Source: Li, Song, Zhou 2023, arXiv 2303.15725.
template <class U>
class ExponentialLoss final : public GrowingLoss<U> {
  using Combination = Loss::Combination;

 public:
  std::string_view name() const override { return U::name; }
  HessianForm form() const override { return HessianForm::diagonal; }
  std::string_view fitted_expression() const override { return U::expression; }
  double infimum() const override { return U::infimum; }

  void add_value(const LossRows& rows, double /*reference*/, LossSums& sums) const override {
    this->for_each_piece(rows, [&](std::size_t, std::size_t size, const auto& b, const GrowthPiece<U>& at) {
      double squares = 0;
      for (std::size_t i = 0; i < size; ++i) squares += (at.u[i] - b[i]) * (at.u[i] - b[i]);
      sums[0] += squares;
    });
  }

  LossPoint value(const LossSums& sums, double /*reference*/) const override { return {.value = 0.5 * sums[0]}; }

  void add_scaled_value(const LossRows& rows, double exponent, LossSums& sums) const override {
    for (std::size_t i = 0; i < rows.z.size(); ++i) {
      const double r = U::scaled(rows.z[i], exponent) - rows.b[i] * std::exp(-exponent);
      sums[0] += r * r;
    }
  }
  double log_value(const LossSums& sums, double exponent) const override {
    return 2 * exponent + std::log(0.5 * sums[0]);
  }

  int columns() const override { return 1; }
  void fill_columns(const LossRows& rows, double /*reference*/, std::span<double> U_rows,
                    std::size_t leading) const override {
    this->for_each_piece(rows, [&](std::size_t first, std::size_t size, const auto& b, const GrowthPiece<U>& at) {
      for (std::size_t i = 0; i < size; ++i) U_rows[(first + i) * leading] = at.v[i] * (at.u[i] - b[i]);
    });
  }
  Combination combine(const LossSums& /*sums*/, double /*reference*/) const override { return {{1, 0, 0}, {}, {}}; }

  void differentiate(const LossRows& rows, const LossPoint& /*point*/, const LossDerivatives& out) const override {
    this->for_each_piece(rows, [&](std::size_t first, std::size_t size, const auto& b, const GrowthPiece<U>& at) {
      for (std::size_t i = 0; i < size; ++i) {
        const double u = at.u[i], v = at.v[i], r = u - b[i];
        out.q[first + i] = v * r;
        out.f[first + i] = 0;
        out.delta[first + i] = v * v + u * r;
        if (!out.positive.empty()) out.positive[first + i] = v * v + std::max(u * r, 0.0);
        if (!out.terms.empty()) out.terms[first + i] = std::abs(v) * (std::abs(u) + std::abs(b[i]));
      }
    });
  }

  void fit(const LossRows& rows, const LossPoint& /*point*/, std::span<double> fitted) const override {
    this->for_each_piece(rows, [&](std::size_t first, std::size_t size, const auto&, const GrowthPiece<U>& at) {
      std::copy_n(at.u.begin(), size, fitted.begin() + static_cast<std::ptrdiff_t>(first));
    });
  }

  // phi(z + t y) - phi(z) = <r, du> + 1/2 |du|^2
  void add_change(const LossRows& rows, std::span<const double> y, double t, const LossPoint& /*point*/,
                  LossSums& sums) const override {
    this->for_each_piece(rows, [&](std::size_t first, std::size_t size, const auto& b, const GrowthPiece<U>& at) {
      Piece du;
      at.difference(piece_of(rows.z, first), piece_of(y, first), t, du);
      double change = 0;
      for (std::size_t i = 0; i < size; ++i) change += du[i] * (at.u[i] - b[i] + 0.5 * du[i]);
      sums[0] += change;
    });
  }
  LossChange change(const LossSums& sums, const LossPoint& /*point*/) const override { return {sums[0], 0}; }
};

}  // namespace

std::unique_ptr<Loss> make_exp_loss() { return std::make_unique<ExponentialLoss<Exponential>>(); }
std::unique_ptr<Loss> make_cosh_loss() { return std::make_unique<ExponentialLoss<Cosh>>(); }
std::unique_ptr<Loss> make_sinh_loss() { return std::make_unique<ExponentialLoss<Sinh>>(); }

}  // namespace attnreg
