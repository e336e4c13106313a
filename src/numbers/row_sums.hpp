#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "numbers/compensated_sum.hpp"

namespace attnreg {

/// Sums over this rank's rows of what `add(first, count, sums)` finds in each block of 1024 rows; blocks in parallel
/// over OpenMP threads, their sums added in row order: the same bits for any number of threads. However many blocks
/// there are, adding them has one rounding.
template <std::size_t N, class Add>
std::array<double, N> sum_over_rows(Eigen::Index rows, Add&& add) {
  constexpr Eigen::Index kBlock = 1024;
  const Eigen::Index blocks = (rows + kBlock - 1) / kBlock;
  std::vector<std::array<double, N>> parts(static_cast<std::size_t>(blocks), std::array<double, N>{});
#pragma omp parallel for schedule(static)
  for (Eigen::Index k = 0; k < blocks; ++k)
    add(k * kBlock, std::min(kBlock, rows - k * kBlock), parts[static_cast<std::size_t>(k)]);
  std::array<CompensatedSum, N> total{};
  for (const auto& part : parts)
    for (std::size_t j = 0; j < N; ++j) total[j] += part[j];
  std::array<double, N> sums{};
  for (std::size_t j = 0; j < N; ++j) sums[j] = total[j].value();
  return sums;
}

}  // namespace attnreg
