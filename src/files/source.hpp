#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "attnreg/row_partition.hpp"
#include "files/source_layout.hpp"

namespace attnreg {

/// Local. Reads and checks the header; throws `InvalidArgument` (this rank) with file, place, found, expected: another
/// format, damaged, an array that is not there (with those that are), a part that is not there, elements that are no
/// numbers (with the conversion), sizes that do not fit.
Source open_source(const std::string& path);

/// Local. Throws `InvalidArgument` (this rank) unless it has one axis or two, and at least one row and one column.
void require_matrix(const Source& header);

/// Local. Which rows each rank reads where they are not kept: even shares, of a pipe rank 0 all.
RowPartition reading_partition(const Source& source, std::int64_t rows, int ranks);

/// Reads rows of a source whose file it keeps open: of a deflated array a later range costs no more than what lies
/// between. Everything is local and throws `InvalidArgument` (this rank).
class RowReader {
 public:
  explicit RowReader(const Source& source);

  /// Rows [first, first + rows) of an array of one or two axes into `out` (row-major, rows x columns). Type and byte
  /// order are converted; in C order only those bytes are read. Throws on a short read and if the file has changed
  /// since its header was read.
  template <class Scalar>  // double, float, Eigen::half or Eigen::bfloat16
  void read(std::int64_t first, std::int64_t rows, std::span<Scalar> out);

 private:
  template <class Scalar>
  void read_shards(std::int64_t first, std::int64_t rows, std::span<Scalar> out);
  template <class Scalar>
  void read_beside(std::int64_t first, std::int64_t rows, std::span<Scalar> out);
  RowReader& open_shard(std::size_t k);
  template <class Scalar>
  void read_columns(std::int64_t first, std::int64_t rows, std::span<Scalar> out);
  /// Elements at, at + step, ... of the array.
  template <class Scalar>
  void read_run(std::int64_t at, std::int64_t step, std::span<Scalar> out);

  Source source_;
  std::unique_ptr<ArrayBytes> bytes_;
  std::unique_ptr<RowReader> shard_;  ///< that was read last
  std::size_t shard_number_ = 0;
};

/// Local. The same from a file that is opened for it.
template <class Scalar>
void read_rows(const Source& source, std::int64_t first, std::int64_t rows, std::span<Scalar> out) {
  if (!out.empty() || rows != 0) RowReader(source).read(first, rows, out);
}

/// Local. Whether rows lie one behind the other in files where any of them is found at once: blocks of rows may then be
/// read in any order, by several readers at a time, as fast as all rows in one go.
bool reads_in_blocks(const Source& source);

/// Local. What is read of a file for so many of its rows, about.
double bytes_of_rows(const Source& source, std::int64_t rows);

}  // namespace attnreg
