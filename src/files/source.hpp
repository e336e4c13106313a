#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "files/npy_header.hpp"

namespace attnreg {

/// A dense array of numbers that a name, `PATH[:NAME][INDEX]`, stands for: what is in it, and where its elements lie.
/// A .npy file; an array in a .npz archive; a tensor in a .safetensors file; several files with rows (`shards_of`).
///
/// The element in row i and column j of a matrix is element `first + i row_step + j column_step` of the whole array.
struct Source : ArrayHeader {
  enum class Format { npy, npz, safetensors, shards };

  std::string file;    ///< what is opened, "data.npz"; of shards the pattern
  std::string member;  ///< the array in it, "keys"
  Format format = Format::npy;
  Storage type = Storage::float64;  ///< in which the numbers are held unless the user wants another
  std::int64_t modified_ns = 0;     ///< when the header was read; a later change is an error
  std::int64_t disk_bytes = 0;      ///< of the file, of all shards together
  std::int64_t first = 0, row_step = 0, column_step = 1;
  std::vector<Source> shards;       ///< the files of a pattern, in the order of their rows; some may have none
  bool shards_are_columns = false;  ///< of a transposed source

  /// Of a matrix: its columns as rows.
  Source transposed() const;
};

/// Local. Reads and checks the header; throws `InvalidArgument` (this rank) with file, place, found, expected: another
/// format, damaged, an array that is not there (with those that are), a part that is not there, elements that are no
/// numbers (with the conversion), sizes that do not fit.
Source open_source(const std::string& path);

/// The bytes of an array, which begin at its first element.
class ArrayBytes {
 public:
  virtual ~ArrayBytes() = default;
  virtual void read(std::int64_t position, void* out, std::int64_t size) = 0;
  virtual void check_unchanged() const = 0;
  virtual bool seeks() const { return true; }  ///< a read takes no longer far from the one before
};

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

}  // namespace attnreg
