#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <string>

#include "attnreg/row_partition.hpp"

namespace attnreg {

/// 0 and 1 (False and True), queries x keys.
using MaskRows = Eigen::Matrix<std::uint8_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Collective. Loads this rank's rows of a mask; each rank reads its own. Failures as for `load_matrix_rows`, and for
/// any other number, with row, column and value.
MaskRows load_mask_rows(const Communicator& communicator, const std::string& path, const std::string& role,
                        const RowPartition& partition, std::int64_t columns);

}  // namespace attnreg
