#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "attnreg/communicator.hpp"
#include "attnreg/row_partition.hpp"
#include "attnreg/row_storage.hpp"

namespace attnreg {

/// An array with three axes, n1 x n2 x n3, spread over the ranks by its first one.
struct SlicedTensor {
  std::array<std::int64_t, 3> sides;
  RowPartition slices;
  RowMajorMatrix entries;  ///< this rank's slices, a row each: element (a, b, c) in column b n3 + c
};

/// Collective. Loads it in double, from any file that can hold such an array; a pipe cannot. Each rank reads its
/// slices. All values must be finite. No messages but agreements. Failures as for `load_matrix`.
SlicedTensor load_tensor(const Communicator& communicator, const std::string& path);

}  // namespace attnreg
