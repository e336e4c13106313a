#include <algorithm>
#include <array>
#include <type_traits>

#include "kernels/csr_kernels.hpp"
#include "kernels/gram_kernels.hpp"
#include "kernels/row_kernels.hpp"
#include "kernels/sketch_kernels.hpp"
#include "rows/tile.hpp"

namespace attnreg {

namespace {

/// Calls `use` with the dense rows, double or float.
template <class Use>
void with_dense(const RowPointers& storage, Use&& use) {
  if (storage.singles != nullptr)
    use(storage.singles);
  else
    use(storage.doubles);
}

/// Calls `sparse(block)` with sparse rows; for parts of dense ones, which are four pieces of equal length and up to
/// three rows that are left, `dense(A, block, first)`, where `first` counts from the tile's first row.
template <class Sparse, class Dense>
void on_rows(const RowPointers& storage, Index first_local, Index rows, Sparse&& sparse, Dense&& dense) {
  if (storage.sparse != nullptr) return kernels::with_block(*storage.sparse, first_local, rows, sparse);
  const Index piece = rows / 4, even = 4 * piece;
  with_dense(storage, [&](const auto* A) {
    if (piece > 0) dense(A, kernels::RowBlock{first_local, piece, 4, piece}, 0);
    if (rows > even) dense(A, kernels::RowBlock{first_local + even, rows - even, 1, 0}, even);
  });
}

}  // namespace

Tile::Tile(const RowPointers& storage, Index first_local, Index rows, std::vector<double>& scratch)
    : storage_(storage), first_local_(first_local), rows_(rows), scratch_(scratch) {
  if (storage.transform == nullptr) return;
  const auto& [centre, factor] = *storage.transform;
  const Index d = columns();
  scratch_.resize(static_cast<std::size_t>(rows * d));
  Eigen::Map<RowMajorMatrix> seen(scratch_.data(), rows, d);
  with_dense(storage, [&](const auto* A) {
    using Number = std::remove_cvref_t<decltype(*A)>;
    using Row = Eigen::Map<const Eigen::Array<Number, Eigen::Dynamic, 1>>;
    for (Index i = 0; i < rows; ++i)
      seen.row(i) = ((Row(A + (first_local + i) * d, d).template cast<double>() - centre.array()) * factor.array())
                        .matrix()
                        .transpose();
  });
  storage_.singles = nullptr;
  storage_.doubles = scratch_.data() - first_local * d;  // the kernels count from the first local row
}

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
  on_rows(
      storage_, first_local_, rows_, [&](const auto& block) { kernels::multiply(block, x, z); },
      [&](const auto* A, const auto& block, Index first) { kernels::multiply(A, block, columns(), x, z + first); });
}

void Tile::multiply(const double* x, Compensated compensated, double* z) const {
  on_rows(
      storage_, first_local_, rows_,
      [&](const auto& block) { kernels::multiply_compensated(block, x, compensated.shift, z); },
      [&](const auto* A, const auto& block, Index first) {
        kernels::multiply_compensated(A, block, columns(), x, compensated.shift, z + first);
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
  on_rows(
      storage_, first_local_, rows_,
      [&](const auto& block) { kernels::add_transpose_multiply(block, U, k, columns(), out); },
      [&](const auto* A, const auto& block, Index first) {
        kernels::add_transpose_multiply(A, block, columns(), U + first * k, k, out);
      });
}

void Tile::add_absolute_transpose_multiply(const double* u, double* out) const {
  on_rows(
      storage_, first_local_, rows_,
      [&](const auto& block) { kernels::add_absolute_transpose_multiply(block, u, out); },
      [&](const auto* A, const auto& block, Index first) {
        kernels::add_absolute_transpose_multiply(A, block, columns(), u + first, out);
      });
}

void Tile::squared_norms(const double* factor, double* squares) const {
  on_rows(
      storage_, first_local_, rows_, [&](const auto& block) { kernels::squared_norms(block, factor, squares); },
      [&](const auto* A, const auto& block, Index first) {
        kernels::squared_norms(A, block, columns(), factor, squares + first);
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
  const auto sparse = [&](const auto& block) {
    const Index step = kernels::fused_block_rows(rows_, block.offsets[rows_] - block.offsets[0]);
    std::array<double, 1024> u;  // no tile has more rows
    for (Index first = 0; first < rows_; first += step) {
      auto part = block;
      part.offsets += first;
      part.rows = std::min(step, rows_ - first);
      const Index first_row = first_local_ + first;
      kernels::multiply(part, x, y + first_row);
      for (Index i = 0; i < part.rows; ++i) {
        const double yi = y[first_row + i];
        const double centred = weights.curvature[first_row + i] * (yi - weights.centre);
        u[static_cast<std::size_t>(i)] = centred + weights.ridge[first_row + i] * yi;
        out[columns()] += centred;
      }
      kernels::add_transpose_multiply(part, u.data(), out);
    }
  };
  on_rows(storage_, first_local_, rows_, sparse, [&](const auto* A, const auto& block, Index) {
    kernels::add_normal_product(A, block, columns(), x, weights, y, out);
  });
}

}  // namespace attnreg
