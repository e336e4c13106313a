#include "sampling/sketch.hpp"
#include "rows/row_passes.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "errors/refuse.hpp"
#include "kernels/gram_kernels.hpp"
#include "kernels/sketch_kernels.hpp"
#include "numbers/random.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

/// Entries of A, in sizes of the sketch, that make a part of a block worth a sketch of its own.
constexpr double kWorthSketch = 16;

void check(const SketchOptions& options) {
  if (options.rows < 1 || options.rows > std::numeric_limits<std::int32_t>::max())
    refuse("a sketch of " + std::to_string(options.rows) + " rows: give 1 to 2^31 - 1");
  if (options.kind == SketchKind::sparse_sign && (options.nonzeros < 1 || options.nonzeros > options.rows))
    refuse("a sparse sketch with " + std::to_string(options.nonzeros) + " nonzeros in each column of " +
           std::to_string(options.rows) + " rows: give 1 to the number of rows");
}

void check_scale(const RowMatrix& A, const VectorXd& row_scale) {
  if (row_scale.size() != 0 && row_scale.size() != A.rows_local())
    throw InvalidArgument("rank " + std::to_string(A.communicator().rank()) + " owns " +
                          std::to_string(A.rows_local()) + " rows but was given " + std::to_string(row_scale.size()) +
                          " row scales");
}

/// Appends the entries of column `row` of a sparse sign matrix, times `scale`. Floyd's algorithm: a uniformly random
/// set of distinct rows from one number each. 31 bits of a word choose the row, the last one the sign.
void append_signs(const SketchOptions& options, const RandomStream& stream, std::int64_t row, Index source,
                  double scale, std::vector<kernels::Scatter>& entries) {
  const auto first = static_cast<std::ptrdiff_t>(entries.size());
  const double value = scale * (1 / std::sqrt(options.nonzeros));
  std::array<std::uint32_t, 4> words{};
  for (std::uint32_t k = 0; k < static_cast<std::uint32_t>(options.nonzeros); ++k) {
    if (k % 4 == 0) words = stream.bits(row, k / 4);
    const std::uint32_t word = words[k % 4];
    const Index last = options.rows - options.nonzeros + k;
    auto target = static_cast<Index>(std::uint64_t{word >> 1} * static_cast<std::uint64_t>(last + 1) >> 31);
    const auto is_target = [&](const kernels::Scatter& entry) { return entry.target == target; };
    if (std::any_of(entries.begin() + first, entries.end(), is_target)) target = last;
    entries.push_back({source, target, (word & 1) != 0 ? value : -value});
  }
}

double scale_of(const VectorXd& row_scale, Index row) { return row_scale.size() == 0 ? 1.0 : row_scale[row]; }

/// Rows [first, first + count) of a sparse sign sketch.
RowMajorMatrix sparse_pass(const RowMatrix& A, const VectorXd& row_scale, const SketchOptions& options, Index first,
                           Index count) {
  const RandomStream stream(options.seed, Purpose::sketch_sparse_sign, options.iteration);
  const auto add = [&](const Tile& tile, RowMajorMatrix& sum) {
    std::vector<kernels::Scatter> entries;
    entries.reserve(static_cast<std::size_t>(tile.rows() * options.nonzeros));
    for (Index i = 0; i < tile.rows(); ++i) {
      const Index row = tile.first_local() + i;
      const double scale = scale_of(row_scale, row);
      if (scale != 0) append_signs(options, stream, A.first_row() + row, i, scale, entries);
    }
    if (count < options.rows) {
      std::erase_if(entries, [&](const auto& entry) { return entry.target < first || entry.target >= first + count; });
      for (auto& entry : entries) entry.target -= first;
    }
    tile.scatter(entries, sum.data());
  };
  RowMajorMatrix zero = RowMajorMatrix::Zero(count, A.columns());
  const double least = kWorthSketch * static_cast<double>(zero.size());
  return A.passes().pass(std::move(zero), add, TileSize::cached, least);
}

RowMajorMatrix gaussian_pass(const RowMatrix& A, const VectorXd& row_scale, const SketchOptions& options) {
  const RandomStream stream(options.seed, Purpose::sketch_gaussian, options.iteration);
  const double size = 1 / std::sqrt(static_cast<double>(options.rows));
  const RowMajorMatrix zero = RowMajorMatrix::Zero(options.rows, A.columns());
  return A.passes().pass(zero, [&](const Tile& tile, RowMajorMatrix& sum) {
    MatrixXd S = MatrixXd::Zero(options.rows, tile.rows());
    for (Index i = 0; i < tile.rows(); ++i) {
      const Index row = tile.first_local() + i;
      const double scale = scale_of(row_scale, row);
      if (scale == 0) continue;
      auto column = S.col(i);
      stream.normals(A.first_row() + row, span_of(column));
      column = column * size * scale;
    }
    kernels::add_matrix_product(RowMajorMatrix(S).data(), S.rows(), S.cols(), tile.dense().data(), A.columns(), false,
                                sum.data());
  });
}

}  // namespace

RowMajorMatrix sketch(const RowMatrix& A, const VectorXd& row_scale, const SketchOptions& options) {
  check(options);
  check_scale(A, row_scale);
  if (options.kind == SketchKind::gaussian) return gaussian_pass(A, row_scale, options);
  return sparse_pass(A, row_scale, options, 0, options.rows);
}

RowMajorMatrix sketch_panel(const RowMatrix& A, const VectorXd& row_scale, const SketchOptions& options, Index first,
                            Index count) {
  check(options);
  return sparse_pass(A, row_scale, options, first, count);
}

}  // namespace attnreg
