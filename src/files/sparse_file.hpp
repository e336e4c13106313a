#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "attnreg/files.hpp"
#include "files/npz_archive.hpp"

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

/// Local. Whether the matrix with this name is sparse, by its file; throws `InvalidArgument` (this rank) if there is
/// none.
bool is_sparse(const std::string& path);

/// Local. Reads and checks the headers; throws `InvalidArgument` (this rank) with file, array, found, expected: not an
/// archive, truncated, arrays missing, an unknown format, types and shapes that do not fit. Indices are of i4 or i8.
SparseHeader read_sparse_header(const std::string& path);

/// This rank's rows of a sparse matrix.
struct SparseRows {
  RowPartition partition;
  CsrRows rows;
};

/// Collective. Whether the values are held in float, else in double. `InvalidArgument` on all ranks for other types.
bool is_held_as_float(const SparseHeader& header, StorageChoice storage);

/// Which rows of a matrix in a file are wanted: its own, or its columns.
enum class Orientation { as_file, transposed };

/// Collective. The sparse part of `load_matrix` and of `load_transpose`. Messages: 8 P bytes for csr (or csc,
/// transposed); else none.
SparseRows load_sparse(const Communicator& communicator, const std::string& path, StorageChoice storage,
                       Orientation orientation = Orientation::as_file);

/// The archive of a sparse matrix with its long arrays. Local; throws `InvalidArgument` (this rank).
class SparseFile {
 public:
  explicit SparseFile(const std::string& path);
  SparseFile(const SparseFile&) = delete;  // its members point to its archive
  SparseFile& operator=(const SparseFile&) = delete;

  const SparseHeader& header() const { return header_; }
  bool by_columns() const { return header_.format == "csc"; }
  bool is_compressed() const { return header_.format == "csr" || by_columns(); }

  // Of csr and csc. By rows (csr) the extents are those of the matrix, by columns (csc) those of its transpose, whose
  // CSR form has the same arrays.
  std::int64_t compressed_rows() const { return by_columns() ? header_.columns : header_.rows; }
  std::int64_t compressed_columns() const { return by_columns() ? header_.rows : header_.columns; }

  NpzMember& data() { return *data_; }
  NpzMember& indptr() { return *first_; }  ///< csr, csc, bsr
  NpzMember& indices() { return *second_; }
  NpzMember& row() { return *first_; }  ///< coo
  NpzMember& column() { return *second_; }
  NpzMember& offsets() { return *first_; }                              ///< dia
  std::int64_t block_rows() const { return data_->header().shape[1]; }  ///< bsr
  std::int64_t block_columns() const { return data_->header().shape[2]; }

  void check_unchanged() const { archive_.check_unchanged(); }

  /// Throws unless indptr goes from 0 to the number of entries (of bsr: of blocks) and does not decrease.
  void check_indptr(const std::vector<std::int64_t>& indptr, std::int64_t entries) const;
  /// Throws for an entry that lies in no row or no column of the matrix.
  [[noreturn]] void refuse_place(std::int64_t row, std::int64_t column) const;
  /// Throws: a value is not finite, as so many are not.
  [[noreturn]] void refuse_value_at(std::int64_t row, std::int64_t column, double value, std::int64_t count) const;
  /// The same for entries of one place that are summed, if their sum is not finite.
  [[noreturn]] void refuse_sum_at(std::int64_t row, std::int64_t column, double sum, std::int64_t count) const;
  std::string summary() const;  ///< "shape (10, 3) with 7 entries of f8"

 private:
  void read_format();
  void read_shape();
  void check_compressed();
  void check_blocks();
  void check_diagonals();

  NpzArchive archive_;
  SparseHeader header_;
  std::optional<NpzMember> first_, second_, data_;
};

/// Local. Reads elements [first, end) of an array of integers, some at a time: `visit(position of the first, part)`.
template <class Visit>
void read_in_parts(NpzMember& member, std::int64_t first, std::int64_t end, Visit&& visit) {
  constexpr std::int64_t entries_per_read = std::int64_t{1} << 17;
  std::vector<std::int64_t> part;
  for (; first < end; first += entries_per_read) {
    part.resize(static_cast<std::size_t>(std::min(entries_per_read, end - first)));
    member.read(first, std::span(part));
    visit(first, std::as_const(part));
  }
}

/// How to make a file that is read.
inline constexpr const char* how_to_save = "; save it with scipy.sparse.save_npz('A.npz', A.tocsr())";

/// Collective. Sorts this rank's rows, the first of which is `first_row`, and sums the entries of one column. Throws
/// on all ranks where a sum is not finite. transposed: the rows are columns of the matrix.
void sum_duplicates(const Communicator& communicator, const SparseFile& file, std::int64_t first_row, CsrRows& rows,
                    bool transposed);

/// Collective. The rows of a file that has them one after another: of csr its own, of csc its columns.
SparseRows read_compressed(const Communicator& communicator, SparseFile& file, StorageChoice storage);

/// Collective. The rows of a file that has them in any order, or its columns: each rank reads all places, and of the
/// values the blocks in which it has entries. The rows go to the ranks in even tiles.
SparseRows read_scattered(const Communicator& communicator, SparseFile& file, StorageChoice storage,
                          Orientation orientation);

}  // namespace attnreg
