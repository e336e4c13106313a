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

/// Collective. Whether the values are held in float, else in double. `InvalidArgument` on all ranks for other types.
bool is_held_as_float(const NpzHeader& header, StorageChoice storage);

/// Collective. The sparse part of `load_matrix` and of `load_transpose`. Messages: 8 P bytes; the second none.
SparseRows load_csr(const Communicator& communicator, const std::string& path, StorageChoice storage);
SparseRows load_csr_transpose(const Communicator& communicator, const std::string& path, StorageChoice storage);

/// The archive of a compressed sparse matrix with its three long arrays. The extents in the header are those of the
/// compressed matrix: by rows (csr) those of the matrix, by columns (csc) those of its transpose, whose CSR form has
/// the same arrays. Local; throws `InvalidArgument` (this rank).
class CsrFile {
 public:
  enum class Formats { csr, csr_or_csc };
  CsrFile(const std::string& path, Formats formats);
  CsrFile(const CsrFile&) = delete;  // its members point to its archive
  CsrFile& operator=(const CsrFile&) = delete;

  const NpzHeader& header() const { return header_; }
  bool by_columns() const { return by_columns_; }
  NpzMember& indptr() { return *indptr_; }
  NpzMember& indices() { return *indices_; }
  NpzMember& data() { return *data_; }
  void check_unchanged() const { archive_.check_unchanged(); }

  /// Throws for an entry of the compressed matrix: its column is out of range, or its value is not finite, as so many
  /// are not.
  [[noreturn]] void refuse_column(std::int64_t row, std::int64_t column) const;
  [[noreturn]] void refuse_value_at(std::int64_t row, std::int64_t column, double value, std::int64_t count) const;
  /// The same for entries of one place that are summed, if their sum is not finite.
  [[noreturn]] void refuse_sum_at(std::int64_t row, std::int64_t column, double sum, std::int64_t count) const;
  std::string summary() const;  ///< "shape (10, 3) with 7 entries of f8"

 private:
  void read_format(Formats formats);
  void read_shape();

  NpzArchive archive_;
  NpzHeader header_;
  bool by_columns_ = false;
  std::optional<NpzMember> indptr_, indices_, data_;
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
/// on all ranks where a sum is not finite. transposed: the rows are columns of the compressed matrix.
void sum_duplicates(const Communicator& communicator, const CsrFile& file, std::int64_t first_row, CsrRows& rows,
                    bool transposed);

/// Collective.
std::unique_ptr<CsrFile> open_csr_file(const Communicator& communicator, const std::string& path,
                                       CsrFile::Formats formats);

/// Collective. `load_csr` of an open file: the rows of the compressed matrix.
SparseRows read_compressed(const Communicator& communicator, CsrFile& file, StorageChoice storage);

}  // namespace attnreg
