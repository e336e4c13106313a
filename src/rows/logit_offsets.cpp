#include "rows/logit_offsets.hpp"

#include <array>
#include <cmath>
#include <limits>
#include <utility>

namespace attnreg {

using Eigen::Index;
using Eigen::VectorXd;

LogitOffsets::LogitOffsets(const Communicator& communicator, std::shared_ptr<const VectorXd> values, bool sees_level) {
  if (!values) return;
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  std::array<double, 3> found{kNone, kNone, 0};  // the largest number, the smallest one's negative, some mask
  for (const double value : *values) {
    if (std::isinf(value)) {
      found[2] = 1;
    } else {
      found[0] = std::max(found[0], value);
      found[1] = std::max(found[1], -value);
    }
  }
  communicator.max(found);
  masks_ = found[2] > 0;
  const bool are_equal = found[0] == -found[1];
  if (!masks_ && are_equal && (!sees_level || found[0] == 0)) return;
  values_ = std::move(values);
  if (!sees_level && std::isfinite(found[0])) level_ = found[0];
}

LogitOffsets LogitOffsets::of_rows(VectorXd numbers) const {
  LogitOffsets result;
  if (are_there()) result.values_ = std::make_shared<const VectorXd>(std::move(numbers));
  result.masks_ = masks_;
  return result;
}

void LogitOffsets::add_to(std::span<const double> z, Index first, std::span<double> logits) const {
  const double* const o = values_->data() + first;
#pragma omp simd
  for (std::size_t i = 0; i < z.size(); ++i) logits[i] = std::max(z[i] + (o[i] - level_), kMasked);
}

void LogitOffsets::fill_sizes(std::span<const double> z, Index first, std::span<double> sizes) const {
  for (std::size_t i = 0; i < z.size(); ++i) {
    const double o = (*this)[first + static_cast<Index>(i)];
    sizes[i] = o > kMasked / 2 ? std::abs(z[i]) + std::abs(o) : 0;
  }
}

VectorXd LogitOffsets::without_masked(VectorXd v, double of_masked) const {
  if (!masks_) return v;
  for (Index i = 0; i < v.size(); ++i)
    if (is_masked(i)) v[i] = of_masked;
  return v;
}

}  // namespace attnreg
