#include <algorithm>
#include <cmath>

#include "rows/row_passes.hpp"
#include "kernels/csr_kernels.hpp"
#include "kernels/gram_kernels.hpp"

// Block rows of Gram matrices that are too large for one rank (distributed_gram.cpp).

namespace attnreg {

using Eigen::VectorXd;

namespace {

constexpr Index kGathered = 256;  // rows at once

/// row = weight^{1/2} (a - shift), from column `first` on.
template <class Scalar>
void scale_row(const Scalar* a, double weight, double share, const VectorXd& centre, Index first, double* row) {
  const double root = std::sqrt(weight);
  for (Index j = first; j < centre.size(); ++j) row[j - first] = root * (static_cast<double>(a[j]) - share * centre[j]);
}

/// out_{j - first} += weight a_j a for the entries j of row i in [first + begin, first + end), entries before j left
/// out.
template <class Scalar>
void add_row_products(const kernels::CsrBlock<Scalar>& A, Index i, double weight, Index first, Index begin, Index end,
                      RowMajorMatrix& out) {
  const std::int64_t last = A.offsets[i + 1];
  const auto* const from = std::lower_bound(A.indices + A.offsets[i], A.indices + last, first + begin);
  for (std::int64_t e = from - A.indices; e < last && A.indices[e] < first + end; ++e) {
    double* const row = out.data() + (A.indices[e] - first) * out.cols();
    const double factor = weight * static_cast<double>(A.values[e]);
    for (std::int64_t k = e; k < last; ++k) row[A.indices[k] - first] += factor * static_cast<double>(A.values[k]);
  }
}

}  // namespace

void RowPasses::add_gram_panel(std::span<const Index> rows_local, const VectorXd& weights, const VectorXd& shares,
                               const VectorXd& centre, Index first, RowMajorMatrix& out) const {
  if (is_sparse()) return add_sparse_gram_panel(rows_local, weights, first, out);
  const Index width = columns() - first, height = out.rows(), total = static_cast<Index>(rows_local.size());
  const int threads = pass_threads();
  RowMajorMatrix gathered, transposed;
  for (Index begin = 0; begin < total; begin += kGathered) {
    const Index count = std::min(kGathered, total - begin);
    gathered.resize(count, width);
    on_threads(threads, [&](int thread) {
      for (Index k = count * thread / threads; k < count * (thread + 1) / threads; ++k) {
        const Index position = begin + k, offset = rows_local[static_cast<std::size_t>(position)] * columns();
        double* const row = gathered.data() + k * width;
        if (rows_.singles != nullptr)
          scale_row(rows_.singles + offset, weights[position], shares[position], centre, first, row);
        else
          scale_row(rows_.doubles + offset, weights[position], shares[position], centre, first, row);
      }
    });
    transposed = gathered.leftCols(height).transpose();
    on_threads(threads, [&](int thread) {
      const Index from = height * thread / threads, to = height * (thread + 1) / threads;
      kernels::add_matrix_product(transposed.data() + from * count, to - from, count, gathered.data(), width, false,
                                  out.data() + from * width);
    });
  }
}

void RowPasses::add_sparse_gram_panel(std::span<const Index> rows_local, const VectorXd& weights, Index first,
                                      RowMajorMatrix& out) const {
  const int threads = pass_threads();
  on_threads(threads, [&](int thread) {
    const Index begin = out.rows() * thread / threads, end = out.rows() * (thread + 1) / threads;
    kernels::with_block(*rows_.sparse, 0, rows_.sparse->rows(), [&](const auto& block) {
      for (std::size_t k = 0; k < rows_local.size(); ++k)
        add_row_products(block, rows_local[k], weights[static_cast<Index>(k)], first, begin, end, out);
    });
  });
}

VectorXd RowPasses::sparse_sum(std::span<const Index> rows_local, const VectorXd& weights) const {
  VectorXd sum = VectorXd::Zero(columns());
  kernels::with_block(*rows_.sparse, 0, rows_.sparse->rows(), [&](const auto& block) {
    for (std::size_t k = 0; k < rows_local.size(); ++k)
      kernels::add_scaled_row(block, rows_local[k], weights[static_cast<Index>(k)], sum.data());
  });
  return sum;
}

}  // namespace attnreg
