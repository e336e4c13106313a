#include "losses/growth_bounds.hpp"

#include <array>
#include <cmath>
#include <span>

#include "losses/growth.hpp"
#include "numbers/row_sums.hpp"

namespace attnreg {

namespace {

constexpr double kUnit = std::numeric_limits<double>::epsilon();
constexpr double kOutward = 16 * kUnit;  // the rounding of exp, and of the bounds of a range

template <class U>
class BoundsOf final : public GrowthBounds {
 public:
  explicit BoundsOf(bool rescaled) : rescaled_(rescaled) {}

  bool is_rescaled() const override { return rescaled_; }

  Range range(const PointRows& rows, const Eigen::VectorXd& h) const override {
    Eigen::ArrayXd z = rows.z;
    if (U::is_even) z = z.abs();
    const Eigen::ArrayXd move = h.array() + rows.z_error.array();
    const Values least = values(U::is_even ? (z - move).max(0.0).eval() : (z - move).eval()), most = values(z + move);
    const Eigen::ArrayXd low = least.u - kOutward * least.u.abs(), high = most.u + kOutward * most.u.abs();
    return {low, high, (1 + kOutward) * least.v.abs().max(most.v.abs())};
  }

  Shared shared(const PointRows& rows, const SumOfRanks& ranks) const override {
    if (!rescaled_) return {};
    const Values at = values(rows.z.array());
    const double alpha = std::abs(rows.point.reference);
    auto sums = sum_over_rows<4>(rows.z.size(), [&](Index first, Index count, std::array<double, 4>& block) {
      for (Index i = first; i < first + count; ++i) {
        const double du = u_error(at, rows, i), b = std::abs(rows.b[i]);
        block[0] += du + kUnit * std::abs(at.u[i]);
        block[1] += b * (du + 2 * kUnit * (std::abs(at.u[i]) + alpha * b));
        block[2] += b * b;
      }
    });
    ranks.sum(sums);
    return {sums[0], sums[1] + sums[2] * (sums[0] + 2 * kUnit * alpha), sums[2]};
  }

  // The error of delta_i = v^2 + u eta is not one of delta_i, which may be a small difference: it is that of the terms,
  // eta = u - t itself being one.
  Rounding rounding(const PointRows& rows, const SumOfRanks& ranks) const override {
    const Shared errors = shared(rows, ranks);
    const Values at = values(rows.z.array());
    const Index n = rows.z.size();
    Rounding result{VectorXd(n), VectorXd(n), VectorXd(rescaled_ ? n : 0), VectorXd(n)};
    for (Index i = 0; i < n; ++i) {
      const double b = rows.b[i], u = std::abs(at.u[i]), v = std::abs(at.v[i]);
      const double alpha = rescaled_ ? rows.point.reference : 1, gamma = rescaled_ ? rows.point.scalars[0] : 0;
      const double eta = std::abs(at.u[i] - alpha * b - gamma);
      const double du = u_error(at, rows, i), dv = rows.z_error[i] * u + 4 * kUnit * v;
      const double d_eta = du + std::abs(b) * errors.alpha_error + errors.gamma_error +
                           2 * kUnit * (u + std::abs(alpha * b) + std::abs(gamma));
      result.delta[i] = 2 * v * dv + u * d_eta + eta * du + 2 * kUnit * (v * v + u * eta);
      result.q[i] = v * d_eta + eta * (dv + kUnit * v);
      result.centre[i] = rescaled_ ? dv : 0;
      if (rescaled_) result.coupling[i] = std::abs(b) * (dv + kUnit * v);
    }
    return result;
  }

 private:
  using Index = Eigen::Index;
  using VectorXd = Eigen::VectorXd;
  struct Values {
    Eigen::ArrayXd u, v;
  };
  static Values values(const Eigen::ArrayXd& z) {
    Values result{Eigen::ArrayXd(z.size()), Eigen::ArrayXd(z.size())};
    const std::span all(z.data(), static_cast<std::size_t>(z.size()));
    for (std::size_t first = 0; first < all.size(); first += kPieceRows) {
      const auto piece = piece_of(all, first);
      U::evaluate(piece, {result.u.data() + first, piece.size()}, {result.v.data() + first, piece.size()});
    }
    return result;
  }
  static double u_error(const Values& at, const PointRows& rows, Index i) {
    return rows.z_error[i] * std::abs(at.v[i]) + 4 * kUnit * std::abs(at.u[i]);
  }

  bool rescaled_;
};

template <class U>
const GrowthBounds* bounds_if(std::string_view loss) {
  static const BoundsOf<U> plain(false), rescaled(true);
  if (loss == U::name) return &plain;
  return loss.starts_with("rescaled-") && loss.substr(9) == U::name ? &rescaled : nullptr;
}

}  // namespace

const GrowthBounds* find_growth_bounds(std::string_view loss) {
  for (const GrowthBounds* bounds : {bounds_if<Exponential>(loss), bounds_if<Cosh>(loss), bounds_if<Sinh>(loss)})
    if (bounds != nullptr) return bounds;
  return nullptr;
}

}  // namespace attnreg
