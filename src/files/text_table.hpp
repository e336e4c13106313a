#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "files/source_layout.hpp"
#include "files/text_reader.hpp"

namespace attnreg {

/// Rows of numbers in a text, a line each, and where they are: every rank looks once for the ends of all lines, and
/// then parses its own rows only. Lines that are empty, or begin with '#' (Matrix Market: '%'), are left out.
class TextTable {
 public:
  /// Local. Of a .csv or .tsv file, from its first line on. If no field of the first row is a number, the row has the
  /// names of the columns. Throws `InvalidArgument` (this rank).
  TextTable(const std::string& path, TextReader& text, char separator);
  /// Local. Of what follows: one number in a row.
  TextTable(const std::string& path, TextReader& text, std::int64_t line);

  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  const std::vector<std::string>& names() const { return names_; }  ///< of the columns; none if the file has none

 private:
  friend class TableRows;

  /// The place of a row; there is one for each so many rows.
  struct Mark {
    std::int64_t position, line;
  };
  static constexpr std::int64_t rows_between_marks = 256;

  bool is_left_out(std::string_view line) const;
  void take_names(std::string_view line, std::int64_t number);
  void scan(TextReader& text, std::int64_t line);

  std::string path_;
  char separator_, comment_;
  std::int64_t rows_ = 0, columns_ = 1;
  std::vector<std::string> names_;
  std::vector<Mark> marks_;
};

/// The numbers of a table, as if they were an array of f8 in C order.
class TableRows : public ArrayBytes {
 public:
  TableRows(const std::string& file, std::shared_ptr<const TextTable> table, std::int64_t bytes,
            std::int64_t modified_ns);

  void read(std::int64_t position, void* out, std::int64_t size) override;
  void check_unchanged() const override { text_.check_unchanged(bytes_, modified_ns_); }
  bool seeks() const override { return !text_.is_compressed(); }

 private:
  /// Goes to the beginning of a row.
  void go_to(std::int64_t row);
  void parse_next(double* out);

  std::shared_ptr<const TextTable> table_;
  TextReader text_;
  std::int64_t bytes_, modified_ns_;
  std::int64_t next_row_ = -1, line_ = 0;  ///< of the next row; its line, counted from 0
  std::int64_t kept_row_ = -1;             ///< that is in `kept_`, for reads of parts of a row
  std::vector<double> kept_;
};

/// Local. The separator of a text file with a table, by the end of its name, .csv or .tsv, with .gz or without; else 0.
char separator_of(const std::string& file);

/// Local. Takes the numbers of a line; throws `InvalidArgument` (this rank) with line and column unless there are so
/// many. separator: 0 for blanks. line: counted from 0.
void parse_row(const std::string& path, std::string_view text, char separator, std::int64_t line, std::int64_t columns,
               double* out);

}  // namespace attnreg
