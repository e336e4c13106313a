#pragma once

#include <Eigen/Core>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "attnreg/row_partition.hpp"

namespace attnreg {

/// The type in which the rows of a matrix are held; sparse ones as float32 or float64. Sums are always in double.
enum class Storage {
  float32,
  float64,
  float16,   ///< 11 bits, up to 65504; below 6e-5 fewer bits: IEEE 754's binary16, NumPy's float16
  bfloat16,  ///< 8 bits, in the range of float32: its upper half
};

/// Local. Bytes of a number, and the type's name for `--storage`: "double", "float", "half", "bfloat16".
std::int64_t item_bytes(Storage type);
std::string_view option_name(Storage type);

using RowMajorMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using RowMajorMatrixFloat = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using RowMajorMatrixHalf = Eigen::Matrix<Eigen::half, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using RowMajorMatrixBfloat16 = Eigen::Matrix<Eigen::bfloat16, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Sparse rows of one rank in compressed form (CSR): the entries of row i are those at positions
/// [offsets[i], offsets[i + 1]) of `indices` and of the values.
///
/// Rows may be empty. Within a row the columns increase strictly: `sort_rows` brings rows into this form, `check_rows`
/// looks whether they have it.
struct CsrRows {
  Index columns = 0;                     ///< d, below 2^31
  std::vector<std::int64_t> offsets{0};  ///< rows + 1 values, from 0 to the number of entries, not decreasing
  std::vector<std::int32_t> indices;     ///< column of each entry, 0 to d - 1
  std::vector<double> values;            ///< value of each entry
  std::vector<float> singles;            ///< with `is_single`: the values as float, in place of `values`
  bool is_single = false;                ///< the same on all ranks

  Index rows() const { return static_cast<Index>(offsets.size()) - 1; }
  std::int64_t entries() const { return offsets.back(); }
};

/// Such rows in memory of the caller's, or those of a `CsrRows`: the same meaning, nothing owned.
struct CsrView {
  Index columns = 0;
  std::span<const std::int64_t> offsets;
  std::span<const std::int32_t> indices;
  std::span<const double> values;
  std::span<const float> singles;
  bool is_single = false;

  CsrView() = default;
  CsrView(const CsrRows& rows)
      : columns(rows.columns),
        offsets(rows.offsets),
        indices(rows.indices),
        values(rows.values),
        singles(rows.singles),
        is_single(rows.is_single) {}

  Index rows() const { return static_cast<Index>(offsets.size()) - 1; }
  std::int64_t entries() const { return offsets.back(); }
};

/// Local. Sorts each row by column and sums entries of the same column, floats in float. The columns must be in range.
/// Rows that are sorted already cost one read of the columns.
void sort_rows(CsrRows& rows);

/// Local. Throws `InvalidArgument` (this rank), with row and position, unless the rows are as described above.
void check_rows(const CsrView& rows);

}  // namespace attnreg
