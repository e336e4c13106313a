#include "files/sparse_text.hpp"

#include <charconv>
#include <limits>

#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "files/matrix_market.hpp"
#include "files/text_reader.hpp"

namespace attnreg {
namespace {

using Symmetry = MatrixMarketHeader::Symmetry;

constexpr std::int64_t text_block_bytes = std::int64_t{1} << 20;

SparseHeader header_of(const std::string& path, const TextReader& text, const MatrixMarketHeader& found) {
  if (found.rows < 1 || found.columns < 1)
    refuse_file(path, "shape (" + std::to_string(found.rows) + ", " + std::to_string(found.columns) +
                          "), expected at least one row and one column");
  SparseHeader header;
  header.path = path;
  header.format = "coordinate";
  header.rows = found.rows;
  header.columns = found.columns;
  header.nonzeros = found.stored;
  header.type = found.is_pattern ? Storage::float32 : Storage::float64;
  header.bytes = text.file_bytes();
  header.modified_ns = text.modified_ns();
  return header;
}

/// Parses entries of a text: row, column and value, counted from 0, as three numbers each.
class EntryParser {
 public:
  EntryParser(const std::string& path, const MatrixMarketHeader& header) : path_(path), header_(header) {}

  /// Local. Adds those of the lines that begin in bytes [begin, end) of the text.
  void parse(TextReader& text, std::int64_t begin, std::int64_t end, std::vector<double>& entries) const {
    std::string_view line;
    text.seek(begin);
    if (begin > header_.position) {  // the line that begins before ends behind this byte, or right before it
      text.seek(begin - 1);
      if (!text.next(line)) return;
    }
    for (std::int64_t place = text.position(); place < end && text.next(line); place = text.position())
      parse_line(line, place, entries);
  }

 private:
  void parse_line(std::string_view line, std::int64_t place, std::vector<double>& entries) const {
    const char *next = line.data(), *const end = line.data() + line.size();
    const auto skip_blanks = [&] {
      while (next != end && (*next == ' ' || *next == '\t')) ++next;
    };
    skip_blanks();
    if (next == end || *next == '%') return;
    std::int64_t row = 0, column = 0;
    double value = 1;
    for (std::int64_t* const index : {&row, &column}) {
      skip_blanks();
      const auto [after, error] = std::from_chars(next, end, *index);
      if (error != std::errc{} || (after != end && *after != ' ' && *after != '\t')) refuse_line(line, place);
      next = after;
    }
    skip_blanks();
    if (!header_.is_pattern) {
      const char* after = next;
      while (after != end && *after != ' ' && *after != '\t') ++after;
      if (!parse_number(std::string_view(next, static_cast<std::size_t>(after - next)), value))
        refuse_line(line, place);
      next = after;
    }
    skip_blanks();
    if (next != end) refuse_line(line, place);
    check_place(row, column, place);
    entries.push_back(static_cast<double>(row - 1));
    entries.push_back(static_cast<double>(column - 1));
    entries.push_back(value);
  }

  void check_place(std::int64_t row, std::int64_t column, std::int64_t place) const {
    if (row < 1 || row > header_.rows || column < 1 || column > header_.columns)
      refuse_place(row, column, place,
                   "rows 1 to " + std::to_string(header_.rows) + ", columns 1 to " + std::to_string(header_.columns));
    if (header_.symmetry != Symmetry::general && row < column)
      refuse_place(row, column, place, "entries on and below the diagonal, as the matrix has a symmetry");
    if (header_.symmetry == Symmetry::skew && row == column)
      refuse_place(row, column, place, "entries below the diagonal, as the matrix is skew-symmetric");
  }

  [[noreturn]] void refuse_place(std::int64_t row, std::int64_t column, std::int64_t place,
                                 const std::string& expected) const {
    refuse_file(path_, "byte " + std::to_string(place) + " of the text: found row " + std::to_string(row) +
                           ", column " + std::to_string(column) + ", expected " + expected);
  }

  [[noreturn]] void refuse_line(std::string_view line, std::int64_t place) const {
    refuse_file(path_, "byte " + std::to_string(place) + " of the text: found '" + printable(line, 60) +
                           "', expected " + (header_.is_pattern ? "row and column" : "row, column and a number"));
  }

  const std::string& path_;
  const MatrixMarketHeader& header_;
};

/// Those entries of a matrix that lie in this rank's rows, or columns.
class WantedEntries {
 public:
  WantedEntries(std::int64_t begin, std::int64_t end, Orientation orientation, Symmetry symmetry)
      : begin_(begin), end_(end), transposed_(orientation == Orientation::transposed), symmetry_(symmetry) {}

  void take(const std::vector<double>& parsed) {
    for (std::size_t k = 0; k < parsed.size(); k += 3) {
      const auto row = static_cast<std::int64_t>(parsed[k]), column = static_cast<std::int64_t>(parsed[k + 1]);
      const double value = parsed[k + 2];
      take_one(row, column, value);
      if (symmetry_ != Symmetry::general && row != column)
        take_one(column, row, symmetry_ == Symmetry::skew ? -value : value);
    }
  }
  const SparseEntries& entries() const { return entries_; }

 private:
  void take_one(std::int64_t row, std::int64_t column, double value) {
    if (transposed_) std::swap(row, column);
    if (row < begin_ || row >= end_) return;
    entries_.rows.push_back(static_cast<Index>(row - begin_));
    entries_.columns.push_back(static_cast<std::int32_t>(column));
    entries_.values.push_back(value);
  }

  std::int64_t begin_, end_;
  bool transposed_;
  Symmetry symmetry_;
  SparseEntries entries_;
};

std::int64_t end_of(TextReader& text) {
  if (!text.is_compressed()) return text.file_bytes();
  text.seek(std::numeric_limits<std::int64_t>::max());
  return text.position();
}

}  // namespace

bool is_sparse_text(const InputFile& file, const std::string& name) {
  if (!is_matrix_market(file, name)) return false;
  TextReader text(name);
  return read_matrix_market_header(name, text).is_sparse;
}

SparseHeader read_sparse_text_header(const std::string& path) {
  TextReader text(path);
  const MatrixMarketHeader header = read_matrix_market_header(path, text);
  return header_of(path, text, header);
}

SparseRows load_sparse_text(const Communicator& communicator, const std::string& path, StorageChoice storage,
                            Orientation orientation) {
  std::optional<TextReader> text;
  MatrixMarketHeader found;
  SparseHeader header;
  std::int64_t end = 0;
  communicator.agree([&] {
    text.emplace(path);
    found = read_matrix_market_header(path, *text);
    header = header_of(path, *text, found);
    end = end_of(*text);
  });
  require_same_file(communicator, path, "", sparse_summary(header) + ", " + std::to_string(end) + " bytes");
  const bool single = is_held_as_float(header, storage), transposed = orientation == Orientation::transposed;
  require_indices(header, orientation);
  RowPartition partition =
      RowPartition::tiled(transposed ? header.columns : header.rows,
                          static_cast<Index>(transposed ? header.rows : header.columns), communicator.size());
  require_room_for_entries(communicator, header, partition, found.symmetry == Symmetry::general ? 1 : 2);

  const int rank = communicator.rank();
  const EntryParser parser(path, found);
  WantedEntries wanted(partition.begin(rank), partition.end(rank), orientation, found.symmetry);
  std::int64_t entries = 0;
  std::vector<double> parsed;
  // The ranks' blocks lie one behind another, so that all see the entries in the order of the file.
  for (std::int64_t first = found.position; first < end; first += text_block_bytes * communicator.size()) {
    parsed.clear();
    communicator.agree([&] {
      const std::int64_t begin = first + rank * text_block_bytes;
      if (begin < end) parser.parse(*text, begin, std::min(end, begin + text_block_bytes), parsed);
    });
    const std::vector<double> all = communicator.all_gather(std::span<const double>(parsed));
    communicator.agree([&] { wanted.take(all); });
    entries += std::ssize(all) / 3;
  }
  communicator.agree([&] {
    text->check_unchanged(header.bytes, header.modified_ns);
    if (entries != found.stored)
      refuse_file(path, "found " + std::to_string(entries) + " entries, expected " + std::to_string(found.stored) +
                            ", as line " + std::to_string(found.line) + " says; copy or write the file again");
  });
  CsrRows rows = rows_of_entries(communicator, header, partition, orientation, wanted.entries(), single);
  return {std::move(partition), std::move(rows)};
}

}  // namespace attnreg
