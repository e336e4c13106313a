#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "attnreg/communicator.hpp"
#include "attnreg/row_storage.hpp"
#include "attnreg/row_matrix.hpp"
#include "attnreg/row_partition.hpp"

namespace attnreg {

class SharedArray;

/// The header of a NumPy .npy file (format versions 1 to 3), checked against the size of the file.
struct NpyHeader {
  std::string path;
  Storage type = Storage::float64;  ///< f4 or f8; every other dtype is refused
  bool big_endian = false;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;  ///< 1 or 2 extents for all that attnreg reads
  std::int64_t data_offset = 0;     ///< bytes before the first element
  std::int64_t file_bytes = 0;      ///< size and time of modification when the header was read;
  std::int64_t modified_ns = 0;     ///< a later change is an error
  int version_major = 1;

  std::int64_t elements() const;
  std::int64_t columns() const { return shape.size() > 1 ? shape[1] : 1; }  ///< of a matrix; a vector is one column
  std::string shape_text() const;  ///< as NumPy prints it, "(65901, 100)" or "(7,)"
  std::string dtype_text() const;  ///< "<f8"
};

/// Local. Reads and checks the header; throws `InvalidArgument` (this rank) with file, place, found, expected: not a
/// .npy file, truncated header, header over 64 KiB, unknown dtype, shape that overflows, file size that does not fit.
NpyHeader read_npy_header(const std::string& path);

/// Local. Reads rows [first, first + rows) of a 1-d or 2-d file into `out` (row-major, rows x columns), converting
/// type and byte order; only those bytes are read (pread). Throws `InvalidArgument` (this rank) on a short read and if
/// the file has changed since its header was read.
void read_npy_rows(const NpyHeader& header, std::int64_t first, std::int64_t rows, std::span<double> out);
void read_npy_rows(const NpyHeader& header, std::int64_t first, std::int64_t rows, std::span<float> out);

/// Local. Writes a C-order little-endian file: to a temporary file beside `path`, fsync, rename, so that an older file
/// is replaced whole or not at all. `shape` has 1 or 2 extents. Throws `OutputError` (this rank).
void write_npy(const std::string& path, std::span<const double> values, const std::vector<std::int64_t>& shape);

/// Collective. A .npy file that all ranks write at once, C order, little endian, visible under its name only after
/// `commit`. Same bytes for any number of ranks. The directory must be shared by all nodes. Constructor and `commit`
/// agree on errors and throw `OutputError` on all ranks.
class NpyWriter {
 public:
  NpyWriter(const Communicator& communicator, std::string path, Storage type, std::vector<std::int64_t> shape);
  ~NpyWriter();  ///< without `commit`: the temporary file is removed
  NpyWriter(const NpyWriter&) = delete;
  NpyWriter& operator=(const NpyWriter&) = delete;

  /// Local. Writes row-major rows from global row `first`; float32 files round each value once. An error is kept for
  /// `commit`.
  void write_rows(std::int64_t first, std::span<const double> rows) noexcept;
  /// Collective. fsync, agreement, rename; an error if the ranks together did not write as many rows as `shape` has.
  void commit();

 private:
  Storage type_;
  std::int64_t rows_ = 0, columns_ = 0;
  std::unique_ptr<SharedArray> file_;
};

/// Collective. Writes such a file at once: `rows` are this rank's, of which the first is global row `first`.
void write_npy(const Communicator& communicator, const std::string& path, const std::vector<std::int64_t>& shape,
               std::int64_t first, std::span<const double> rows);

/// How the matrix is held in memory.
enum class StorageChoice { as_file, float64, float32 };

/// Collective. Loads a matrix: a sparse one as `load_csr` does if `is_npz(path)`, else a dense one as follows.
///
/// Loads an n x d .npy matrix (an n-vector counts as n x 1) by rows: each rank reads its own rows, in tiles
/// spread evenly. Checks that all values are finite (message: file, row, column, value, how many) and that the rows
/// fit in the node's memory before reading (`OutOfMemory` with the figures). Throws on all ranks together.
RowMatrix load_matrix(const Communicator& communicator, const std::string& path, StorageChoice storage);

/// Collective. Loads the transpose of an n x d matrix, d x n: its columns as rows, for d >> n. A sparse one as
/// `load_csr_transpose` does. Of a dense one each rank reads its columns only, n contiguous pieces of a file in C order
/// and one of a file in Fortran order. Otherwise like `load_matrix`; a vector is refused.
RowMatrix load_transpose(const Communicator& communicator, const std::string& path, StorageChoice storage);

/// Collective. Loads this rank's rows of a dense matrix in double; each rank reads its own. The shape must be that of
/// the partition and `columns` (an n-vector counts as n x 1), all values finite; `role` ("target") names the matrix in
/// messages. Throws on all ranks together.
RowMajorMatrix load_matrix_rows(const Communicator& communicator, const std::string& path, const std::string& role,
                                const RowPartition& partition, std::int64_t columns);
/// Collective. Loads a dense matrix of any shape on every rank: rank 0 reads, one broadcast. All values must be finite.
RowMajorMatrix load_replicated_matrix(const Communicator& communicator, const std::string& path);

/// Collective. Loads this rank's part of a vector with one value per row of A, shape (n,) or (n, 1); `role` ("b")
/// names it in messages. All values must be finite. Throws on all ranks together.
Eigen::VectorXd load_rows_vector(const Communicator& communicator, const std::string& path, const std::string& role,
                                 const RowPartition& partition);

/// Collective. Loads a vector of `size` values on every rank (x). Rank 0 reads.
Eigen::VectorXd load_vector(const Communicator& communicator, const std::string& path, const std::string& role,
                            std::int64_t size);

/// What the headers in a sparse matrix file say, as `scipy.sparse.save_npz` writes it for a CSR matrix: the arrays
/// data, indices, indptr, shape and format in a .npz archive, each stored or deflated.
struct NpzHeader {
  std::string path;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t nonzeros = 0;        ///< entries in the file
  Storage type = Storage::float64;  ///< of the values; f4 or f8, either byte order
  bool deflated = false;            ///< some array is; then no rank can start in the middle of it
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
