#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "files/source_layout.hpp"
#include "files/sparse_rows.hpp"
#include "files/text_reader.hpp"

namespace attnreg {

/// Which part of a svmlight file a name, `F.svm:NAME`, stands for.
enum class SvmlightPart {
  features,             ///< F.svm: the matrix; indices begin at 1 unless a 0 is there, as scikit-learn has it
  zero_based_features,  ///< F.svm:zero-based
  one_based_features,   ///< F.svm:one-based
  target                ///< F.svm:target: the first number of each line
};

/// Local. Whether a file is one of svmlight, by the end of its name: .svm, .svmlight or .libsvm, with .gz or without.
bool is_svmlight(const std::string& file);

/// Local. `member`: the name behind the colon. Throws `InvalidArgument` (this rank) for another one.
SvmlightPart svmlight_part(const std::string& path, const std::string& member);

/// Where the rows of a svmlight file are: lines `TARGET [qid:Q] INDEX:VALUE ...`, in which the indices increase, with
/// comments from '#' on. Every rank looks once through the file, at the ends of the lines, and then parses its own
/// rows only. Everything is local and throws `InvalidArgument` (this rank).
class SvmlightText {
 public:
  SvmlightText(const std::string& path, TextReader& text, SvmlightPart part);

  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  std::int64_t entries() const { return entries_; }  ///< in the file, with zeros that are stored

 private:
  friend class SvmlightRows;

  /// The place of a row; there is one for each so many rows.
  struct Mark {
    std::int64_t position, line;
  };
  static constexpr std::int64_t rows_between_marks = 256;

  void look_at(std::string_view line, std::int64_t number);
  [[noreturn]] void refuse_index(std::string_view field, std::int64_t number) const;

  std::string path_;
  std::int64_t rows_ = 0, columns_ = 1, entries_ = 0;
  std::int64_t least_, largest_ = -1;  ///< index in the file
  std::int64_t base_ = 0;              ///< index of column 0
  std::vector<Mark> marks_;
};

/// Parses rows, one after another.
class SvmlightRows {
 public:
  SvmlightRows(const SvmlightText& rows, TextReader& text) : rows_(rows), text_(text) {}

  /// Goes to the beginning of a row.
  void go_to(std::int64_t row);
  /// The next row: its target, its columns and their values, which replace what is there.
  double next(std::vector<std::int32_t>& columns, std::vector<double>& values);

 private:
  std::string_view next_line();

  const SvmlightText& rows_;
  TextReader& text_;
  std::int64_t next_row_ = -1, line_ = 0;  ///< of the next row; its line, counted from 0
};

/// The targets of a svmlight file, as if they were an array of f8.
class SvmlightTargets : public ArrayBytes {
 public:
  explicit SvmlightTargets(const Source& source);

  void read(std::int64_t position, void* out, std::int64_t size) override;
  void check_unchanged() const override { text_.check_unchanged(bytes_, modified_ns_); }
  bool seeks() const override { return !text_.is_compressed(); }

 private:
  std::shared_ptr<const SvmlightText> rows_;
  TextReader text_;
  SvmlightRows reader_;
  std::int64_t bytes_, modified_ns_;
  std::vector<std::int32_t> columns_;
  std::vector<double> values_;
};

/// Local. The header of the matrix that `path`, F.svm or F.svm:zero-based, stands for.
SparseHeader read_svmlight_header(const std::string& path);

/// Collective. `load_sparse` of it: each rank parses its own rows, and of a transposed matrix all, of which it keeps
/// its columns. No messages but agreements.
SparseRows load_svmlight(const Communicator& communicator, const std::string& path, StorageChoice storage,
                         Orientation orientation);

}  // namespace attnreg
