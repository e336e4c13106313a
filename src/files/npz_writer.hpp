#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attnreg/row_storage.hpp"
#include "files/output_file.hpp"

namespace attnreg {

/// Collective. A .npz archive of stored arrays that all ranks write at once: the places of all bytes follow from the
/// shapes, each rank sums up its own, and the checksums are joined at the end. zip64 throughout, as NumPy writes it,
/// with the time 1980-01-01: same bytes for any number of ranks. Visible under its name only after `commit`.
class NpzWriter {
 public:
  NpzWriter(const Communicator& communicator, const std::string& path, std::vector<ArrayFormat> arrays);

  /// Local. Little-endian data of an array from a byte of the data on. Each rank writes one contiguous part of an
  /// array, in pieces of any order, and parts follow each other in rank order. An error is kept for `commit`.
  void write(std::size_t array, std::int64_t offset, std::string_view bytes) noexcept;

  /// Collective. Headers and directory, fsync, agreement, rename. Messages: three numbers per array and rank.
  void commit();

 private:
  struct Piece {
    std::int64_t offset, bytes;
    std::uint32_t checksum;
  };
  struct Member {
    ArrayFormat array;
    std::int64_t offset;  ///< of the local header in the file
    std::string npy_header;
    std::vector<Piece> pieces;

    std::string local_header(std::uint32_t checksum) const;
    std::string directory_entry(std::uint32_t checksum) const;
    std::int64_t bytes() const;  ///< of the .npy file
    std::int64_t data_offset() const;
  };

  static std::vector<Member> members_of(std::vector<ArrayFormat> arrays);
  std::int64_t directory_offset() const;
  std::string directory(const std::vector<std::uint32_t>& checksums) const;
  /// Collective. Replicated.
  std::uint32_t checksum_of(Member& member);

  Communicator communicator_;
  std::vector<Member> members_;
  SharedFile file_;
};

/// The arrays of a sparse matrix as `scipy.sparse.save_npz` writes them: indices, indptr, data, format and shape, of a
/// compressed matrix (csr, or csc for its transpose) of so many rows and entries.
enum SparseArray : std::size_t { indices_array, indptr_array, data_array, format_array, shape_array };
std::vector<ArrayFormat> sparse_arrays(std::int64_t compressed_rows, std::int64_t entries, Storage type);

/// Collective. Rank 0 writes format ("csr") and shape of the matrix, the last two of these arrays; then `commit`.
void commit_sparse(NpzWriter& archive, const Communicator& communicator, std::string_view format, std::int64_t rows,
                   std::int64_t columns);

/// Collective. Writes a sparse matrix: this rank's rows, from `first_row` of `rows_global` on, as "csr"; as "csc",
/// where they are the columns of the matrix. Values as they are held. Messages: 8 P bytes, and those of `commit`.
void write_sparse(const Communicator& communicator, const std::string& path, std::string_view format,
                  std::int64_t first_row, std::int64_t rows_global, CsrRows rows);

}  // namespace attnreg
