#pragma once

#include <array>
#include <limits>
#include <span>
#include <string>
#include <string_view>

namespace attnreg {

/// A block of rows as a loss sees it: logits z = A x and targets b, equally long. The regulariser is not its business.
struct LossRows {
  std::span<const double> z;
  std::span<const double> b;
  /// What a caller that comes back to the same rows may keep, so that no exponential is made twice: exp(z - reference)
  /// of centred losses; u(z) and u'(z) of the others, see `Loss::keep`. Else empty.
  std::span<const double> exponentials{}, slopes{};
  /// Of sampled losses, which stand for more rows than they see; else empty: how often the row's own term counts in
  /// phi, and its exponential in the normaliser <exp(z), 1>, which may be negative.
  std::span<const double> terms{}, shares{};
};

/// Sums over all rows; a loss uses as many as it needs. They add up over blocks and ranks.
using LossSums = std::array<double, 8>;

/// What all rows need to know of the others at one x: a few numbers made of sums over all rows. Replicated.
struct LossPoint {
  double value = 0;                 ///< phi(z), without the regulariser; +inf where it overflows
  double reference = 0;             ///< the number that makes the next sums accurate; see `Loss`
  double offset = 0;                ///< how far the sums' reference was from it; near 0: `value` is accurate
  double self = 0;                  ///< coupled losses: sum k_i
  std::array<double, 4> scalars{};  ///< the loss's own
};

/// Change of phi along a line.
struct LossChange {
  double value = 0;
  double reference_shift = 0;  ///< the reference at the new point is the old one plus this
};

/// How the rows of A share the Hessian of phi in x. With c = A^T f,
///
///     centred    sum_i delta_i (a_i - c)(a_i - c)^T: phi(z + s 1) = phi(z) for every s
///     diagonal   sum_i delta_i a_i a_i^T: phi is a sum over rows; f is not used
///     coupled    sum_i delta_i a_i a_i^T - m_i (a_i c^T + c a_i^T) + k_i c c^T
///
/// The first two are the third with m = k = delta, and with c = 0.
enum class HessianForm { centred, diagonal, coupled };

/// Outputs of the rows of a block, each as long as the block.
struct LossDerivatives {
  std::span<double> q;      ///< grad_z phi
  std::span<double> f;      ///< weights of the centre c = A^T f; 0 for diagonal losses
  std::span<double> delta;  ///< curvature, signed
  // Where they are not empty, and not for centred losses:
  std::span<double> positive{};  ///< delta' >= max(delta, 0) that makes the form of each row positive semidefinite
  std::span<double> coupling{};  ///< coupled: m
  std::span<double> self{};      ///< coupled: k >= 0
  std::span<double> terms{};     ///< sum of the absolute terms of q, which may cancel
};

/// One member of the family, phi, the data term of L(x) = phi(A x) + 1/2 |diag(w) A x|^2, as row-local mathematics.
///
/// A value takes one sum over rows given a *reference*, one number that is known to all ranks: a shift of the logits
/// (centred losses), or the normaliser <u(z), 1> (coupled ones); it moves by <f, A s> to first order (math:
/// docs/algorithms.md). Derivatives are then row-local. Everything here is local and thread-safe. A new member is one
/// class, and a line in `loss.cpp`.
class Loss {
 public:
  virtual ~Loss() = default;

  virtual std::string_view name() const = 0;
  virtual HessianForm form() const { return HessianForm::centred; }
  bool is_shift_invariant() const { return form() == HessianForm::centred; }

  /// The block's part of the first reference from scratch, which is the maximum over all rows.
  virtual double shift(const LossRows& rows) const = 0;

  /// Of losses that are not centred: what `LossRows` may keep.
  virtual void keep(const LossRows&, std::span<double> /*exponentials*/, std::span<double> /*slopes*/) const {}

  /// Adds the block's part of the sums for the value at `reference`.
  virtual void add_value(const LossRows& rows, double reference, LossSums& sums) const = 0;
  /// The point, from the sums over all rows.
  virtual LossPoint value(const LossSums& sums, double reference) const = 0;

  // Where phi overflows, which centred losses do not.
  /// The largest exponent of the block.
  virtual double largest_exponent_of(const LossRows&) const { return 0; }
  /// Adds the block's part of the sums that are scaled by the largest exponent of all rows.
  virtual void add_scaled_value(const LossRows&, double /*exponent*/, LossSums&) const {}
  /// ln phi, from these sums.
  virtual double log_value(const LossSums&, double /*exponent*/) const { return 0; }
  /// Of coupled losses: u(z) exp(-exponent).
  virtual void fill_scaled(const LossRows&, double /*exponent*/, std::span<double> /*u*/) const {}

  /// What makes value and gradient from one read of A: row outputs u_1 .. u_k that need no sums over all rows, so that
  /// A^T q = sum_c gradient_c A^T u_c once the sums are known, and likewise A^T f and A^T m.
  struct Combination {
    static constexpr int most_columns = 3;
    std::array<double, most_columns> gradient{}, centre{}, coupling{};
  };
  virtual int columns() const = 0;  ///< k
  /// Fills the first k numbers of every row of U, whose rows are `leading` apart, at `reference`; accurate if the true
  /// reference is near.
  virtual void fill_columns(const LossRows& rows, double reference, std::span<double> U, std::size_t leading) const = 0;
  virtual Combination combine(const LossSums& sums, double reference) const = 0;

  virtual void differentiate(const LossRows& rows, const LossPoint& point, const LossDerivatives& out) const = 0;
  /// What reproduces b: softmax(z); u(z); or u(z) / <u(z), 1>.
  virtual void fit(const LossRows& rows, const LossPoint& point, std::span<double> fitted) const = 0;
  /// In units of eps, the error of the exponent in a row: relative in u(z).
  virtual double exponent_rounding(double z, double reference) const = 0;
  /// In units of eps, of coupled losses, the errors of numbers that all rows share, sums whose terms may cancel: an
  /// error e of the reference moves q_i by e (f_i sum k - m_i), and one of the other, e', by e' f_i.
  struct SharedRounding {
    double reference = 0, other = 0;
  };
  virtual SharedRounding shared_rounding(const LossPoint&) const { return {}; }

  /// Adds the block's part of the sums for phi(z + t y) - phi(z), in difference form: accurate relative to the terms
  /// |q_i t y_i|, not to phi. Needs |t y_i| <= `largest_exponent`, and of centred losses <f, y> = 0 (what is left of it
  /// costs accuracy).
  virtual void add_change(const LossRows& rows, std::span<const double> y, double t, const LossPoint& point,
                          LossSums& sums) const = 0;
  virtual LossChange change(const LossSums& sums, const LossPoint& point) const = 0;

  static constexpr double largest_exponent = 300;
  /// The largest |t y_i| of a step that is worth a trial: beyond, phi grows by exp of twice that.
  virtual double largest_move() const { return std::numeric_limits<double>::infinity(); }

  /// The logits are A x + o: what holds of z holds of x no more.
  void see_offsets() { sees_offsets_ = true; }
  /// L(-x) = L(x): x = 0 is stationary, minimisers are pairs +-x.
  bool is_even() const { return is_even_function() && !sees_offsets_; }
  /// phi(A 0) = 0: x = 0 is a minimiser, whatever b and w.
  bool vanishes_at_zero() const { return is_zero_at_zero() && !sees_offsets_; }
  virtual std::string_view fitted_expression() const = 0;  ///< "softmax(A x)", of `fit`
  std::string fitted_text() const;                         ///< likewise, with the offsets: "softmax(A x + o)"
  virtual double infimum() const = 0;                      ///< no value of `fit` is below
  /// Whether `fit` gives a distribution: numbers that are not negative and sum to 1.
  bool fits_distribution() const { return form() != HessianForm::diagonal && infimum() >= 0; }

 protected:
  virtual bool is_even_function() const { return false; }  ///< phi(-z) = phi(z)
  virtual bool is_zero_at_zero() const { return false; }   ///< phi(0) = 0

 private:
  bool sees_offsets_ = false;
};

}  // namespace attnreg
