#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "files/input_file.hpp"

namespace attnreg {

/// The lines of a text file, plain or compressed by gzip, from any byte of the text on. Everything is local and throws
/// `InvalidArgument` (this rank) with file, place and reason.
class TextReader {
 public:
  explicit TextReader(const std::string& path);
  ~TextReader();

  std::int64_t file_bytes() const { return bytes_; }
  std::int64_t modified_ns() const { return modified_ns_; }
  bool is_compressed() const { return inflater_ != nullptr; }  ///< then a step back begins at the start again
  void check_unchanged(std::int64_t bytes, std::int64_t modified_ns) const {
    file_.check_unchanged(bytes, modified_ns);
  }

  /// Goes to a byte of the text.
  void seek(std::int64_t position);
  /// The next line without its end, "\n" or "\r\n", good until the next call; false at the end of the text.
  bool next(std::string_view& line);
  std::int64_t position() const { return position_; }  ///< of the next line

 private:
  struct Inflater;

  /// Appends text to the buffer; false at its end.
  bool fill();
  bool inflate_more(std::size_t kept);
  void restart();

  std::string path_;
  InputFile file_;
  std::int64_t bytes_, modified_ns_;
  std::unique_ptr<Inflater> inflater_;
  std::int64_t read_ = 0;      ///< bytes of the file so far
  std::int64_t position_ = 0;  ///< of the text, of what is in the buffer from `begin_` on
  std::string buffer_;
  std::size_t begin_ = 0;
};

/// Local. A number of a text, in any spelling of Python's `float` but for blanks and '_'; false if it is none, or one
/// that double does not have, too large or too small.
bool parse_number(std::string_view text, double& value);

}  // namespace attnreg
