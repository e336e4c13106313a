#include "files/svmlight.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <utility>

#include "errors/printable.hpp"
#include "files/input_file.hpp"
#include "files/source_name.hpp"

namespace attnreg {
namespace {

constexpr std::int64_t most_columns = std::numeric_limits<std::int32_t>::max();

bool is_gap(char c) { return c == ' ' || c == '\t'; }

/// Takes a field off the front; empty at the end of the line.
std::string_view take_field(std::string_view& line) {
  while (!line.empty() && is_gap(line.front())) line.remove_prefix(1);
  std::size_t end = 0;
  while (end < line.size() && !is_gap(line[end])) ++end;
  const std::string_view field = line.substr(0, end);
  line.remove_prefix(end);
  return field;
}

/// Takes a field off the back.
std::string_view take_last_field(std::string_view& line) {
  while (!line.empty() && is_gap(line.back())) line.remove_suffix(1);
  std::size_t begin = line.size();
  while (begin > 0 && !is_gap(line[begin - 1])) --begin;
  const std::string_view field = line.substr(begin);
  line = line.substr(0, begin);
  return field;
}

/// The index before the colon of a field; none, if there is no such.
std::optional<std::int64_t> index_of(std::string_view field) {
  std::int64_t index = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), index);
  if (error != std::errc{} || end == field.data() + field.size() || *end != ':' || index < 0) return std::nullopt;
  return index;
}

/// The line without its comment and the blanks before it.
std::string_view without_comment(std::string_view line) {
  line = line.substr(0, line.find('#'));
  while (!line.empty() && is_gap(line.front())) line.remove_prefix(1);
  return line;
}

std::string line_of(std::int64_t number) { return "line " + std::to_string(number + 1); }

std::string found_text(std::string_view field) {
  return field.empty() ? ": found nothing" : ": found '" + printable(field, 40) + "'";
}

/// A svmlight file that is open, and what is in it.
struct Opened {
  explicit Opened(const std::string& named)
      : path(named), name(path), part(svmlight_part(path, name.member)), text(name.file), rows(path, text, part) {}

  SparseHeader header() const {
    SparseHeader header;
    header.path = path;
    header.format = "svmlight";
    header.rows = rows.rows();
    header.columns = rows.columns();
    header.nonzeros = rows.entries();
    header.bytes = text.file_bytes();
    header.modified_ns = text.modified_ns();
    return header;
  }

  std::string path;
  SourceName name;
  SvmlightPart part;
  TextReader text;
  SvmlightText rows;
};

/// Local. The entries of rows, or of columns, [begin, end).
SparseEntries entries_in(Opened& file, std::int64_t begin, std::int64_t end, bool transposed) {
  SparseEntries found;
  std::vector<std::int32_t> columns;
  std::vector<double> values;
  SvmlightRows reader(file.rows, file.text);
  const std::int64_t first = transposed ? 0 : begin, last = transposed ? file.rows.rows() : end;
  if (begin == end) return found;
  reader.go_to(first);
  for (std::int64_t row = first; row < last; ++row) {
    reader.next(columns, values);
    for (std::size_t k = 0; k < columns.size(); ++k) {
      if (transposed && (columns[k] < begin || columns[k] >= end)) continue;
      found.rows.push_back((transposed ? columns[k] : row) - begin);
      found.columns.push_back(transposed ? static_cast<std::int32_t>(row) : columns[k]);
      found.values.push_back(values[k]);
    }
  }
  return found;
}

}  // namespace

bool is_svmlight(const std::string& file) {
  std::string_view name(file);
  if (name.ends_with(".gz")) name.remove_suffix(3);
  return name.ends_with(".svm") || name.ends_with(".svmlight") || name.ends_with(".libsvm");
}

SvmlightPart svmlight_part(const std::string& path, const std::string& member) {
  constexpr std::pair<std::string_view, SvmlightPart> parts[] = {{"", SvmlightPart::features},
                                                                 {"zero-based", SvmlightPart::zero_based_features},
                                                                 {"one-based", SvmlightPart::one_based_features},
                                                                 {"target", SvmlightPart::target}};
  for (const auto& [name, part] : parts)
    if (name == member) return part;
  refuse_file(path, "a svmlight file has no '" + printable(member, 80) +
                        "', found the matrix, without a name or as :zero-based or :one-based, and :target");
}

SvmlightText::SvmlightText(const std::string& path, TextReader& text, SvmlightPart part)
    : path_(path), least_(std::numeric_limits<std::int64_t>::max()) {
  std::string_view line;
  std::int64_t number = 0;
  for (std::int64_t position = text.position(); text.next(line); position = text.position(), ++number) {
    line = without_comment(line);
    if (line.empty()) continue;
    if (rows_ % rows_between_marks == 0) marks_.push_back({position, number});
    ++rows_;
    look_at(line, number);
  }
  if (rows_ == 0) refuse_file(path, "the file has no rows; expected lines TARGET INDEX:VALUE ...");
  const bool one_based =
      part == SvmlightPart::one_based_features || (part == SvmlightPart::features && entries_ > 0 && least_ > 0);
  base_ = one_based ? 1 : 0;
  columns_ = std::max<std::int64_t>(1, largest_ - base_ + 1);
}

/// The first and the last index are the least and the largest: a row in which they do not increase is refused when it
/// is parsed.
void SvmlightText::look_at(std::string_view line, std::int64_t number) {
  std::string_view rest = line;
  take_field(rest);  // the target
  std::string_view first = take_field(rest);
  if (first.starts_with("qid:")) first = take_field(rest);
  if (first.empty()) return;
  const std::string_view last = rest.find(':') == std::string_view::npos ? first : take_last_field(rest);
  for (const std::string_view field : {first, last}) {
    const auto index = index_of(field);
    if (!index || *index > most_columns) refuse_index(field, number);
    least_ = std::min(least_, *index);
    largest_ = std::max(largest_, *index);
  }
  entries_ += 1 + (first.data() == last.data() ? 0 : 1 + std::ranges::count(rest, ':'));
}

void SvmlightText::refuse_index(std::string_view field, std::int64_t number) const {
  if (field.starts_with("qid:"))
    refuse_file(path_, line_of(number) + found_text(field) + ", expected qid:Q right behind the target");
  refuse_file(path_, line_of(number) + found_text(field) +
                         ", expected INDEX:VALUE with an index from 0 to 2147483647 and a number that double has");
}

std::string_view SvmlightRows::next_line() {
  std::string_view line;
  do {
    if (!text_.next(line)) refuse_file(rows_.path_, "the file changed while it was being read; start again");
    ++line_;
    line = without_comment(line);
  } while (line.empty());
  ++next_row_;
  return line;
}

void SvmlightRows::go_to(std::int64_t row) {
  const std::int64_t mark = row / SvmlightText::rows_between_marks;
  const bool is_near = next_row_ >= 0 && next_row_ <= row && next_row_ / SvmlightText::rows_between_marks == mark;
  if (!is_near) {
    const auto& place = rows_.marks_.at(static_cast<std::size_t>(mark));
    text_.seek(place.position);
    next_row_ = mark * SvmlightText::rows_between_marks;
    line_ = place.line;
  }
  while (next_row_ < row) next_line();
}

double SvmlightRows::next(std::vector<std::int32_t>& columns, std::vector<double>& values) {
  columns.clear();
  values.clear();
  std::string_view rest = next_line();
  const std::int64_t number = line_ - 1;
  double target = 0, value = 0;
  const std::string_view label = take_field(rest);
  if (!parse_number(label, target))
    refuse_file(rows_.path_,
                line_of(number) + found_text(label) +
                    (label.find(',') != std::string_view::npos
                         ? ", several labels, expected one target; write the targets to a file of their own"
                         : ", expected a target that double has"));
  std::int64_t before = -1;
  for (std::string_view field = take_field(rest); !field.empty(); field = take_field(rest)) {
    if (before < 0 && values.empty() && field.starts_with("qid:")) continue;  // which query the row is of
    const auto index = index_of(field);
    if (!index || *index > most_columns || !parse_number(field.substr(field.find(':') + 1), value))
      rows_.refuse_index(field, number);
    if (*index < rows_.base_)
      refuse_file(rows_.path_,
                  line_of(number) + found_text(field) + ", expected indices from 1 on, as :one-based says");
    if (*index <= before)
      refuse_file(rows_.path_, line_of(number) + ": found index " + std::to_string(*index) + " behind " +
                                   std::to_string(before) + ", expected indices that increase; sort them");
    if (*index - rows_.base_ >= rows_.columns_)
      refuse_file(rows_.path_, "the file changed while it was being read; start again");
    before = *index;
    columns.push_back(static_cast<std::int32_t>(*index - rows_.base_));
    values.push_back(value);
  }
  return target;
}

SvmlightTargets::SvmlightTargets(const Source& source)
    : rows_(source.svmlight),
      text_(source.file),
      reader_(*rows_, text_),
      bytes_(source.disk_bytes),
      modified_ns_(source.modified_ns) {}

void SvmlightTargets::read(std::int64_t position, void* out, std::int64_t size) {
  constexpr std::int64_t item = sizeof(double);
  auto* to = static_cast<double*>(out);
  for (std::int64_t row = position / item, end = row + size / item; row < end; ++row, ++to) {
    reader_.go_to(row);
    *to = reader_.next(columns_, values_);
  }
}

SparseHeader read_svmlight_header(const std::string& path) { return Opened(path).header(); }

SparseRows load_svmlight(const Communicator& communicator, const std::string& path, StorageChoice storage,
                         Orientation orientation) {
  std::optional<Opened> file;
  SparseHeader header;
  communicator.agree([&] {
    file.emplace(path);
    header = file->header();
  });
  require_same_file(communicator, path, "", sparse_summary(header));
  const bool single = is_held_as_float(header, storage), transposed = orientation == Orientation::transposed;
  require_indices(header, orientation);
  RowPartition partition =
      RowPartition::tiled(transposed ? header.columns : header.rows,
                          static_cast<Index>(transposed ? header.rows : header.columns), communicator.size());
  require_room_for_entries(communicator, header, partition, 1);
  SparseEntries found;
  communicator.agree([&] {
    found = entries_in(*file, partition.begin(communicator.rank()), partition.end(communicator.rank()), transposed);
    file->text.check_unchanged(header.bytes, header.modified_ns);
  });
  CsrRows rows = rows_of_entries(communicator, header, partition, orientation, found, single);
  return {std::move(partition), std::move(rows)};
}

}  // namespace attnreg
