#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <variant>

#include "attnreg/error.hpp"
#include "errors/faults.hpp"
#include "kernels/csr_kernels.hpp"
#include "ranks/hash.hpp"
#include "ranks/span_of.hpp"
#include "rows/row_passes.hpp"

// Rows of a RowPasses on their way to another rank, which makes their products and sums again.

namespace attnreg {

namespace {

template <class T>
void append(std::vector<char>& bytes, const T* data, Index count) {
  const auto* const first = reinterpret_cast<const char*>(data);
  bytes.insert(bytes.end(), first, first + static_cast<std::size_t>(count) * sizeof(T));
}

/// The numbers at the front of the bytes, which are taken off.
template <class T>
std::vector<T> taken(std::span<const char>& bytes, Index count) {
  const std::size_t length = static_cast<std::size_t>(count) * sizeof(T);
  if (count < 0 || length > bytes.size()) throw InternalError("packed rows are shorter than they say");
  std::vector<T> numbers(static_cast<std::size_t>(count));
  if (length > 0) std::memcpy(static_cast<void*>(numbers.data()), bytes.data(), length);
  bytes = bytes.subspan(length);
  return numbers;
}

CsrRows unpacked(std::span<const char> packed, const CsrView& like, Index count) {
  CsrRows rows;
  rows.columns = like.columns;
  rows.is_single = like.is_single;
  rows.offsets = taken<std::int64_t>(packed, count + 1);
  rows.indices = taken<std::int32_t>(packed, rows.entries());
  if (rows.is_single)
    rows.singles = taken<float>(packed, rows.entries());
  else
    rows.values = taken<double>(packed, rows.entries());
  return rows;
}

/// Of what `packed_rows` has.
std::uint64_t hash_of_dense(const RowPointers& held, Index first_local, Index count) {
  return std::visit(
      [&](const auto* rows) {
        const auto* const first = reinterpret_cast<const char*>(rows + first_local * held.columns);
        return hash_of({first, static_cast<std::size_t>(count * held.columns) * sizeof *rows});
      },
      held.dense);
}

}  // namespace

std::vector<RowPasses::TileRows> RowPasses::tiles() const {
  const std::int64_t begin = first_row(), end = begin + rows_local(), rows = tile_rows(columns());
  std::vector<TileRows> tiles;
  for (std::int64_t from = begin; from < end;) {
    const std::int64_t tile = from / rows, to = std::min(end, (tile + 1) * rows);
    tiles.push_back({tile, static_cast<Index>(from - begin), static_cast<Index>(to - from)});
    from = to;
  }
  return tiles;
}

std::vector<char> RowPasses::packed_rows(Index first_local, Index count) const {
  std::vector<char> bytes;
  if (!is_sparse()) {
    std::visit([&](const auto* rows) { append(bytes, rows + first_local * columns(), count * columns()); },
               rows_.dense);
    return bytes;
  }
  kernels::with_block(*rows_.sparse, first_local, count, [&](const auto& block) {
    const std::int64_t begin = block.offsets[0], entries = block.offsets[count] - begin;
    for (Index i = 0; i <= count; ++i) {
      const std::int64_t offset = block.offsets[i] - begin;
      append(bytes, &offset, 1);
    }
    append(bytes, block.indices + begin, entries);
    append(bytes, block.values + begin, entries);
  });
  return bytes;
}

const std::vector<std::uint64_t>& RowPasses::tile_hashes() const {
  if (*tile_hashes_) return **tile_hashes_;
  const auto tiles = this->tiles();
  std::vector<std::uint64_t> hashes(tiles.size());
  share(std::ssize(tiles), [&](int, Index first, Index last) {
    for (auto k = static_cast<std::size_t>(first); k < static_cast<std::size_t>(last); ++k)
      hashes[k] = is_sparse() ? hash_of(packed_rows(tiles[k].first_local, tiles[k].rows))
                              : hash_of_dense(rows_, tiles[k].first_local, tiles[k].rows);
  });
  *reads_ += 1;
  return tile_hashes_->emplace(std::move(hashes));
}

RowPasses::Remade RowPasses::remade(std::span<const char> packed, Index count, const VectorXd& x, double shift,
                                    const VectorXd& bounds, const RowMajorMatrix& U) const {
  Remade made{VectorXd(count), VectorXd(count), MatrixXd::Zero(columns(), U.cols()),
              MatrixXd::Zero(columns(), U.cols())};
  const auto product = [&](Index i, long double sum, double reach) {
    made.z[i] = static_cast<double>(sum - static_cast<long double>(shift));
    made.reach[i] = reach;
  };
  if (is_sparse()) {
    const CsrRows rows = unpacked(packed, *rows_.sparse, count);
    kernels::with_block(CsrView(rows), 0, count, [&](const auto& block) {
      for (Index i = count - 1; i >= 0; --i) {
        long double sum = 0;
        double reach = 0;
        for (std::int64_t k = block.offsets[i + 1] - 1; k >= block.offsets[i]; --k) {
          const Index j = block.indices[k];
          const auto a = static_cast<double>(block.values[k]);
          sum += static_cast<long double>(a) * static_cast<long double>(x[j]);
          reach += std::abs(a) * bounds[j];
          for (Index c = 0; c < U.cols(); ++c) {
            made.sums(j, c) += a * U(i, c);
            made.sizes(j, c) += std::abs(a * U(i, c));
          }
        }
        product(i, sum, reach);
      }
    });
  } else {
    std::visit(
        [&](const auto* like) {
          const auto numbers = taken<std::remove_cvref_t<decltype(*like)>>(packed, count * columns());
          RowPointers held = rows_;
          held.dense = numbers.data();
          std::vector<double> scratch;
          const Tile tile(held, 0, count, scratch);
          const auto rows = tile.dense();
          for (Index i = count - 1; i >= 0; --i) {
            long double sum = 0;
            double reach = 0;
            for (Index j = columns() - 1; j >= 0; --j) {
              sum += static_cast<long double>(rows(i, j)) * static_cast<long double>(x[j]);
              reach += std::abs(rows(i, j)) * bounds[j];
            }
            product(i, sum, reach);
            for (Index c = 0; c < U.cols(); ++c) {
              made.sums.col(c) += U(i, c) * rows.row(i).transpose();
              made.sizes.col(c) += std::abs(U(i, c)) * rows.row(i).transpose().cwiseAbs();
            }
          }
        },
        rows_.dense);
  }
  faults::flip("check", span_of(made.sums));
  return made;
}

}  // namespace attnreg
