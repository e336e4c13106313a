#pragma once

#include <cstdint>

#include "attnreg/apply_attention.hpp"

namespace attnreg {

/// Local. Replaces the rows of inner products q_i . k_j by rows of P. `first_row` is the number of the first row in
/// messages. `InvalidArgument` (this rank), as `apply_attention`.
void normalise_attention(const AttentionKernel& kernel, std::int64_t first_row, RowMajorMatrix& products);

}  // namespace attnreg
