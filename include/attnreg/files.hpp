#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "attnreg/communicator.hpp"
#include "attnreg/row_matrix.hpp"
#include "attnreg/row_partition.hpp"
#include "attnreg/row_storage.hpp"

namespace attnreg {

class SharedArray;

// Matrices and vectors in files; `path` is PATH[:NAME][INDEX], "F.npy[3]", "data.npz:A", "A.*.npy": docs/data.md.

/// The type in which a matrix is held; `as_file`: that of the file, of integers float or double. Half: dense ones.
enum class StorageChoice { as_file, float64, float32, float16, bfloat16 };

/// Collective. Loads A by rows; each rank reads its own rows and no others. All values must be finite, and before they
/// are read the rows must fit in the memory that the node still has. No messages but agreements, and 8 bytes for each
/// rank for sparse files.
///
/// - Dense, of f2, f4, f8, bfloat16, i1 to i8, u1 to u8 or bool in either byte order, in C or Fortran order: n x d, or
///   a vector of n values as n x 1. The rows go to the ranks by `RowPartition::tiled`.
/// - Sparse, an archive as `scipy.sparse.save_npz` writes it: format csr, csc, coo, bsr or dia, arrays stored or
///   deflated; of a deflated array a rank decompresses all that comes before its part. Of csr rank k begins with the
///   first row before which there are at least k / P of all entries, so that no rank has more than its share of the
///   entries and one row; a rank may have no rows. Of the others each rank reads all places, and the rows go to the
///   ranks in even tiles. Within a row the columns may come in any order, and entries of one column are summed.
///
/// Numbers that the type does not have are rounded to the nearest that it has.
///
/// `InvalidArgument` on all ranks says file, place, found and expected: a file that is damaged, of another type or
/// shape, or that changed while it was read; columns out of range; values that are not finite, or that the type cannot
/// hold (row, column, value, how many); a column rounded to float16 that is not 0 and has no value of 2^-14 = 6e-5 or
/// more, where its digits begin to be lost; float16 or bfloat16 for a sparse matrix. `OutOfMemory` on all ranks has the
/// bytes needed and the bytes there.
RowMatrix load_matrix(const Communicator& communicator, const std::string& path, StorageChoice storage);

/// Collective. Loads the transpose of an n x d matrix, d x n: its columns as rows, for d >> n. Each rank reads its
/// columns. Dense: n contiguous pieces of a file in C order, one of a file in Fortran order; a vector is refused.
/// Sparse: the format csc as `load_matrix` reads csr, and csr as it reads csc: each rank reads all places, and of
/// the values the blocks in which it has entries; the columns go to the ranks in even tiles. n is below 2^31.
/// Failures as for `load_matrix`.
RowMatrix load_transpose(const Communicator& communicator, const std::string& path, StorageChoice storage);

/// Collective. Loads this rank's rows of a dense matrix in double, or in float; each rank reads its own. The shape must
/// be that of the partition and `columns`; a vector of n values counts as n x 1. `role`, such as "target", names the
/// matrix in messages. Failures as for `load_matrix`.
template <class Scalar = double>
Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> load_matrix_rows(
    const Communicator& communicator, const std::string& path, const std::string& role, const RowPartition& partition,
    std::int64_t columns);

/// Collective. Loads a dense matrix of any shape on every rank: rank 0 reads, one broadcast. Failures as for
/// `load_matrix`.
RowMajorMatrix load_replicated_matrix(const Communicator& communicator, const std::string& path);

/// Collective. Loads this rank's part of a vector with one value per row of A, shape (n,) or (n, 1). `role`, such as
/// "b", names it in messages. Failures as for `load_matrix`.
Eigen::VectorXd load_rows_vector(const Communicator& communicator, const std::string& path, const std::string& role,
                                 const RowPartition& partition);

/// Collective. Likewise offsets of logits, of which -infinity is one: it masks a row.
Eigen::VectorXd load_offset(const Communicator& communicator, const std::string& path, const RowPartition& partition);

/// Collective. Loads a vector of `size` values, such as x, on every rank: rank 0 reads, one broadcast. Failures as for
/// `load_matrix`.
Eigen::VectorXd load_vector(const Communicator& communicator, const std::string& path, const std::string& role,
                            std::int64_t size);

/// Local. Writes a C-order little-endian file, first to a temporary file beside `path`, then fsync and rename: an older
/// file is replaced whole or not at all. `shape` has 1 to 3 extents. `OutputError` (this rank) if it cannot.
void write_npy(const std::string& path, std::span<const double> values, const std::vector<std::int64_t>& shape);

/// A .npy file that all ranks write at once, C order, little endian: the same bytes for any number of ranks. It gets
/// its name only by `commit`. All nodes must see the directory. Constructor and `commit` are collective, agree on
/// errors and throw `OutputError` on all ranks.
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

}  // namespace attnreg
