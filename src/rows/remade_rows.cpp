#include "rows/remade_rows.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <variant>

#include "attnreg/error.hpp"
#include "errors/faults.hpp"
#include "kernels/csr_kernels.hpp"
#include "ranks/hash.hpp"
#include "ranks/span_of.hpp"

// Rows of a RowPasses on their way to another rank, which makes their products and sums again.

namespace attnreg {

namespace {

template <class T>
std::span<const char> bytes_of(const T* data, Index count) {
  return {reinterpret_cast<const char*>(data), static_cast<std::size_t>(count) * sizeof(T)};
}

/// Bytes of so many numbers, if there are as many.
template <class T>
std::size_t checked_length(std::span<const char> bytes, Index count) {
  const std::size_t length = static_cast<std::size_t>(count) * sizeof(T);
  if (count < 0 || length > bytes.size()) throw InternalError("packed rows are shorter than they say");
  return length;
}

/// The numbers at the front of the bytes, which are taken off.
template <class T>
std::vector<T> taken(std::span<const char>& bytes, Index count) {
  const std::size_t length = checked_length<T>(bytes, count);
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

/// Calls `use(bytes)` for what is packed of some rows, piece by piece.
template <class Use>
void in_pieces(const RowPointers& held, Index first_local, Index count, Use&& use) {
  if (held.sparse == nullptr)
    return std::visit([&](const auto* rows) { use(bytes_of(rows + first_local * held.columns, count * held.columns)); },
                      held.dense);
  kernels::with_block(*held.sparse, first_local, count, [&](const auto& block) {
    const std::int64_t begin = block.offsets[0], entries = block.offsets[count] - begin;
    std::vector<std::int64_t> offsets(block.offsets, block.offsets + count + 1);
    for (std::int64_t& offset : offsets) offset -= begin;
    use(bytes_of(offsets.data(), count + 1));
    use(bytes_of(block.indices + begin, entries));
    use(bytes_of(block.values + begin, entries));
  });
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

void RowPasses::pack_rows(Index first_local, Index count, std::vector<char>& bytes) const {
  in_pieces(rows_, first_local, count,
            [&](std::span<const char> piece) { bytes.insert(bytes.end(), piece.begin(), piece.end()); });
}

std::uint64_t RowPasses::hash_of_rows(Index first_local, Index count) const {
  std::uint64_t hash = static_cast<std::uint64_t>(count);
  in_pieces(rows_, first_local, count, [&](std::span<const char> piece) { hash = hash_of(piece, hash); });
  return hash;
}

std::uint64_t RowPasses::hash_of_packed(std::span<const char> packed, Index count) const {
  auto hash = static_cast<std::uint64_t>(count);
  const auto add = [&](std::size_t length) {
    hash = hash_of(packed.first(std::min(length, packed.size())), hash);
    packed = packed.subspan(std::min(length, packed.size()));
  };
  if (is_sparse()) {
    add(static_cast<std::size_t>(count + 1) * sizeof(std::int64_t));
    const std::size_t entry = sizeof(std::int32_t) + item_bytes(storage());
    add(packed.size() / entry * sizeof(std::int32_t));
  }
  add(packed.size());
  return hash;
}

const std::vector<std::uint64_t>& RowPasses::tile_hashes() const {
  if (tile_hashes_->made) return *tile_hashes_->made;
  const auto tiles = this->tiles();
  std::vector<std::uint64_t> hashes(tiles.size());
  share(std::ssize(tiles), [&](int, Index first, Index last) {
    for (auto k = static_cast<std::size_t>(first); k < static_cast<std::size_t>(last); ++k)
      hashes[k] = hash_of_rows(tiles[k].first_local, tiles[k].rows);
  });
  *reads_ += 1;
  *tile_hashes_ = {.made = std::move(hashes)};
  return *tile_hashes_->made;
}

RemadeRows::RemadeRows(const RowPasses& like, std::span<const char> packed, Index count)
    : columns_(like.columns()), count_(count) {
  if (like.is_sparse()) {
    sparse_ = unpacked(packed, *like.sparse(), count);
    return;
  }
  if (std::holds_alternative<const double*>(like.rows_.dense) && !like.is_transformed()) {  // without a copy between
    const Index size = count * columns_;
    const char* from = packed.data() + checked_length<double>(packed, size);
    turned_.resize(count, columns_);
    for (Index k = 0; k < size; ++k) std::memcpy(turned_.data() + k, from -= sizeof(double), sizeof(double));
    return;
  }
  std::visit(
      [&](const auto* held) {
        const auto numbers = taken<std::remove_cvref_t<decltype(*held)>>(packed, count * columns_);
        RowPointers rows = like.rows_;
        rows.dense = numbers.data();
        std::vector<double> scratch;
        turned_ = Tile(rows, 0, count, scratch).dense().reverse();
      },
      like.rows_.dense);
}

VectorXd RemadeRows::products(const VectorXd& x, double shift) const {
  VectorXd z(count_);
  if (turned_.size() > 0) {
    const VectorXd x_turned = x.reverse();
    std::vector<double> scratch;
    Tile({.columns = columns_, .dense = turned_.data()}, 0, count_, scratch)
        .multiply(x_turned.data(), Compensated{shift}, z.data());
    z.reverseInPlace();
    return z;
  }
  kernels::with_block(CsrView(sparse_), 0, count_, [&](const auto& block) {
    for (Index i = count_ - 1; i >= 0; --i) {
      long double sum = 0;
      for (std::int64_t k = block.offsets[i + 1] - 1; k >= block.offsets[i]; --k)
        sum += static_cast<long double>(block.values[k]) * static_cast<long double>(x[block.indices[k]]);
      z[i] = static_cast<double>(sum - static_cast<long double>(shift));
    }
  });
  return z;
}

double RemadeRows::reach(Index row, const VectorXd& bounds) const {
  if (turned_.size() > 0) return turned_.row(count_ - 1 - row).reverse().cwiseAbs().dot(bounds);
  double reach = 0;
  kernels::with_block(CsrView(sparse_), row, 1, [&](const auto& block) {
    for (std::int64_t k = block.offsets[0]; k < block.offsets[1]; ++k)
      reach += std::abs(static_cast<double>(block.values[k])) * bounds[block.indices[k]];
  });
  return reach;
}

namespace {

MatrixXd sums_of(const RowMajorMatrix& turned, const RowMajorMatrix& U) {
  const RowMajorMatrix U_turned = U.colwise().reverse();
  MatrixXd sums = MatrixXd::Zero(turned.cols(), U.cols());
  std::vector<double> scratch;
  Tile({.columns = turned.cols(), .dense = turned.data()}, 0, turned.rows(), scratch)
      .add_transpose_multiply(0, turned.rows(), U_turned.data(), U.cols(), sums.data());
  return sums.colwise().reverse();
}

/// of(a, u): the term of an entry.
template <class Term>
MatrixXd sums_of(const CsrRows& rows, const RowMajorMatrix& U, Term&& term) {
  MatrixXd sums = MatrixXd::Zero(rows.columns, U.cols());
  kernels::with_block(CsrView(rows), 0, U.rows(), [&](const auto& block) {
    for (Index i = U.rows() - 1; i >= 0; --i)
      for (std::int64_t k = block.offsets[i + 1] - 1; k >= block.offsets[i]; --k)
        for (Index c = 0; c < U.cols(); ++c)
          sums(block.indices[k], c) += term(static_cast<double>(block.values[k]), U(i, c));
  });
  return sums;
}

}  // namespace

MatrixXd RemadeRows::sums(const RowMajorMatrix& U) const {
  MatrixXd sums =
      turned_.size() > 0 ? sums_of(turned_, U) : sums_of(sparse_, U, [](double a, double u) { return a * u; });
  faults::flip("check", span_of(sums));
  return sums;
}

MatrixXd RemadeRows::sizes(const RowMajorMatrix& U) const {
  if (turned_.size() > 0) return sums_of(turned_.cwiseAbs(), U.cwiseAbs());
  return sums_of(sparse_, U, [](double a, double u) { return std::abs(a * u); });
}

}  // namespace attnreg
