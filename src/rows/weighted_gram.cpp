#include "rows/weighted_gram.hpp"

#include <omp.h>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace attnreg {

void add_outer_products(const RowMajorMatrix& P, double sign, RowMajorMatrix& gram) {
  constexpr Index kRows = 512;
  const Index d = P.cols(), blocks = (P.rows() + kRows - 1) / kRows;
  const Index threads = omp_in_parallel() ? 1 : std::min<Index>(omp_get_max_threads(), blocks);
  std::vector<RowMajorMatrix> parts(static_cast<std::size_t>(threads), RowMajorMatrix::Zero(d, d));
#pragma omp parallel for num_threads(static_cast <int>(threads)) schedule(static, 1)
  for (Index thread = 0; thread < threads; ++thread) {
    const Index first = blocks * thread / threads * kRows,
                last = std::min(P.rows(), blocks * (thread + 1) / threads * kRows);
    kernels::add_gram(P.data() + first * d, last - first, d, parts[static_cast<std::size_t>(thread)].data());
  }
  for (const auto& part : parts) gram += sign * part;
}

}  // namespace attnreg
