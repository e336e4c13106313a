#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cstddef>
#include <span>

#include "losses/loss.hpp"

namespace attnreg {

inline std::span<const double> part(const Eigen::VectorXd& v, Eigen::Index first, Eigen::Index rows) {
  return {v.data() + first, static_cast<std::size_t>(rows)};
}

/// The loss's part of some sums, which come first.
inline LossSums loss_sums(const double* sums) {
  LossSums result;
  std::copy_n(sums, result.size(), result.begin());
  return result;
}

}  // namespace attnreg
