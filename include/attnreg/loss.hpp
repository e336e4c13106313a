#pragma once

#include <array>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace attnreg {

/// A block of rows as a loss sees it: logits z = A x and targets b, equally long. The regulariser is not its business.
struct LossRows {
  std::span<const double> z;
  std::span<const double> b;
};

/// Sums over all rows; a loss uses as many as it needs. They add up over blocks and ranks.
using LossSums = std::array<double, 8>;

/// What all rows need to know of the others at one x: a few numbers made of sums over all rows. Replicated.
struct LossPoint {
  double value = 0;                 ///< phi(z), without the regulariser
  double reference = 0;             ///< shift of the logits that makes the next sums accurate
  double offset = 0;                ///< |reference - the one the sums were made with|; near 0: `value` is accurate
  std::array<double, 4> scalars{};  ///< the loss's own
};

/// Change of phi along a line.
struct LossChange {
  double value = 0;
  double reference_shift = 0;  ///< the reference at the new point is the old one plus this
};

/// One member of the family: phi(z) = phi(z + c 1) for every c, the data term of L(x) = phi(A x) + 1/2 |diag(w) A x|^2,
/// as row-local mathematics.
///
/// A value takes one sum over rows given a reference that is known to all (math: docs/algorithms.md, "Reference-
/// normalised sums"); derivatives are then row-local. Everything here is local and thread-safe. A new member is one
/// file that implements this class, and a line in `make_loss`.
class Loss {
 public:
  virtual ~Loss() = default;

  virtual std::string_view name() const = 0;

  /// The largest exponent argument of the block; its maximum over all rows is a safe first reference.
  virtual double shift(const LossRows& rows) const = 0;

  /// Adds the block's part of the sums for the value at `reference`.
  virtual void add_value(const LossRows& rows, double reference, LossSums& sums) const = 0;
  /// The point, from the sums over all rows.
  virtual LossPoint value(const LossSums& sums, double reference) const = 0;

  /// What makes value and gradient from one read of A: row outputs u_1 .. u_k that need no sums over all rows, so that
  /// A^T q = sum_c gradient_c A^T u_c and A^T f = sum_c centre_c A^T u_c once the sums are known.
  struct Combination {
    static constexpr int columns = 3;  ///< k
    std::array<double, columns> gradient{}, centre{};
  };
  /// Fills the first k numbers of every row of U, whose rows are `leading` apart, at `reference`; accurate if the true
  /// reference is near.
  virtual void fill_columns(const LossRows& rows, double reference, std::span<double> U, std::size_t leading) const = 0;
  virtual Combination combine(const LossSums& sums) const = 0;

  /// Row outputs at a point: q = grad_z phi; f, the weights of the centre abar = A^T f; delta, the curvature, signed:
  /// Hess phi in x = sum_i delta_i (a_i - abar)(a_i - abar)^T. All spans as long as the block.
  virtual void differentiate(const LossRows& rows, const LossPoint& point, std::span<double> q, std::span<double> f,
                             std::span<double> delta) const = 0;

  /// Adds the block's part of the sums for phi(z + t y) - phi(z), in difference form: accurate relative to the terms
  /// |q_i t y_i|, not to phi. Needs |t y_i| <= `largest_exponent` and <f, y> = 0 (what is left of it costs accuracy).
  virtual void add_change(const LossRows& rows, std::span<const double> y, double t, const LossPoint& point,
                          LossSums& sums) const = 0;
  virtual LossChange change(const LossSums& sums, const LossPoint& point) const = 0;

  static constexpr double largest_exponent = 300;
};

/// The losses by name: "softmax", "cross-entropy". Throws `InvalidArgument` (all ranks) that lists them.
std::unique_ptr<Loss> make_loss(std::string_view name);
const std::vector<std::string_view>& loss_names();

}  // namespace attnreg
