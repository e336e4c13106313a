#include "files/text_table.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <set>
#include <utility>

#include "errors/printable.hpp"
#include "ranks/activity.hpp"

namespace attnreg {
namespace {

bool is_blank(char c, char separator) { return (c == ' ' || c == '\t') && c != separator; }

std::string_view without_blanks(std::string_view text, char separator) {
  while (!text.empty() && is_blank(text.front(), separator)) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back(), separator)) text.remove_suffix(1);
  return text;
}

std::vector<std::string_view> fields_of(std::string_view line, char separator) {
  std::vector<std::string_view> fields;
  while (true) {
    const std::size_t end = line.find(separator);
    fields.push_back(without_blanks(line.substr(0, end), separator));
    if (end == std::string_view::npos) return fields;
    line.remove_prefix(end + 1);
  }
}

std::string line_text(std::int64_t line) { return "line " + std::to_string(line + 1); }

std::string field_text(std::string_view field) { return field.empty() ? "nothing" : "'" + printable(field, 40) + "'"; }

/// The byte order mark of UTF-8, which some editors write before the text.
std::string_view without_mark(std::string_view line) {
  if (line.starts_with("\xef\xbb\xbf")) line.remove_prefix(3);
  return line;
}

/// A name without the quotation marks around it.
std::string_view unquoted(std::string_view name) {
  if (name.size() >= 2 && name.front() == '"' && name.back() == '"') return name.substr(1, name.size() - 2);
  return name;
}

}  // namespace

char separator_of(const std::string& file) {
  std::string_view name(file);
  if (name.ends_with(".gz")) name.remove_suffix(3);
  return name.ends_with(".csv") ? ',' : name.ends_with(".tsv") ? '\t' : '\0';
}

void parse_row(const std::string& path, std::string_view text, char separator, std::int64_t line, std::int64_t columns,
               double* out) {
  std::int64_t column = 0;
  std::string_view rest = without_blanks(text, separator);
  while (true) {
    // A blank separates, or what is given; then blanks may stand around it.
    const std::size_t end = separator == '\0' ? rest.find_first_of(" \t") : rest.find(separator);
    const std::string_view field =
        separator == '\0' ? rest.substr(0, end) : without_blanks(rest.substr(0, end), separator);
    double value = 0;
    if (!parse_number(field, value))
      refuse_file(path, line_text(line) + ", column " + std::to_string(column) + ": found " + field_text(field) +
                            ", expected a number that double has (columns counted from 0)");
    if (column < columns) out[column] = value;
    ++column;
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
    if (separator == '\0') rest = without_blanks(rest, separator);
  }
  if (column != columns)
    refuse_file(path, line_text(line) + ": found " + std::to_string(column) + (column == 1 ? " number" : " numbers") +
                          ", expected " + std::to_string(columns));
}

TextTable::TextTable(const std::string& path, TextReader& text, char separator)
    : path_(path), separator_(separator), comment_('#') {
  std::string_view line;
  std::int64_t number = 0, begin = 0;
  while (true) {
    begin = text.position();
    if (!text.next(line)) refuse_file(path, "the file has no rows; expected numbers");
    if (number == 0) {
      if (line.starts_with("\xff\xfe") || line.starts_with("\xfe\xff"))
        refuse_file(path, "the text is in UTF-16; save it in UTF-8");
      if (without_mark(line).size() < line.size()) begin += 3;
      line = without_mark(line);
    }
    if (!is_left_out(line)) break;
    ++number;
  }
  const auto fields = fields_of(line, separator_);
  double value = 0;
  const auto numbers =
      std::ranges::count_if(fields, [&](std::string_view field) { return parse_number(field, value); });
  columns_ = std::ssize(fields);
  if (numbers == 0) {
    take_names(line, number);
    ++number;
  } else {
    text.seek(begin);
  }
  scan(text, number);
}

TextTable::TextTable(const std::string& path, TextReader& text, std::int64_t line)
    : path_(path), separator_('\0'), comment_('%') {
  scan(text, line);
}

bool TextTable::is_left_out(std::string_view line) const {
  if (!line.empty() && line[0] != ' ' && line[0] != comment_ && line[0] != '\t') return false;
  line = without_blanks(line, separator_);
  return line.empty() || line[0] == comment_;
}

void TextTable::take_names(std::string_view line, std::int64_t number) {
  constexpr std::array missing{"", "na", "n/a", "null", "none", "?", "-", "."};  // no names, but a row without numbers
  std::set<std::string_view> names;
  std::int64_t column = 0;
  for (const auto name : fields_of(line, separator_)) {
    std::string lower(name);
    for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    const bool is_missing = std::ranges::find(missing, lower) != missing.end();
    if (is_missing || !names.insert(name).second)
      refuse_file(path_, line_text(number) + ", column " + std::to_string(column) + ": found " + field_text(name) +
                             (is_missing ? "" : " again") +
                             ", expected a number or the name of a column (columns counted from 0)");
    names_.emplace_back(unquoted(name));
    ++column;
  }
}

void TextTable::scan(TextReader& text, std::int64_t line_number) {
  const InWork scanning("looking for rows of text", "bytes", static_cast<double>(text.file_bytes()));
  std::string_view line;
  for (std::int64_t position = text.position(); text.next(line); position = text.position(), ++line_number) {
    if (is_left_out(line)) continue;
    if (rows_ % rows_between_marks == 0) marks_.push_back({position, line_number});
    ++rows_;
  }
}

TableRows::TableRows(const std::string& file, std::shared_ptr<const TextTable> table, std::int64_t bytes,
                     std::int64_t modified_ns)
    : table_(std::move(table)), text_(file), bytes_(bytes), modified_ns_(modified_ns) {}

void TableRows::go_to(std::int64_t row) {
  const std::int64_t mark = row / TextTable::rows_between_marks;
  const bool is_near = next_row_ >= 0 && next_row_ <= row && next_row_ / TextTable::rows_between_marks == mark;
  if (!is_near) {
    const auto& place = table_->marks_.at(static_cast<std::size_t>(mark));
    text_.seek(place.position);
    next_row_ = mark * TextTable::rows_between_marks;
    line_ = place.line;
  }
  std::string_view line;
  while (next_row_ < row && text_.next(line)) {
    ++line_;
    if (!table_->is_left_out(line)) ++next_row_;
  }
}

void TableRows::parse_next(double* out) {
  std::string_view line;
  do {
    if (!text_.next(line)) refuse_file(table_->path_, "the file changed while it was being read; start again");
    ++line_;
  } while (table_->is_left_out(line));
  parse_row(table_->path_, line, table_->separator_, line_ - 1, table_->columns_, out);
  ++next_row_;
}

void TableRows::read(std::int64_t position, void* out, std::int64_t size) {
  constexpr std::int64_t item = sizeof(double);
  const std::int64_t columns = table_->columns_;
  auto* to = static_cast<double*>(out);
  std::int64_t at = position / item;
  const std::int64_t end = at + size / item;
  while (at < end) {
    const std::int64_t row = at / columns, first = at % columns, count = std::min(columns - first, end - at);
    if (count == columns) {
      go_to(row);
      parse_next(to);
    } else {
      kept_.resize(static_cast<std::size_t>(columns));
      if (kept_row_ != row) {
        kept_row_ = -1;
        go_to(row);
        parse_next(kept_.data());
        kept_row_ = row;
      }
      std::copy_n(kept_.begin() + first, count, to);
    }
    to += count;
    at += count;
  }
}

}  // namespace attnreg
