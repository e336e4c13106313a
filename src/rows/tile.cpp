#include <algorithm>
#include <variant>

#include "kernels/csr_kernels.hpp"
#include "kernels/gram_kernels.hpp"
#include "rows/tile.hpp"

namespace attnreg {

/// Calls `use(A, k)` with sparse rows; with parts of dense ones, which are four pieces of equal length and up to three
/// rows that are left. k counts from `first`, which counts from the tile's first row.
template <class Use>
void Tile::on_rows(Index first, Index rows, Use&& use) const {
  const Index local = first_local_ + first;
  if (storage_.sparse != nullptr)
    return kernels::with_block(*storage_.sparse, local, rows, [&](const auto& A) { use(A, 0); });
  const Index piece = rows / 4, even = 4 * piece;
  const auto part = [&](const kernels::RowBlock& block) {
    return kernels::DenseBlock{storage_.dense, columns(), block};
  };
  if (piece > 0) use(part({local, piece, 4, piece}), 0);
  if (rows > even) use(part({local + even, rows - even, 1, 0}), even);
}

Tile::Tile(const RowPointers& storage, Index first_local, Index rows, std::vector<double>& scratch)
    : storage_(storage), first_local_(first_local), rows_(rows), scratch_(scratch) {
  if (storage.transform == nullptr) return;
  const auto& [centre, factor] = *storage.transform;
  const Index d = columns();
  scratch_.resize(static_cast<std::size_t>(rows * d));
  kernels::widen(storage.dense, first_local * d, rows * d, scratch_.data());
  for (auto row : Eigen::Map<RowMajorMatrix>(scratch_.data(), rows, d).rowwise())
    row.array() = (row.array() - centre.transpose().array()) * factor.transpose().array();
  storage_.dense = scratch_.data() - first_local * d;  // the kernels count from the first local row
}

Eigen::Map<const RowMajorMatrix> Tile::dense(Index first, Index rows) const {
  const Index d = columns(), size = rows * d, first_local = first_local_ + first;
  const auto* doubles = std::get_if<const double*>(&storage_.dense);
  if (storage_.sparse == nullptr && doubles != nullptr) return {*doubles + first_local * d, rows, d};
  scratch_.resize(static_cast<std::size_t>(size));
  if (storage_.sparse != nullptr)
    kernels::with_block(*storage_.sparse, first_local, rows,
                        [&](const auto& block) { kernels::expand(block, scratch_.data()); });
  else
    kernels::widen(storage_.dense, first_local * d, size, scratch_.data());
  return {scratch_.data(), rows, d};
}

Tile Tile::in_double() const {
  Tile tile(*this);
  if (!is_sparse()) tile.storage_.dense = dense().data() - first_local_ * columns();
  return tile;
}

void Tile::multiply(const double* x, double* z) const {
  on_rows(0, rows_, [&](const auto& A, Index first) { kernels::multiply(A, x, z + first); });
}

void Tile::multiply(const double* x, Compensated compensated, double* z) const {
  on_rows(0, rows_,
          [&](const auto& A, Index first) { kernels::multiply_compensated(A, x, compensated.shift, z + first); });
}

void Tile::multiply_packed(const double* N, double* Y, Index used) const {
  if (storage_.sparse != nullptr)
    return kernels::with_block(*storage_.sparse, first_local_, rows_,
                               [&](const auto& A) { kernels::multiply_packed(A, N, Y); });
  kernels::multiply_block(dense().data(), rows_, columns(), N, Y, used);
}

void Tile::add_transpose_multiply(Index first, Index rows, const double* U, Index k, double* out) const {
  on_rows(first, rows, [&](const auto& A, Index i) { kernels::add_transpose_multiply(A, U + i * k, k, out); });
}

std::int64_t Tile::entries() const {
  if (storage_.sparse == nullptr) return std::int64_t{rows_} * columns();
  const auto& offsets = storage_.sparse->offsets;
  return offsets[static_cast<std::size_t>(first_local_ + rows_)] - offsets[static_cast<std::size_t>(first_local_)];
}

void Tile::add_absolute_transpose_multiply(const double* u, double* out) const {
  in_double().on_rows(0, rows_,
                      [&](const auto& A, Index first) { kernels::add_absolute_transpose_multiply(A, u + first, out); });
}

void Tile::squared_norms(const double* factor, double* squares) const {
  in_double().on_rows(0, rows_,
                      [&](const auto& A, Index first) { kernels::squared_norms(A, factor, squares + first); });
}

void Tile::scatter(std::span<const kernels::Scatter> entries, double* out) const {
  if (storage_.sparse != nullptr)
    return kernels::with_block(*storage_.sparse, first_local_, rows_, [&](const auto& A) {
      for (const auto& [source, target, value] : entries)
        kernels::add_scaled_row(A, source, value, out + target * columns());
    });
  kernels::scatter_rows(dense().data(), columns(), entries, out);
}

void Tile::add_signed_gram(const double* weights, const double* centre, double* positive, double* negative) const {
  constexpr Index kCopied = 256;  // rows: fewer are worth no call of the kernel
  const Index step = std::holds_alternative<const double*>(storage_.dense) ? rows_ : kCopied;
  for (Index first = 0; first < rows_; first += step) {
    const Index rows = std::min(step, rows_ - first);
    kernels::add_signed_gram(dense(first, rows).data(), rows, columns(), weights + first, centre, positive, negative);
  }
}

void Tile::add_normal_product(const double* x, const RowCurvature& weights, double* y, double* out) const {
  on_rows(0, rows_, [&](const auto& A, Index) { kernels::add_normal_product(A, x, weights, y, out); });
}

}  // namespace attnreg
