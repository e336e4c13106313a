#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "app/options/commands.hpp"
#include "app/report/json.hpp"
#include "app/report/text.hpp"
#include "app/run/problem.hpp"
#include "app/run/value_figures.hpp"
#include "errors/printable.hpp"
#include "files/text_table.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kCheckEpilogue = R"(Examples:
  attnreg check A.npy b.npy
  attnreg check A.npz counts.npy w.npy --json
  attnreg check --attention Q.npy K.npy B.npy

The first file is A, n x d. Then come b with n values, or targets, n x k, and w with n values. With --attention: queries
n1 x d1, keys n2 x d2, and the target, n1 x n2; or values, n2 x d3, and the target, n1 x dv.

Exit code 3: solve, or attention, would refuse a file. Notes do not count.
)";

const Syntax kCheckSyntax{
    "check",
    "Read the files of a solve or attention run wholly, and list all that is wrong with each.",
    {{"A", "matrix, dense or sparse; then b, or targets, and w"}},
    {{"Check",
      {{"attention", 0, "", Switch{}, "", "the files are queries, keys, values if there are four, and the target"}}},
     {"Output", {{"json", 0, "", Switch{}, "", "print JSON"}, trust_option()}},
     {"Computing", {threads_option(), watchdog_option(), progress_option()}}},
    kCheckEpilogue,
    {},
    {},
    "FILE"};

constexpr std::size_t kNamed = 5;  // of a list

/// A file, and what is to be said of it.
struct CheckedFile {
  std::string role, path;
  std::optional<InputFile> file;        ///< none: it does not open
  std::optional<ValueFigures> figures;  ///< none: it was not read to its end
  std::vector<std::string> problems;    ///< that make a solve refuse it
  std::vector<std::string> notes;

  std::int64_t rows() const { return file ? file->header.shape[0] : -1; }
  std::int64_t columns() const { return file ? file->header.columns() : -1; }
};

std::string place_text(const CheckedFile& file, std::int64_t place) {
  if (file.file->header.shape.size() < 2) return "row " + std::to_string(place);
  return "row " + std::to_string(place / file.columns()) + ", column " + std::to_string(place % file.columns());
}

/// "3 values are negative, the first at row 7, column 1"
std::string occurrences_text(const CheckedFile& file, const Occurrences& found, const std::string& noun,
                             const std::string& what) {
  return counted(found.count, noun) + (found.count == 1 ? " is " : " are ") + what + ", the first at " +
         place_text(file, found.first);
}

/// "columns 3, 5 (age) and 7 more"
std::string columns_text(const CheckedFile& file, const std::vector<std::int64_t>& columns) {
  const auto& table = file.file->header.table;
  std::string text = columns.size() == 1 ? "column" : "columns";
  for (std::size_t k = 0; k < std::min(kNamed, columns.size()); ++k) {
    text += (k == 0 ? " " : ", ") + std::to_string(columns[k]);
    if (table && !table->names().empty())
      text += " (" + printable(table->names()[static_cast<std::size_t>(columns[k])], 40) + ")";
  }
  return text + (columns.size() > kNamed ? " and " + std::to_string(columns.size() - kNamed) + " more" : "");
}

void judge_finite(CheckedFile& file) {
  const ValueFigures& found = *file.figures;
  const std::pair<const Occurrences&, const char*> kinds[] = {
      {found.nan, "nan"}, {found.plus_infinite, "inf"}, {found.minus_infinite, "-inf"}};
  for (const auto& [occurrences, name] : kinds)
    if (occurrences.count > 0) file.problems.push_back(occurrences_text(file, occurrences, "value", name));
}

/// What a matrix of a solve may have, and better has not.
void judge_matrix(CheckedFile& file) {
  const ValueFigures& found = *file.figures;
  if (!found.zero_columns.empty())
    file.notes.push_back(columns_text(file, found.zero_columns) + ": all values are 0, x there has no effect");
  if (!found.constant_columns.empty() && found.rows > 1)
    file.notes.push_back(columns_text(file, found.constant_columns) +
                         ": all values are the same, which softmax and cross-entropy do not see");
  std::string equal;
  for (std::size_t k = 0; k < std::min(kNamed, found.equal_columns.size()); ++k)
    equal += (k == 0 ? "" : ", ") + std::to_string(found.equal_columns[k].second) + " is " +
             std::to_string(found.equal_columns[k].first);
  if (!equal.empty())
    file.notes.push_back(counted(std::ssize(found.equal_columns), "column") + " repeat another one: " + equal +
                         (found.equal_columns.size() > kNamed ? ", ..." : ""));
  if (found.zero_rows.count > 0)
    file.notes.push_back(counted(found.zero_rows.count, "row") + " of zeros, the first is row " +
                         std::to_string(found.zero_rows.first));
  constexpr double far = 1e6;  // apart: squares then differ by 1e12, and rounding in H hides the small one
  double least = std::numeric_limits<double>::infinity(), most = 0;
  for (const double largest : found.largest) {
    if (largest > 0) least = std::min(least, largest);
    most = std::max(most, largest);
  }
  if (most > least * far)
    file.notes.push_back("the largest values of the columns go from " + plain(least, 3) + " to " + plain(most, 3) +
                         ": choose units of similar size");
}

void judge_squares(CheckedFile& file, bool also_of_tiny) {
  const ValueFigures& found = *file.figures;
  const std::string what = "such that double does not hold the square, of which L is made";
  if (found.squares_overflow.count > 0)
    file.problems.push_back(occurrences_text(file, found.squares_overflow, "value", what));
  if (also_of_tiny && found.squares_vanish.count > 0)
    file.problems.push_back(occurrences_text(file, found.squares_vanish, "value", what));
}

void judge_target(CheckedFile& file) {
  const ValueFigures& found = *file.figures;
  constexpr double slack = 1e-6;
  judge_squares(file, false);
  if (found.negative.count > 0) file.notes.push_back(occurrences_text(file, found.negative, "value", "negative"));
  if (file.columns() > 1 || found.not_finite() > 0) return;
  if (!std::isfinite(found.sum))
    file.notes.push_back("the sum overflows");
  else if (!(found.sum > 0))
    file.notes.push_back("the sum is " + plain(found.sum, 6) +
                         ": --loss cross-entropy and --normalise-b need one above 0");
  else if (std::abs(found.sum - 1) > slack)
    file.notes.push_back("the sum is " + plain(found.sum, 6) + ": softmax sums to 1; --normalise-b divides by the sum");
}

void judge_weights(CheckedFile& file) {
  judge_squares(file, true);
  if (file.figures->negative.count > 0)
    file.notes.push_back(occurrences_text(file, file.figures->negative, "value", "negative") +
                         "; only the square of w counts");
}

/// Rows that are to be distributions.
void judge_attention(CheckedFile& file, bool rows_are_distributions) {
  const ValueFigures& found = *file.figures;
  if (!rows_are_distributions) return;
  if (found.negative.count > 0) file.notes.push_back(occurrences_text(file, found.negative, "value", "negative"));
  if (found.other_sums.count > 0)
    file.notes.push_back(counted(found.other_sums.count, "row") + (found.other_sums.count == 1 ? " does" : " do") +
                         " not sum to 1, as rows of softmax do, the first is row " +
                         std::to_string(found.other_sums.first));
}

void require_extent(CheckedFile& file, std::int64_t found, const char* what, std::int64_t expected,
                    const std::string& meaning) {
  if (found < 0 || expected < 0 || found == expected) return;
  file.problems.push_back("found " + std::to_string(found) + " " + what + ", expected " + std::to_string(expected) +
                          ", " + meaning);
}

/// How the shapes fit together.
void judge_shapes(std::vector<CheckedFile>& files, bool attention) {
  if (!attention) {
    for (std::size_t k = 1; k < files.size(); ++k) {
      require_extent(files[k], files[k].rows(), "rows", files[0].rows(), "as A has");
      if (files[k].role == "w") require_extent(files[k], files[k].columns(), "columns", 1, "one value per row of A");
    }
    return;
  }
  CheckedFile &queries = files[0], &keys = files[1], &target = files.back();
  require_extent(target, target.rows(), "rows", queries.rows(), "one per query");
  if (files.size() == 4)
    require_extent(files[2], files[2].rows(), "rows", keys.rows(), "one per key");
  else
    require_extent(target, target.columns(), "columns", keys.rows(), "one per key");
}

std::vector<CheckedFile> listed(const Arguments& arguments) {
  std::vector<std::string> paths{arguments.text("A")};
  paths.insert(paths.end(), arguments.rest().begin(), arguments.rest().end());
  std::vector<std::string> roles{"A", "b", "w"};
  if (arguments.on("attention")) {
    if (paths.size() != 3 && paths.size() != 4)
      throw UsageError("--attention takes queries, keys and target, or queries, keys, values and target; found " +
                       counted(std::ssize(paths), "file"));
    roles = {"queries", "keys", "values", "target"};
    if (paths.size() == 3) roles.erase(roles.begin() + 2);
  }
  if (paths.size() > roles.size())
    throw UsageError("surplus argument '" + printable(paths[roles.size()]) + "'; the files are A, b and w");
  std::vector<CheckedFile> files;
  for (std::size_t k = 0; k < paths.size(); ++k) files.push_back({roles[k], paths[k], {}, {}, {}, {}});
  return files;
}

/// Collective. What the header says.
void open_file(const Communicator& communicator, CheckedFile& file) {
  try {
    communicator.agree([&] {
      InputFile found = examine(file.role, file.path);
      const auto& shape = found.header.shape;
      const std::string shape_text = "found shape " + found.header.shape_text() + ", expected ";
      if (shape.empty() || shape.size() > 2)
        throw InvalidArgument(shape_text + "one or two extents; name a part of it, " + printable(file.path) + "[0]");
      if (shape[0] < 1 || found.header.columns() < 1)
        throw InvalidArgument(shape_text + "at least one row and one column");
      file.file = std::move(found);
    });
  } catch (const InvalidArgument& error) {
    file.file.reset();
    file.problems.emplace_back(error.what());
  }
  if (file.role == "b" && file.columns() > 1) file.role = file.file->role = "targets";
}

/// Collective. What the values say.
void read_file(const Communicator& communicator, CheckedFile& file) {
  if (!file.file) return;
  try {
    file.figures = value_figures(communicator, *file.file);
  } catch (const InvalidArgument& error) {
    file.problems.emplace_back(error.what());
    return;
  }
  judge_finite(file);
  if (file.role == "A") judge_matrix(file);
  if (file.role == "b" || file.role == "targets") judge_target(file);
  if (file.role == "w") judge_weights(file);
}

std::string human_text(const CheckedFile& file) {
  const auto line = [](const char* label, const std::string& text) { return "  " + padded(label, 10) + text + "\n"; };
  std::string text = file.role + "  " + printable(file.path) + "\n";
  if (file.file) {
    const Source& header = file.file->header;
    const std::string sparse =
        file.file->nonzeros ? ", " + file.file->format + " with " + std::to_string(*file.file->nonzeros) + " entries"
                            : "";
    text += line("is", header.shape_text() + " of " + header.dtype_text() + sparse + ", " +
                           std::to_string(header.disk_bytes) + " bytes, held as " + storage_name(header.type));
  }
  if (file.figures && file.figures->minimum <= file.figures->maximum)
    text += line("values", plain(file.figures->minimum, 6) + " to " + plain(file.figures->maximum, 6) + ", sum " +
                               plain(file.figures->sum, 6));
  for (const auto& problem : file.problems) text += line("PROBLEM", problem);
  for (const auto& note : file.notes) text += line("note", note);
  return text;
}

nlohmann::ordered_json pair_json(const CheckedFile& file, const Occurrences& found) {
  nlohmann::ordered_json json{{"count", found.count}, {"first", nullptr}};
  if (found.count > 0) json["first"] = {found.first / file.columns(), found.first % file.columns()};
  return json;
}

nlohmann::ordered_json row_json(const Occurrences& found) {
  nlohmann::ordered_json json{{"count", found.count}, {"first", nullptr}};
  if (found.count > 0) json["first"] = found.first;
  return json;
}

nlohmann::ordered_json file_json(const CheckedFile& file) {
  nlohmann::ordered_json json{{"role", file.role}, {"path", file.path}};
  if (file.file) json.update(to_json(*file.file));
  json["path"] = file.path;
  if (file.figures) {
    const ValueFigures& found = *file.figures;
    json.update({{"minimum", found.minimum},
                 {"maximum", found.maximum},
                 {"sum", found.sum},
                 {"nan", pair_json(file, found.nan)},
                 {"inf", pair_json(file, found.plus_infinite)},
                 {"minus_inf", pair_json(file, found.minus_infinite)},
                 {"negative", pair_json(file, found.negative)},
                 {"zero_rows", row_json(found.zero_rows)},
                 {"zero_columns", found.zero_columns},
                 {"constant_columns", found.constant_columns},
                 {"equal_columns", found.equal_columns},
                 {"column_scales", found.largest}});
  }
  json["problems"] = file.problems;
  json["notes"] = file.notes;
  return json;
}

ExitCode check_files(const Communicator& communicator, const Arguments& arguments) {
  const bool attention = arguments.on("attention");
  std::vector<CheckedFile> files = listed(arguments);
  set_threads(communicator, arguments);
  for (auto& file : files) open_file(communicator, file);
  judge_shapes(files, attention);
  for (auto& file : files) read_file(communicator, file);
  if (attention && files.back().figures) judge_attention(files.back(), files.size() == 3);
  std::int64_t problems = 0, notes = 0;
  std::string text;
  auto list = nlohmann::ordered_json::array();
  for (const auto& file : files) {
    problems += std::ssize(file.problems);
    notes += std::ssize(file.notes);
    text += human_text(file);
    list.push_back(file_json(file));
  }
  text += (problems == 0 ? "no problem"
                         : counted(problems, "problem") + ": " + (attention ? "attention" : "solve") +
                               " would refuse these files") +
          (notes == 0 ? "" : ", " + counted(notes, "note")) + "\n";
  auto json = document_of("check", arguments);
  json.update({{"problems", problems}, {"files", list}});
  print_result(communicator, arguments.on("json") ? json_text(json) : to_width(text));
  return problems == 0 ? ExitCode::converged : ExitCode::bad_input;
}

}  // namespace

Command check_command() { return {kCheckSyntax, check_files}; }

}  // namespace attnreg::app
