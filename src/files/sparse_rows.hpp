#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attnreg/files.hpp"
#include "files/element_type.hpp"

namespace attnreg {

/// What the headers in a sparse matrix file say, as `scipy.sparse.save_npz` writes it: arrays in a .npz archive, each
/// stored or deflated. All formats have data, shape and format; csr and csc indices and indptr, coo row and col, bsr
/// the same as csr for blocks, dia offsets.
struct SparseHeader {
  std::string path;
  std::string format = "csr";
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t nonzeros = 0;                ///< entries in the file, with zeros that are stored
  ElementType element;                      ///< of the values; any numbers but bfloat16
  Storage type = Storage::float64;          ///< in which they are held unless the user wants another
  bool deflated = false;                    ///< some array is; then no rank can start in the middle of it
  std::int64_t bytes = 0, modified_ns = 0;  ///< of the file
};

/// This rank's rows of a sparse matrix.
struct SparseRows {
  RowPartition partition;
  CsrRows rows;
};

/// Collective. Whether the values are held in float, else in double. `InvalidArgument` on all ranks for other types.
bool is_held_as_float(const SparseHeader& header, StorageChoice storage);

/// Which rows of a matrix in a file are wanted: its own, or its columns.
enum class Orientation { as_file, transposed };

/// How to make a file that is read.
inline constexpr const char* how_to_save = "; save it with scipy.sparse.save_npz('A.npz', A.tocsr())";

/// Local. Throws `InvalidArgument` (this rank): a value is not finite, as so many are not.
[[noreturn]] void refuse_value_at(const std::string& path, std::int64_t row, std::int64_t column, double value,
                                  std::int64_t count);

/// Collective. Sorts this rank's rows, the first of which is `first_row`, and sums the entries of one column. Throws
/// on all ranks where a sum is not finite. transposed: the rows are columns of the matrix.
void sum_duplicates(const Communicator& communicator, const std::string& path, std::int64_t first_row, CsrRows& rows,
                    bool transposed);

/// Some entries of a matrix, in any order.
struct SparseEntries {
  std::vector<Index> rows;  ///< from this rank's first one on
  std::vector<std::int32_t> columns;
  std::vector<double> values;  ///< as they are in the file
};

/// Collective. `require_memory` for what reading entries of the rows, in any order, and `rows_of_entries` take: an
/// entry of the file is there `copies` times.
void require_room_for_entries(const Communicator& communicator, const SparseHeader& header,
                              const RowPartition& partition, double copies, double more_bytes = 0);

/// Collective. This rank's rows made of their entries, those of one place summed. Throws on all ranks where a value is
/// not finite, or float does not have it.
CsrRows rows_of_entries(const Communicator& communicator, const SparseHeader& header, const RowPartition& partition,
                        Orientation orientation, const SparseEntries& entries, bool single);

/// Collective. Refuses a matrix of so many columns, or transposed rows, that no index has room for them.
void require_indices(const SparseHeader& header, Orientation orientation);

/// Local. The row that has an entry, both counted from this rank's first.
std::int64_t row_of(const CsrRows& rows, std::int64_t entry);

/// "shape (10, 3) with 7 entries of f8"
std::string sparse_summary(const SparseHeader& header);

}  // namespace attnreg
