#include <algorithm>
#include <array>

#include "kernels/csr_kernels.hpp"
#include "kernels/gram_kernels.hpp"
#include "kernels/row_kernels.hpp"
#include "kernels/sketch_kernels.hpp"
#include "rows/tile.hpp"

namespace attnreg {

namespace {

/// Calls `use(A, block)` for parts of dense rows: four pieces of equal length, and up to three rows that are left.
/// `first` counts from the tile's first row.
template <class Use>
void for_blocks(Index first_local, Index rows, Use&& use) {
  const Index piece = rows / 4;
  if (piece > 0) use(kernels::RowBlock{first_local, piece, 4, piece});
  if (rows > 4 * piece) use(kernels::RowBlock{first_local + 4 * piece, rows - 4 * piece, 1, 0});
}

/// Calls `use` with the dense rows, double or float.
template <class Use>
void with_dense(const RowPointers& storage, Use&& use) {
  if (storage.singles != nullptr)
    use(storage.singles);
  else
    use(storage.doubles);
}

}  // namespace

Eigen::Map<const RowMajorMatrix> Tile::dense() const {
  const Index d = columns(), first = first_local_ * d, size = rows_ * d;
  const double* data = storage_.doubles == nullptr ? nullptr : storage_.doubles + first;
  if (data == nullptr) {
    scratch_.resize(static_cast<std::size_t>(size));
    if (storage_.singles != nullptr)
      std::copy_n(storage_.singles + first, size, scratch_.begin());
    else
      kernels::with_block(*storage_.sparse, first_local_, rows_,
                          [&](const auto& block) { kernels::expand(block, d, scratch_.data()); });
    data = scratch_.data();
  }
  return {data, rows_, d};
}

void Tile::multiply(const double* x, double* z) const {
  if (storage_.sparse != nullptr)
    return kernels::with_block(*storage_.sparse, first_local_, rows_,
                               [&](const auto& block) { kernels::multiply(block, x, z); });
  with_dense(storage_, [&](const auto* A) {
    for_blocks(first_local_, rows_, [&](const kernels::RowBlock& block) {
      kernels::multiply(A, block, columns(), x, z + (block.first_local - first_local_));
    });
  });
}

void Tile::multiply(const double* x, Compensated compensated, double* z) const {
  if (storage_.sparse != nullptr)
    return kernels::with_block(*storage_.sparse, first_local_, rows_, [&](const auto& block) {
      kernels::multiply_compensated(block, x, compensated.shift, z);
    });
  with_dense(storage_, [&](const auto* A) {
    for_blocks(first_local_, rows_, [&](const kernels::RowBlock& block) {
      kernels::multiply_compensated(A, block, columns(), x, compensated.shift, z + (block.first_local - first_local_));
    });
  });
}

void Tile::multiply_packed(const double* N, double* Y) const {
  if (storage_.sparse != nullptr)
    return kernels::with_block(*storage_.sparse, first_local_, rows_,
                               [&](const auto& block) { kernels::multiply_packed(block, N, Y); });
  kernels::multiply_block(dense().data(), rows_, columns(), N, Y);
}

void Tile::add_transpose_multiply(const double* U, Index k, double* out) const {
  constexpr Index kMany = 8;  // columns for which packing the rows pays
  if (storage_.sparse == nullptr && k >= kMany) {
    const RowMajorMatrix transposed = Eigen::Map<const RowMajorMatrix>(U, rows_, k).transpose();
    return kernels::add_matrix_product(transposed.data(), k, rows_, dense().data(), columns(), false, out);
  }
  if (storage_.sparse != nullptr)
    return kernels::with_block(*storage_.sparse, first_local_, rows_, [&](const auto& block) {
      kernels::add_transpose_multiply(block, U, k, columns(), out);
    });
  with_dense(storage_, [&](const auto* A) {
    for_blocks(first_local_, rows_, [&](const kernels::RowBlock& block) {
      kernels::add_transpose_multiply(A, block, columns(), U + (block.first_local - first_local_) * k, k, out);
    });
  });
}

void Tile::add_absolute_transpose_multiply(const double* u, double* out) const {
  if (storage_.sparse != nullptr)
    return kernels::with_block(*storage_.sparse, first_local_, rows_,
                               [&](const auto& block) { kernels::add_absolute_transpose_multiply(block, u, out); });
  with_dense(storage_, [&](const auto* A) {
    for_blocks(first_local_, rows_, [&](const kernels::RowBlock& block) {
      kernels::add_absolute_transpose_multiply(A, block, columns(), u + (block.first_local - first_local_), out);
    });
  });
}

void Tile::squared_norms(double* squares) const {
  if (storage_.sparse != nullptr) {
    kernels::with_block(*storage_.sparse, first_local_, rows_,
                        [&](const auto& block) { kernels::row_norms(block, squares); });
    for (Index i = 0; i < rows_; ++i) squares[i] *= squares[i];
    return;
  }
  with_dense(storage_, [&](const auto* A) {
    for_blocks(first_local_, rows_, [&](const kernels::RowBlock& block) {
      kernels::squared_norms(A, block, columns(), squares + (block.first_local - first_local_));
    });
  });
}

void Tile::scatter(std::span<const kernels::Scatter> entries, double* out) const {
  if (storage_.sparse != nullptr)
    return kernels::with_block(*storage_.sparse, first_local_, rows_, [&](const auto& block) {
      for (const auto& [source, target, value] : entries)
        kernels::add_scaled_row(block, source, value, out + target * columns());
    });
  with_dense(storage_,
             [&](const auto* A) { kernels::scatter_rows(A + first_local_ * columns(), columns(), entries, out); });
}

void Tile::add_signed_gram(const double* weights, const double* centre, double* positive, double* negative) const {
  with_dense(storage_, [&](const auto* A) {
    kernels::add_signed_gram(A + first_local_ * columns(), rows_, columns(), weights, centre, positive, negative);
  });
}

void Tile::add_normal_product(const double* x, const RowCurvature& weights, double* y, double* out) const {
  if (storage_.sparse == nullptr)
    return with_dense(storage_, [&](const auto* A) {
      for_blocks(first_local_, rows_, [&](const kernels::RowBlock& block) {
        kernels::add_normal_product(A, block, columns(), x, weights, y, out);
      });
    });
  const std::int64_t* offsets = storage_.sparse->offsets.data() + first_local_;
  const Index step = kernels::fused_block_rows(rows_, offsets[rows_] - offsets[0]);
  std::array<double, 1024> u;  // no tile has more rows
  for (Index first = first_local_; first < first_local_ + rows_; first += step) {
    const Index count = std::min(step, first_local_ + rows_ - first);
    kernels::with_block(*storage_.sparse, first, count, [&](const auto& block) {
      kernels::multiply(block, x, y + first);
      for (Index i = 0; i < count; ++i) {
        const double yi = y[first + i];
        const double centred = weights.curvature[first + i] * (yi - weights.centre);
        u[static_cast<std::size_t>(i)] = centred + weights.ridge[first + i] * yi;
        out[columns()] += centred;
      }
      kernels::add_transpose_multiply(block, u.data(), out);
    });
  }
}

}  // namespace attnreg
