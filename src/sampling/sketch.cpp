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

/// The columns of a sparse sign matrix.
class SparseSigns {
 public:
  explicit SparseSigns(const SketchOptions& options)
      : stream_(options.seed, Purpose::sketch_sparse_sign, options.iteration),
        rows_(options.rows),
        nonzeros_(options.nonzeros),
        value_(1 / std::sqrt(options.nonzeros)) {}

  /// Appends the entries of column `row` of S, times `scale`. Floyd's algorithm: a uniformly random set of distinct
  /// rows from one number each. 31 bits of a word choose the row, the last one the sign.
  void append(std::int64_t row, Index source, double scale, std::vector<kernels::Scatter>& entries) const {
    const std::size_t first = entries.size();
    std::array<std::uint32_t, 4> words{};
    for (int k = 0; k < nonzeros_; ++k) {
      const auto draw = static_cast<std::uint32_t>(k);
      if (draw % 4 == 0) words = stream_.bits(row, draw / 4);
      const std::uint32_t word = words[draw % 4];
      const Index last = rows_ - nonzeros_ + k;
      auto target =
          static_cast<Index>(static_cast<std::uint64_t>(word >> 1) * static_cast<std::uint64_t>(last + 1) >> 31);
      const auto is_target = [&](const kernels::Scatter& entry) { return entry.target == target; };
      if (std::any_of(entries.begin() + static_cast<std::ptrdiff_t>(first), entries.end(), is_target)) target = last;
      entries.push_back({source, target, (word & 1) != 0 ? scale * value_ : -scale * value_});
    }
  }

 private:
  RandomStream stream_;
  Index rows_;
  int nonzeros_;
  double value_;
};

/// The columns of a Gaussian matrix.
class GaussianColumns {
 public:
  explicit GaussianColumns(const SketchOptions& options)
      : stream_(options.seed, Purpose::sketch_gaussian, options.iteration),
        scale_(1 / std::sqrt(static_cast<double>(options.rows))) {}

  void fill(std::int64_t row, Eigen::Ref<VectorXd> column) const {
    stream_.normals(row, span_of(column));
    column *= scale_;
  }

 private:
  RandomStream stream_;
  double scale_;
};

__extension__ typedef unsigned __int128 Wide;

/// The columns of an AMS matrix.
class AmsColumns {
 public:
  explicit AmsColumns(const SketchOptions& options)
      : coefficients_(static_cast<std::size_t>(options.rows)),
        value_(1 / std::sqrt(static_cast<double>(options.rows))) {
    const RandomStream stream(options.seed, Purpose::sketch_ams, options.iteration);
    for (std::size_t k = 0; k < coefficients_.size(); ++k)
      for (std::uint32_t j = 0; j < 4; ++j) {
        const auto words = stream.bits(static_cast<std::int64_t>(k), j);
        coefficients_[k][j] = reduced(std::uint64_t{words[0]} << 32 | words[1]);
      }
  }

  void fill(std::int64_t row, Eigen::Ref<VectorXd> column) const {
    const auto x = reduced(static_cast<std::uint64_t>(row));
    for (std::size_t k = 0; k < coefficients_.size(); ++k) {
      const auto& c = coefficients_[k];
      std::uint64_t y = c[3];
      for (int j = 2; j >= 0; --j) y = reduced(Wide{y} * x + c[static_cast<std::size_t>(j)]);
      column[static_cast<Index>(k)] = (y & 1) != 0 ? value_ : -value_;
    }
  }

 private:
  static constexpr std::uint64_t kPrime = (std::uint64_t{1} << 61) - 1;

  static std::uint64_t reduced(Wide x) {
    auto y = static_cast<std::uint64_t>(x & kPrime) + static_cast<std::uint64_t>(x >> 61);
    if (y >= kPrime) y -= kPrime;
    return y >= kPrime ? y - kPrime : y;
  }

  std::vector<std::array<std::uint64_t, 4>> coefficients_;
  double value_;
};

double scale_of(const VectorXd& row_scale, Index row) { return row_scale.size() == 0 ? 1.0 : row_scale[row]; }

/// Rows [first, first + count) of a sparse sign sketch.
RowMajorMatrix sparse_pass(const RowMatrix& A, const VectorXd& row_scale, const SketchOptions& options, Index first,
                           Index count) {
  const SparseSigns columns(options);
  const RowMajorMatrix zero = RowMajorMatrix::Zero(count, A.columns());
  return A.passes().pass(zero, [&](const Tile& tile, RowMajorMatrix& sum) {
    std::vector<kernels::Scatter> entries;
    entries.reserve(static_cast<std::size_t>(tile.rows() * options.nonzeros));
    for (Index i = 0; i < tile.rows(); ++i) {
      const double scale = scale_of(row_scale, tile.first_local() + i);
      if (scale != 0) columns.append(A.first_row() + tile.first_local() + i, i, scale, entries);
    }
    if (count < options.rows) {
      std::erase_if(entries, [&](const auto& entry) { return entry.target < first || entry.target >= first + count; });
      for (auto& entry : entries) entry.target -= first;
    }
    tile.scatter(entries, sum.data());
  });
}

template <class Columns>
RowMajorMatrix dense_pass(const RowMatrix& A, const VectorXd& row_scale, const SketchOptions& options) {
  const Columns columns(options);
  return A.passes().pass(RowMajorMatrix(RowMajorMatrix::Zero(options.rows, A.columns())),
                         [&](const Tile& tile, RowMajorMatrix& sum) {
                           MatrixXd S = MatrixXd::Zero(options.rows, tile.rows());
                           for (Index i = 0; i < tile.rows(); ++i) {
                             const double scale = scale_of(row_scale, tile.first_local() + i);
                             if (scale == 0) continue;
                             columns.fill(A.first_row() + tile.first_local() + i, S.col(i));
                             S.col(i) *= scale;
                           }
                           kernels::add_matrix_product(RowMajorMatrix(S).data(), S.rows(), S.cols(),
                                                       tile.dense().data(), A.columns(), false, sum.data());
                         });
}

}  // namespace

RowMajorMatrix sketch(const RowMatrix& A, const VectorXd& row_scale, const SketchOptions& options) {
  check(options);
  check_scale(A, row_scale);
  switch (options.kind) {
    case SketchKind::gaussian: return dense_pass<GaussianColumns>(A, row_scale, options);
    case SketchKind::ams: return dense_pass<AmsColumns>(A, row_scale, options);
    case SketchKind::sparse_sign: break;
  }
  return sparse_pass(A, row_scale, options, 0, options.rows);
}

MatrixXd sketch_panel(const RowMatrix& A, const VectorXd& row_scale, const SketchOptions& options, Index first,
                      Index count) {
  check(options);
  return sparse_pass(A, row_scale, options, first, count);
}

}  // namespace attnreg
