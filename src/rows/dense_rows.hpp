#pragma once

#include <cstdint>

#include "attnreg/row_matrix.hpp"

namespace attnreg {

/// Local. The local rows [first, first + count) in double: count x columns. Not counted as a read.
RowMajorMatrix dense_rows(const RowMatrix& matrix, Index first_local, Index count);

/// Local. The same of the global rows [first, first + count), those of other ranks zero; each times its `scale`, one
/// number per local row, unless that is empty.
RowMajorMatrix rows_in_place(const RowMatrix& matrix, std::int64_t first, Index count,
                             const Eigen::VectorXd& scale = {});

/// Collective. The global rows [first, first + count) on every rank, whoever has them. One all-reduce of 8 count
/// columns bytes; exact, as each number comes from one rank.
RowMajorMatrix shared_rows(const RowMatrix& matrix, std::int64_t first, Index count);

/// Local. The numbers other than 0 of dense rows.
CsrRows sparse_rows(const RowMajorMatrix& dense);

}  // namespace attnreg
