#pragma once

#include <cstdint>
#include <string>

#include "attnreg/files.hpp"

namespace attnreg {

/// What the headers in a sparse matrix file say, as `scipy.sparse.save_npz` writes it for a CSR matrix: the arrays
/// data, indices, indptr, shape and format in a .npz archive, each stored or deflated.
struct NpzHeader {
  std::string path;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t nonzeros = 0;        ///< entries in the file
  Storage type = Storage::float64;  ///< of the values; f4 or f8, either byte order
  bool deflated = false;            ///< some array is; then no rank can start in the middle of it
  std::int64_t file_bytes = 0;
  std::int64_t modified_ns = 0;
};

/// Local. Whether a file is to be read as an archive: its name ends with ".npz", or it begins as an archive does.
bool is_npz(const std::string& path);

/// Local. Reads and checks the headers; throws `InvalidArgument` (this rank) with file, array, found, expected: not an
/// archive, truncated, arrays missing, another format than csr, types and shapes that do not fit. indptr and indices
/// are of i4 or i8.
NpzHeader read_npz_header(const std::string& path);

/// This rank's rows of a sparse matrix.
struct SparseRows {
  RowPartition partition;
  CsrRows rows;
};

/// Collective. Loads a sparse matrix by rows. Rows go to the ranks in contiguous ranges with about equal numbers of
/// entries: rank k starts with the first row before which there are at least k / P of all entries, so that no rank has
/// more than nonzeros / P and one row. Some ranks may have no rows.
///
/// Each rank reads its part of the file alone; of deflated arrays it decompresses all before its part as well. Checks:
/// indptr from 0 to the number of entries, not decreasing; columns in range; finite values (message: file, row, column,
/// value, how many); and, before reading, that the rows fit in the node's memory (`OutOfMemory` with the figures).
/// Columns of a row may come in any order and more than once: rows are sorted, and such entries summed. Throws on all
/// ranks together. Messages: 8 P bytes.
SparseRows load_csr(const Communicator& communicator, const std::string& path, StorageChoice storage);

/// Collective. Loads the transpose of a sparse n x d matrix: its columns as rows, d x n. Also reads the format csc, the
/// arrays of which are those of the transpose in CSR: as `load_csr`, each rank its part alone. Of a CSR file, each rank
/// reads all of indptr and indices, and of the values those blocks in which it has entries; the columns go to the ranks
/// in even tiles, and d is below 2^31. Checks and failures as for `load_csr`; no messages but agreements.
SparseRows load_csr_transpose(const Communicator& communicator, const std::string& path, StorageChoice storage);

}  // namespace attnreg
