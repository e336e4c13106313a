#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <memory>
#include <span>

#include "attnreg/communicator.hpp"

namespace attnreg {

/// Numbers o that are added to the logits of this rank's rows: A x + o. -infinity masks a row: its exponential is
/// exactly 0, and it has no part in anything. Of losses that do not see the level of the logits o is taken less its
/// largest number. Copies share the numbers. All members are local.
class LogitOffsets {
 public:
  static constexpr double largest = 1e300;  ///< |o|, if it is finite

  LogitOffsets() = default;  ///< none
  /// Collective, one all-reduce of 24 bytes, unless there are no values (null, on all ranks). values: one for each row
  /// of this rank, finite and of size `largest` at most, or -infinity. They are none where they change nothing: all 0,
  /// or, unless the loss sees their level, equal.
  LogitOffsets(const Communicator& communicator, std::shared_ptr<const Eigen::VectorXd> values, bool sees_level);
  /// Those of other rows; numbers: as `operator[]` has them.
  LogitOffsets of_rows(Eigen::VectorXd numbers) const;

  bool are_there() const { return values_ != nullptr; }  ///< Replicated.
  bool mask_rows() const { return masks_; }              ///< Replicated. Some row is masked.
  bool is_masked(Eigen::Index row) const { return masks_ && !((*values_)[row] > kMasked / 2); }
  double operator[](Eigen::Index row) const { return are_there() ? std::max((*values_)[row] - level_, kMasked) : 0; }
  /// logits_i = z_i + o_i of the rows from `first` on.
  void add_to(std::span<const double> z, Eigen::Index first, std::span<double> logits) const;
  /// What the logits of these rows are made of, |z_i| + |o_i|; 0 of masked ones.
  void fill_sizes(std::span<const double> z, Eigen::Index first, std::span<double> sizes) const;
  /// v with `of_masked` in the masked rows, all rows of this rank.
  Eigen::VectorXd without_masked(Eigen::VectorXd v, double of_masked = 0) const;

 private:
  // In place of -infinity, which has no product with 0; its exponential is 0 whatever the other logits.
  static constexpr double kMasked = -1e305;

  std::shared_ptr<const Eigen::VectorXd> values_;  // null: none
  double level_ = 0;
  bool masks_ = false;
};

}  // namespace attnreg
