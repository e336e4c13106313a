#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "files/source_layout.hpp"
#include "files/text_reader.hpp"

namespace attnreg {

/// The first lines of a Matrix Market file.
struct MatrixMarketHeader {
  enum class Symmetry { general, symmetric, skew };

  bool is_sparse = false;   ///< coordinate, else array
  bool is_pattern = false;  ///< places without values, which are 1
  Symmetry symmetry = Symmetry::general;
  std::int64_t rows = 0, columns = 0;
  std::int64_t stored = 0;    ///< numbers or entries that the file has
  std::int64_t position = 0;  ///< of what follows
  std::int64_t line = 0;      ///< its number, counted from 0
};

/// Local. Whether a file is to be read as Matrix Market: its name ends with .mtx or .mtx.gz, or it begins so.
bool is_matrix_market(const InputFile& file, const std::string& name);

/// Local. Throws `InvalidArgument` (this rank) with line, found, expected; complex and hermitian matrices are refused.
MatrixMarketHeader read_matrix_market_header(const std::string& path, TextReader& text);

/// The numbers of an array with symmetry, of which the file has one half, as a whole array in Fortran order. All of the
/// file is read and kept.
class SymmetricArray : public ArrayBytes {
 public:
  SymmetricArray(const Source& source);

  void read(std::int64_t position, void* out, std::int64_t size) override;
  void check_unchanged() const override { text_.check_unchanged(bytes_, modified_ns_); }

 private:
  TextReader text_;
  std::int64_t bytes_, modified_ns_, n_;
  bool is_skew_;
  std::vector<double> stored_;
};

}  // namespace attnreg
