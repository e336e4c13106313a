#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "files/npy_header.hpp"

namespace attnreg {

class SvmlightText;
class TextTable;

/// A dense array of numbers that a name, `PATH[:NAME][INDEX]`, stands for: what is in it, and where its elements lie.
/// A .npy file; an array in a .npz archive; a tensor in a .safetensors file; a dataset of HDF5; numbers in a text; the
/// targets of a svmlight file; several files with rows (`shards_of`); what comes through the standard input.
///
/// The element in row i and column j of a matrix is element `first + i row_step + j column_step` of the whole array.
struct Source : ArrayHeader {
  enum class Format { npy, npz, safetensors, hdf5, shards, table, symmetric, svmlight, piped };

  std::string file;    ///< what is opened, "data.npz"; of shards the pattern
  std::string member;  ///< the array in it, "keys"
  Format format = Format::npy;
  Storage type = Storage::float64;  ///< in which the numbers are held unless the user wants another
  std::int64_t modified_ns = 0;     ///< when the header was read; a later change is an error
  std::int64_t disk_bytes = 0;      ///< of the file, of all shards together
  std::int64_t first = 0, row_step = 0, column_step = 1;
  std::vector<Source> shards;              ///< the files of a pattern, in the order of their rows; some may have none
  bool shards_are_columns = false;         ///< of a transposed source
  std::shared_ptr<const TextTable> table;  ///< of a text: where its rows are
  std::shared_ptr<const SvmlightText> svmlight;

  bool is_piped() const { return format == Format::piped; }  ///< rank 0 reads it, once

  /// Of a matrix: its columns as rows.
  Source transposed() const {
    Source result = *this;
    std::swap(result.shape.at(0), result.shape.at(1));
    std::swap(result.row_step, result.column_step);
    result.fortran_order = !fortran_order;
    for (Source& shard : result.shards) shard = shard.transposed();
    result.shards_are_columns = !shards_are_columns;
    return result;
  }
};

/// The bytes of an array, which begin at its first element.
class ArrayBytes {
 public:
  virtual ~ArrayBytes() = default;
  virtual void read(std::int64_t position, void* out, std::int64_t size) = 0;
  virtual void check_unchanged() const = 0;
  virtual bool seeks() const { return true; }  ///< a read takes no longer far from the one before
};

}  // namespace attnreg
