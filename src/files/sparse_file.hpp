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
#include "files/sparse_rows.hpp"

namespace attnreg {

/// Local. Whether the matrix with this name is sparse, by its file; throws `InvalidArgument` (this rank) if there is
/// none.
bool is_sparse(const std::string& path);

/// Local. Reads and checks the headers; throws `InvalidArgument` (this rank) with file, array, found, expected: not an
/// archive, truncated, arrays missing, an unknown format, types and shapes that do not fit. Indices are of i4 or i8.
SparseHeader read_sparse_header(const std::string& path);

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

/// Collective. The rows of a file that has them one after another: of csr its own, of csc its columns.
SparseRows read_compressed(const Communicator& communicator, SparseFile& file, StorageChoice storage);

/// Collective. The rows of a file that has them in any order, or its columns: each rank reads all places, and of the
/// values the blocks in which it has entries. The rows go to the ranks in even tiles.
SparseRows read_scattered(const Communicator& communicator, SparseFile& file, StorageChoice storage,
                          Orientation orientation);

}  // namespace attnreg
