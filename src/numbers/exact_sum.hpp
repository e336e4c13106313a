#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <span>

#include "attnreg/communicator.hpp"

namespace attnreg {

/// Sums over rows whose bits depend neither on the order of the terms nor on the number of ranks.
///
/// Every term is cut into three slices, multiples of the quanta q1 > q2 > q3, and each slice is summed in a bin of its
/// own. With sum |terms| <= M = 2^m and N <= 2^l terms the quanta are
///
///     q1 = M 2^-51,   q2 = q1 2^-s,   q3 = q2 2^-s,   s = min(50, 54 - l),
///
/// so that a bin is always a multiple of its quantum below 2^53 quanta: all its additions are exact, in any order. Only
/// the cut below q3 and the final q1 + q2 + q3 round:
///
///     |value - sum of terms| <= N q3 / 2 + 2^-51 |value|,
///
/// where N q3 / 2 = 2^(l - 52 - 2 s) M, for instance 2^-100 M for a million terms.
/// Source: pre-rounding as in Demmel and Nguyen, "Fast reproducible floating-point summation", ARITH 2013.
class ExactSum {
 public:
  /// Local. `size` sums at once, all starting at 0. No sum of the terms' magnitudes over all ranks exceeds `bound`,
  /// 0 <= bound < 2^1000; no sum has more than `terms` terms, 1 <= terms <= 2^40. Both must be replicated. Bounds below
  /// 2^-800 count as 2^-800.
  ExactSum(Eigen::Index size, double bound, std::int64_t terms);

  /// Local. Adds one term to sum `k`.
  void add(Eigen::Index k, double term) noexcept {
    double* bin = bins_.data() + 3 * k;
    for (int slice = 0; slice < 3; ++slice) {
      const double head = (term + shift_[slice]) - shift_[slice];  // the nearest multiple of the quantum
      bin[slice] += head;
      term -= head;
    }
  }
  /// Local. Adds `terms[k]` to sum k, for all k.
  void add(std::span<const double> terms) noexcept;

  /// Local. Adds the sums of `other`, which has the same size, bound and terms.
  ExactSum& operator+=(const ExactSum& other) noexcept {
    bins_ += other.bins_;
    return *this;
  }

  /// Collective. Adds up the ranks' sums, on every rank. One all-reduce of 24 size bytes.
  void reduce(const Communicator& communicator);

  /// Local. The sums of this rank's terms; after `reduce`, of all terms.
  Eigen::VectorXd values() const;

  /// Local. N q3 / 2, the part of the error bound that does not depend on the value.
  double absolute_error() const noexcept { return absolute_error_; }

 private:
  Eigen::VectorXd bins_;  ///< 3 per sum
  double shift_[3] = {};  ///< 1.5 * 2^52 quanta
  double absolute_error_;
};

/// Collective. The sum over all ranks of finite `terms`, independent of their order and distribution. `terms_global`:
/// how many there are on all ranks. Two all-reduces, of 8 and 24 bytes.
double exact_sum(const Communicator& communicator, const Eigen::Ref<const Eigen::VectorXd>& terms,
                 std::int64_t terms_global);

}  // namespace attnreg
