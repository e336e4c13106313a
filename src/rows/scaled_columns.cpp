#include "rows/scaled_columns.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "errors/printable.hpp"
#include "kernels/csr_kernels.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

using Eigen::ArrayXd;

constexpr double kFarFromZero = 16;   // |mean| / deviation: nearer ones lose about a digit
constexpr double kLosesDigits = 1e6;  // likewise: what is left of a column after centring has its input's rounding
constexpr int kUnequal = 10;          // binary orders between columns that call for scaling
constexpr int kLargestExponent = 250, kSmallestExponent = -250;  // of columns whose Gram matrices are safe
constexpr double kTinySquares = 1e-280, kHugeSquares = 1e280;

/// This rank's columns about some centre.
struct Moments {
  ArrayXd sum, squares, largest, count;  // largest: |a|; count: of stored entries

  explicit Moments(Index d)
      : sum(ArrayXd::Zero(d)), squares(ArrayXd::Zero(d)), largest(ArrayXd::Zero(d)), count(ArrayXd::Zero(d)) {}
  Moments& operator+=(const Moments& other) {
    sum += other.sum, squares += other.squares, count += other.count;
    largest = largest.max(other.largest);
    return *this;
  }
  void add(Index j, double value, double centre, double unit) {
    const double moved = (value - centre) * unit;
    sum[j] += moved, squares[j] += moved * moved, count[j] += 1;
    largest[j] = std::max(largest[j], std::abs(value));
  }
};

/// Adds the columns from `first` on of some rows: few enough for their sums to stay in registers.
template <int columns>
void add_strip(const Eigen::Ref<const RowMajorMatrix>& rows, Index first, const ArrayXd& centre, const ArrayXd& unit,
               Moments& moments) {
  using Strip = Eigen::Array<double, columns, 1>;
  const Strip strip_centre = centre.segment<columns>(first), strip_unit = unit.segment<columns>(first);
  Strip sum = Strip::Zero(), squares = sum, largest = sum;
  for (Index i = 0; i < rows.rows(); ++i) {
    const Strip row = rows.row(i).template segment<columns>(first).transpose().array();
    const Strip moved = (row - strip_centre) * strip_unit;
    sum += moved;
    squares += moved.square();
    largest = largest.max(row.abs());
  }
  moments.sum.segment<columns>(first) += sum;
  moments.squares.segment<columns>(first) += squares;
  auto total_largest = moments.largest.segment<columns>(first);
  total_largest = total_largest.max(largest);
}

/// Of (a - centre) unit, this rank's rows; entries that are not stored are left out, and masked rows.
Moments moments_about(const RowMatrix& A, const LogitOffsets& offsets, const ArrayXd& centre, const ArrayXd& unit) {
  const Index d = A.columns();
  const auto& passes = A.passes();
  Moments total(d);
  if (passes.is_sparse()) {
    std::vector<Moments> parts(static_cast<std::size_t>(RowPasses::parts()), Moments(d));
    RowPasses::share(A.rows_local(), [&](int part, Index first, Index last) {
      kernels::with_block(*passes.sparse(), first, last - first, [&](const auto& block) {
        const auto add = [&](Index from, Index to) {  // rows
          for (auto k = block.offsets[from]; k < block.offsets[to]; ++k) {
            const Index j = block.indices[k];
            parts[static_cast<std::size_t>(part)].add(j, block.values[k], centre[j], unit[j]);
          }
        };
        if (!offsets.mask_rows()) return add(0, block.rows);
        for (Index i = 0; i < block.rows; ++i)
          if (!offsets.is_masked(first + i)) add(i, i + 1);
      });
    });
    for (const Moments& part : parts) total += part;
  } else {
    total = passes.pass(std::move(total), [&](const Tile& tile, Moments& part) {
      constexpr Index kRows = 32;  // that the nearest cache holds
      constexpr int kStrip = 8;
      const Index at_once = offsets.mask_rows() ? 1 : kRows;
      for (Index i = 0; i < tile.rows(); i += at_once) {
        if (offsets.is_masked(tile.first_local() + i)) continue;
        const auto block = tile.dense(i, std::min(at_once, tile.rows() - i));
        Index j = 0;
        for (; j + kStrip <= d; j += kStrip) add_strip<kStrip>(block, j, centre, unit, part);
        for (; j < d; ++j) add_strip<1>(block, j, centre, unit, part);
        part.count += static_cast<double>(block.rows());
      }
    });
    passes.count_reads(-1);
  }
  return total;
}

/// An entry of every column that this rank stores, not in a masked row, as the centre of its sums.
ArrayXd some_row(const RowMatrix& A, const LogitOffsets& offsets) {
  ArrayXd row = ArrayXd::Zero(A.columns());
  Index i = 0;
  while (i < A.rows_local() && offsets.is_masked(i)) ++i;
  if (i == A.rows_local()) return row;
  const CsrView* rows = A.passes().sparse();
  if (rows == nullptr) {
    const std::vector<Index> first{i};
    A.passes().visit_rows(first, [&](std::size_t, std::span<const double> values) {
      std::copy(values.begin(), values.end(), row.begin());
    });
  } else {
    kernels::with_block(*rows, 0, rows->rows(), [&](const auto& block) {
      for (Index last = block.rows; last-- > i;)
        if (!offsets.is_masked(last))
          for (auto k = block.offsets[last + 1]; k-- > block.offsets[last];) row[block.indices[k]] = block.values[k];
    });
  }
  return row;
}

int exponent_of(double value) { return value > 0 ? std::ilogb(value) : 0; }

std::string columns_text(const std::vector<Index>& columns) {
  constexpr std::size_t kNamed = 8;
  std::string text = columns.size() == 1 ? "column " : "columns ";
  for (std::size_t k = 0; k < std::min(columns.size(), kNamed); ++k)
    text += (k == 0 ? "" : ", ") + std::to_string(columns[k]);
  return columns.size() > kNamed ? text + " and " + std::to_string(columns.size() - kNamed) + " more" : text;
}

}  // namespace

ColumnStatistics column_statistics(const RowMatrix& A, const LogitOffsets& offsets) {
  const Index d = A.columns();
  const auto& communicator = A.communicator();
  double rows = static_cast<double>(A.rows_local()), n = static_cast<double>(A.rows_global());
  if (offsets.mask_rows()) {
    rows = offsets.without_masked(VectorXd::Ones(A.rows_local())).sum();
    n = communicator.sum(rows);
  }
  const ArrayXd centre = some_row(A, offsets);
  ArrayXd unit = ArrayXd::Ones(d);
  ColumnStatistics result{std::vector<int>(static_cast<std::size_t>(d), 0), {}, {}, {}};
  Moments moments = moments_about(A, offsets, centre, unit);
  VectorXd largest = moments.largest;
  communicator.max(span_of(largest));
  const auto safe = [&](Index j) {
    const double size = std::max(moments.squares[j], std::pow(moments.sum[j], 2));
    const bool ok = std::isfinite(size) && size < kHugeSquares && largest[j] < 1e140;
    return ok && (largest[j] == 0 || (moments.squares[j] == 0 ? largest[j] > 1e-140 : size > kTinySquares));
  };
  bool unsafe = false;
  for (Index j = 0; j < d; ++j) unsafe = unsafe || !safe(j);
  if (communicator.max(unsafe ? 1.0 : 0.0) > 0) {
    for (Index j = 0; j < d; ++j) {
      const int exponent = exponent_of(largest[j]);
      result.exponent[static_cast<std::size_t>(j)] = std::clamp(exponent, -1021, 1021);
      unit[j] = std::scalbn(1.0, -result.exponent[static_cast<std::size_t>(j)]);
    }
    moments = moments_about(A, offsets, centre, unit);
  }
  // This rank's means; entries that are not stored are -centre.
  const ArrayXd moved = centre * unit, missing = rows - moments.count;
  const ArrayXd sum = moments.sum - missing * moved, squares = moments.squares + missing * moved.square();
  const ArrayXd own_mean = rows > 0 ? ArrayXd(moved + sum / rows) : ArrayXd::Zero(d);
  const ArrayXd own_squares = rows > 0 ? ArrayXd((squares - sum.square() / rows).max(0.0)) : ArrayXd::Zero(d);
  // What deviates from this rank's own mean, and that from the mean of all.
  VectorXd message(2 * d);
  message << (own_mean * (rows / n)).matrix(), moments.count.matrix();
  communicator.sum(span_of(message));
  result.mean = message.head(d);
  for (Index j = 0; j < d; ++j) result.full.push_back(message[d + j] == n);
  // Ranks with equal means deviate by rounding only: that is no spread.
  const ArrayXd gap = own_mean - result.mean.array(), noise = 4e-16 * result.mean.array().abs();
  VectorXd spread = own_squares + rows * (gap.abs() > noise).select(gap.square(), 0.0);
  communicator.sum(span_of(spread));
  result.spread = spread.cwiseSqrt();
  for (Index j = 0; j < d; ++j)  // exactly
    if (spread[j] == 0)
      result.mean[j] =
          std::copysign(std::scalbn(largest[j], -result.exponent[static_cast<std::size_t>(j)]), result.mean[j]);
  return result;
}

ScaledColumns::ScaledColumns(RowMatrix A)
    : A_(std::move(A)),
      factor_(VectorXd::Ones(A_.columns())),
      offset_(VectorXd::Zero(A_.columns())),
      mean_(offset_),
      scale_(VectorXd::Ones(A_.columns())),
      inverse_scale_(scale_) {}

ScaledColumns::ScaledColumns(const RowMatrix& A, bool may_centre, LogitOffsets logit_offsets) : ScaledColumns(A) {
  logit_offsets_ = std::move(logit_offsets);
  const ColumnStatistics columns = column_statistics(A, logit_offsets_);
  const Index d = A.columns();
  const double root_n = std::sqrt(static_cast<double>(A.rows_global()));
  const VectorXd level = root_n * columns.mean.cwiseAbs();  // norm of the constant part
  std::vector<Index> constant, centred, lost;
  std::vector<int> order(static_cast<std::size_t>(d), 0);  // binary, of a typical entry
  int smallest = std::numeric_limits<int>::max(), largest = std::numeric_limits<int>::min();
  for (Index j = 0; j < d; ++j) {
    const auto k = static_cast<std::size_t>(j);
    const double spread = columns.spread[j];
    const bool far = columns.full[k] && level[j] > kFarFromZero * spread;
    if (far && may_centre) (spread > 0 ? centred : constant).push_back(j);
    if (level[j] > kLosesDigits * spread && spread > 0) lost.push_back(j);
    const bool sees_level = !may_centre || spread == 0;
    const double size = sees_level ? std::hypot(spread, level[j]) : spread;
    if (!(size > 0)) continue;
    scale_[j] = size;
    order[k] = std::ilogb(size / root_n) + columns.exponent[k];
    smallest = std::min(smallest, order[k]), largest = std::max(largest, order[k]);
  }
  const bool unequal = smallest <= largest &&
                       (largest - smallest > kUnequal || largest > kLargestExponent || smallest < kSmallestExponent);
  VectorXd centre = VectorXd::Zero(d);
  for (const auto* which : {&constant, &centred})
    for (const Index j : *which)
      centre[j] = std::scalbn(columns.mean[j], columns.exponent[static_cast<std::size_t>(j)]);
  for (Index j = 0; j < d; ++j) {
    const auto k = static_cast<std::size_t>(j);
    if (unequal) factor_[j] = std::scalbn(1.0, std::clamp(-order[k], -1021, 1021));
    offset_[j] = centre[j] * factor_[j];
    mean_[j] = (std::scalbn(columns.mean[j], columns.exponent[k]) - centre[j]) * factor_[j];
    scale_[j] = std::scalbn(scale_[j], columns.exponent[k]) * factor_[j];
    if (!(scale_[j] > 0)) scale_[j] = 1;
  }
  inverse_scale_ = scale_.cwiseInverse();
  if (is_centred() || is_scaled())
    A_ = RowMatrix(A.passes().transformed(std::make_shared<const ColumnTransform>(ColumnTransform{centre, factor_})));
  if (!constant.empty())
    notes_.push_back(columns_text(constant) + " of A " + (constant.size() == 1 ? "is" : "are") +
                     " constant: this loss does not see " + (constant.size() == 1 ? "it" : "them") +
                     ", only the weight w does");
  if (unequal)
    notes_.push_back("the columns of A differ in size by " +
                     text_of(std::scalbn(1.0, std::min(largest - smallest, 1023))) +
                     ": they are scaled by powers of two for the solve");
  if (!lost.empty())
    warnings_.push_back(columns_text(lost) + " of A " + (lost.size() == 1 ? "has a mean" : "have means") +
                        " of more than " + text_of(kLosesDigits) +
                        " times the spread: as many digits of x are lost in the rounding of the input" +
                        (may_centre ? "" : "; subtract the mean"));
}

RowPasses::RowNorms ScaledColumns::missing_row_norms() const {
  if (row_norms_->size() == A_.rows_local()) return {};
  return {&inverse_scale_, row_norms_.get()};
}

const VectorXd& ScaledColumns::row_norms() const {
  if (row_norms_->size() != A_.rows_local()) *row_norms_ = A_.passes().row_norms(inverse_scale_);
  return *row_norms_;
}

}  // namespace attnreg
