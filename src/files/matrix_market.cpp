#include "files/matrix_market.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstring>
#include <limits>
#include <vector>

#include "errors/printable.hpp"
#include "files/text_table.hpp"

namespace attnreg {
namespace {

constexpr std::string_view banner = "%%MatrixMarket";
constexpr std::int64_t most_extent = std::int64_t{1} << 60;

std::vector<std::string> lower_words(std::string_view line) {
  std::vector<std::string> words;
  while (true) {
    const std::size_t begin = line.find_first_not_of(" \t");
    if (begin == std::string_view::npos) return words;
    line.remove_prefix(begin);
    const std::size_t end = std::min(line.find_first_of(" \t"), line.size());
    words.emplace_back(line.substr(0, end));
    for (char& c : words.back()) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    line.remove_prefix(end);
  }
}

/// The words behind %%MatrixMarket.
void take_banner(const std::string& path, std::string_view line, MatrixMarketHeader& header) {
  std::vector<std::string> words = lower_words(line);
  const auto require_one_of = [&](std::size_t k, std::initializer_list<std::string_view> known) {
    const std::string found = k < words.size() ? words[k] : "";
    if (std::ranges::find(known, found) != known.end()) return;
    std::string list;
    for (const auto word : known) list += (list.empty() ? "" : ", ") + std::string(word);
    refuse_file(path, "line 1: found '" + printable(found, 40) + "', expected one of " + list);
  };
  if (words.empty() || words[0] != "%%matrixmarket")
    refuse_file(path, "line 1: found '" + printable(line, 40) + "', expected %%MatrixMarket matrix ...");
  require_one_of(1, {"matrix"});
  require_one_of(2, {"array", "coordinate"});
  header.is_sparse = words[2] == "coordinate";
  if (words.size() > 3 && words[3] == "complex")
    refuse_file(path, "line 1: complex numbers, expected real ones; write the real or the imaginary part, A.real");
  if (header.is_sparse)
    require_one_of(3, {"real", "double", "integer", "pattern"});
  else
    require_one_of(3, {"real", "double", "integer"});
  header.is_pattern = words[3] == "pattern";
  require_one_of(4, {"general", "symmetric", "skew-symmetric"});
  if (words[4] == "symmetric") header.symmetry = MatrixMarketHeader::Symmetry::symmetric;
  if (words[4] == "skew-symmetric") header.symmetry = MatrixMarketHeader::Symmetry::skew;
}

std::int64_t extent_of(const std::string& path, const std::string& word, std::int64_t line) {
  std::int64_t extent = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), extent);
  if (error != std::errc{} || end != word.data() + word.size() || extent < 0 || extent >= most_extent)
    refuse_file(path, "line " + std::to_string(line + 1) + ": found '" + printable(word, 40) +
                          "', expected a number of rows, columns or entries");
  return extent;
}

/// Of an array.
std::int64_t numbers_stored(const std::string& path, const MatrixMarketHeader& header) {
  std::int64_t all = 0;
  if (__builtin_mul_overflow(header.rows, header.columns, &all) || all >= most_extent)
    refuse_file(path, "line " + std::to_string(header.line) + ": more than 2^60 numbers; the file is damaged");
  if (header.symmetry == MatrixMarketHeader::Symmetry::general) return all;
  return header.symmetry == MatrixMarketHeader::Symmetry::skew ? (all - header.rows) / 2 : (all + header.rows) / 2;
}

}  // namespace

bool is_matrix_market(const InputFile& file, const std::string& name) {
  if (name.ends_with(".mtx") || name.ends_with(".mtx.gz")) return true;
  if (file.bytes() < static_cast<std::int64_t>(banner.size())) return false;
  std::string start(banner.size(), '\0');
  file.read(0, start.data(), static_cast<std::int64_t>(start.size()));
  return start == banner;
}

MatrixMarketHeader read_matrix_market_header(const std::string& path, TextReader& text) {
  MatrixMarketHeader header;
  std::string_view line;
  if (!text.next(line)) refuse_file(path, "the file is empty; expected %%MatrixMarket matrix ...");
  take_banner(path, line, header);
  std::vector<std::string> words;
  for (header.line = 1; words.empty() || words[0][0] == '%'; ++header.line) {
    if (!text.next(line)) refuse_file(path, "the file ends before the line with rows and columns");
    words = lower_words(line);
  }
  const std::size_t expected = header.is_sparse ? 3 : 2;
  if (words.size() != expected)
    refuse_file(path, "line " + std::to_string(header.line) + ": found " + std::to_string(words.size()) +
                          " words, expected " + (header.is_sparse ? "rows, columns and entries" : "rows and columns"));
  header.rows = extent_of(path, words[0], header.line - 1);
  header.columns = extent_of(path, words[1], header.line - 1);
  if (header.symmetry != MatrixMarketHeader::Symmetry::general && header.rows != header.columns)
    refuse_file(path, "line " + std::to_string(header.line) + ": " + std::to_string(header.rows) + " rows and " +
                          std::to_string(header.columns) + " columns, expected a square matrix with symmetry");
  header.stored = header.is_sparse ? extent_of(path, words[2], header.line - 1) : numbers_stored(path, header);
  header.position = text.position();
  return header;
}

SymmetricArray::SymmetricArray(const Source& source)
    : text_(source.file), bytes_(source.disk_bytes), modified_ns_(source.modified_ns), n_(source.shape[0]) {
  const MatrixMarketHeader header = read_matrix_market_header(source.path, text_);
  if (header.rows != n_) refuse_file(source.path, "the file changed while it was being read; start again");
  is_skew_ = header.symmetry == MatrixMarketHeader::Symmetry::skew;
  std::string_view line;
  // Memory grows with what is in the file, whatever its header says.
  for (std::int64_t number = header.line; text_.next(line); ++number) {
    const std::size_t begin = line.find_first_not_of(" \t");
    if (begin == std::string_view::npos || line[begin] == '%') continue;
    stored_.push_back(0);
    parse_row(source.path, line, '\0', number, 1, &stored_.back());
  }
  if (std::ssize(stored_) != header.stored)
    refuse_file(source.path,
                "found " + std::to_string(stored_.size()) + " numbers, expected " + std::to_string(header.stored));
}

void SymmetricArray::read(std::int64_t position, void* out, std::int64_t size) {
  auto* to = static_cast<double*>(out);
  std::int64_t at = position / static_cast<std::int64_t>(sizeof(double));
  const std::int64_t end = at + size / static_cast<std::int64_t>(sizeof(double)), diagonal = is_skew_ ? 0 : 1;
  for (; at < end; ++at, ++to) {
    const std::int64_t i = at % n_, j = at / n_, row = std::max(i, j), column = std::min(i, j);
    if (i == j && is_skew_) {
      *to = 0;
      continue;
    }
    // The columns before have n, n - 1, ... numbers, without the diagonal one less.
    const std::int64_t before = column * (n_ - 1 + diagonal) - column * (column - 1) / 2;
    const double value = stored_[static_cast<std::size_t>(before + row - column - 1 + diagonal)];
    *to = is_skew_ && i < j ? -value : value;
  }
}

}  // namespace attnreg
