#include "app/run/sequence_list.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <optional>
#include <type_traits>
#include <utility>

#include "app/report/text.hpp"
#include "errors/printable.hpp"
#include "files/input_file.hpp"

namespace attnreg::app {

namespace {

enum Role : std::size_t { kRoleQueries, kRoleKeys, kRoleValues, kRoleTarget, kRoleWeights, kRoleMask, kRoleCount };
constexpr std::array<std::string_view, kRoleCount> kRoleNames{"queries", "keys", "values", "target", "weights", "mask"};

std::optional<Role> role_of(std::string_view name) {
  const auto k = static_cast<std::size_t>(std::ranges::find(kRoleNames, name) - kRoleNames.begin());
  return k < kRoleCount ? std::optional(static_cast<Role>(k)) : std::nullopt;
}

std::string role_names() {
  std::string names;
  for (const auto name : kRoleNames) names += (names.empty() ? "" : ", ") + std::string(name);
  return names;
}

/// A word of a line; quotation marks at its beginning, or behind its '=', keep blanks and '#' together.
struct Word {
  std::string text;                        ///< without the marks
  std::size_t equals = std::string::npos;  ///< of the first '=' that is not quoted
  bool quoted = false;

  bool is_name() const { return !quoted && equals == std::string::npos && role_of(text); }
};

/// By role, the files of a line as they are written there.
using Names = std::array<std::optional<std::string>, kRoleCount>;

/// The words of one line, and what they mean.
class ListLine {
 public:
  ListLine(std::string_view line, std::filesystem::path directory, std::string place)
      : directory_(std::move(directory)), place_(std::move(place)) {
    split(line);
  }

  bool empty() const { return words_.empty(); }

  /// The roles of the columns, if the line is a header: names, and none else.
  std::vector<Role> header() const {
    const auto names = std::ranges::count_if(words_, &Word::is_name);
    const auto is_file = [&](const Word& word) { return std::filesystem::exists(directory_ / word.text); };
    if (names == 0 || std::ranges::all_of(words_, [&](const Word& word) { return !word.is_name() || is_file(word); })) {
      if (names > 0 && names == std::ssize(words_))
        refuse("these could be the names of a header, or of files, which are there; quote the names of files");
      return {};
    }
    std::vector<Role> roles;
    for (const auto& word : words_) {
      if (!word.is_name())
        refuse("'" + printable(word.text) + "' is none of the names of a header line, which are " + role_names());
      const Role role = *role_of(word.text);
      if (std::ranges::count(roles, role) > 0) refuse("the header has '" + word.text + "' twice");
      roles.push_back(role);
    }
    return roles;
  }

  /// The files by role; `columns`: the header, empty without one.
  SequenceFiles files(const std::vector<Role>& columns, const std::string& number, const std::string& mask) {
    take_words();
    if (columns.empty())
      take_positions(number);
    else
      take_columns(columns);
    for (const Role role : {kRoleQueries, kRoleKeys, kRoleTarget})
      if (!names_[role]) refuse("no file is named for the " + name_of(role) + how_to_name());
    if (names_[kRoleValues] && names_[kRoleWeights]) refuse("values and weights exclude each other");
    SequenceFiles files{look(kRoleQueries, number), look(kRoleKeys, number), look(kRoleTarget, number), {}, {}, {}};
    if (names_[kRoleValues]) files.values = look(kRoleValues, number);
    if (names_[kRoleWeights]) files.weights = look(kRoleWeights, number);
    files.mask = here([&] {
      if (names_[kRoleMask]) remember_input((directory_ / *names_[kRoleMask]).string());
      return names_[kRoleMask] ? examine_mask(*names_[kRoleMask], "mask" + number, directory_.string())
                               : examine_mask(mask, "mask" + number);
    });
    return files;
  }

 private:
  [[noreturn]] void refuse(const std::string& problem) const { throw InvalidArgument(place_ + ": " + problem); }
  static std::string name_of(Role role) { return std::string(kRoleNames[role]); }
  static std::string how_to_name() {
    return "; write queries keys target, and others by name: values=FILE, target=FILE, weights=FILE, mask=MASK";
  }
  /// What `look` finds in a file, or throws with the place of the name.
  template <class Look>
  std::invoke_result_t<Look> here(Look&& look) const {
    try {
      return look();
    } catch (const InvalidArgument& error) {
      throw InvalidArgument(place_ + ": " + error.what());
    }
  }
  InputFile look_at(const std::string& role, const std::string& file) const {
    return here([&] { return examine(role, (directory_ / file).string()); });
  }
  InputFile look(Role role, const std::string& number) const { return look_at(name_of(role) + number, *names_[role]); }

  void split(std::string_view line) {
    bool open = false;
    char quote = 0;
    for (const char c : line) {
      if (quote != 0) {
        if (c == quote)
          quote = 0;
        else
          words_.back().text += c;
        continue;
      }
      if (c == '#') break;
      if (std::string_view(" \t\r\v\f").find(c) != std::string_view::npos) {
        open = false;
        continue;
      }
      if (!open) words_.emplace_back();
      Word& word = words_.back();
      const bool at_beginning = !open || word.equals + 1 == word.text.size();
      open = true;
      if ((c == '"' || c == '\'') && at_beginning) {
        quote = c;
        word.quoted = word.quoted || word.equals == std::string::npos;
        continue;
      }
      if (c == '=' && !word.quoted) word.equals = std::min(word.equals, word.text.size());
      word.text += c;
    }
    if (quote != 0) refuse("a quotation mark is not closed");
  }

  /// Divides the words into those with a name and the others.
  void take_words() {
    for (const auto& word : words_) {
      const std::string name = word.text.substr(0, std::min(word.equals, word.text.size()));
      const bool names = word.equals != std::string::npos && std::ranges::all_of(name, [](char c) {
                           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
                         });
      if (!names) {
        unnamed_.push_back(word.text);
        continue;
      }
      const auto role = role_of(name);
      if (!role)
        refuse("'" + printable(word.text) + "': the names are " + role_names() + suggestion(name, kRoleNames) +
               "; no blanks around '=', and the name of a file that has '=' in it is quoted");
      if (word.equals + 1 == word.text.size()) refuse("'" + name + "=' names no file; no blanks around '='");
      set(*role, word.text.substr(word.equals + 1));
    }
  }

  void set(Role role, const std::string& file) {
    if (names_[role]) refuse("two files are named for the " + name_of(role));
    names_[role] = file;
  }

  void take_columns(const std::vector<Role>& columns) {
    if (unnamed_.size() != columns.size())
      refuse("found " + std::to_string(unnamed_.size()) + " files, the header has " + std::to_string(columns.size()) +
             " names");
    for (std::size_t k = 0; k < columns.size(); ++k) set(columns[k], unnamed_[k]);
  }

  void take_positions(const std::string& number) {
    if (unnamed_.empty()) return;
    if (names_[kRoleQueries] || names_[kRoleKeys])
      refuse("'" + printable(unnamed_[0]) +
             "' has no name, and positions mean queries and keys first; name all files of this line");
    if (unnamed_.size() == 1 || unnamed_.size() > 4 || (unnamed_.size() == 4 && !is_plain()))
      refuse("found " + std::to_string(unnamed_.size()) + " files without a name, expected queries keys target" +
             how_to_name());
    set(kRoleQueries, unnamed_[0]);
    set(kRoleKeys, unnamed_[1]);
    if (unnamed_.size() == 4) return take_four(number);
    if (unnamed_.size() < 3) return;
    if (names_[kRoleTarget])
      refuse("'" + printable(unnamed_[2]) + "' could be values or weights, as the target is named; write values=" +
             printable(unnamed_[2]) + " or weights=" + printable(unnamed_[2]));
    set(kRoleTarget, unnamed_[2]);
  }

  /// No word but a mask has a name.
  bool is_plain() const { return !names_[kRoleValues] && !names_[kRoleTarget] && !names_[kRoleWeights]; }

  /// Four files: values and target, or target and weights, if the other reading is impossible.
  void take_four(const std::string& number) {
    std::array<InputFile, 4> files;
    for (std::size_t k = 0; k < files.size(); ++k)
      files[k] = look_at("file " + std::to_string(k + 1) + number, unnamed_[k]);
    const auto rows = [&](std::size_t k) { return files[k].header.shape.empty() ? 0 : files[k].header.shape[0]; };
    const auto has_shape_of_logits = [&](std::size_t k) {
      return rows(k) == rows(0) && files[k].header.columns() == rows(1);
    };
    const bool values = rows(2) == rows(1) && rows(3) == rows(0);
    const bool weights = has_shape_of_logits(2) && has_shape_of_logits(3);
    const std::string third = printable(unnamed_[2]), fourth = printable(unnamed_[3]);
    const std::string ways = "values=" + third + " target=" + fourth + " or target=" + third + " weights=" + fourth;
    if (values && weights)
      refuse("the last two files could be values and target, or target and weights; write " + ways);
    if (!values && !weights)
      refuse("for " + std::to_string(rows(0)) + " queries and " + std::to_string(rows(1)) +
             " keys the last two files, " + files[2].header.shape_text() + " and " + files[3].header.shape_text() +
             ", are neither values and target nor target and weights; write " + ways);
    set(values ? kRoleValues : kRoleTarget, unnamed_[2]);
    set(values ? kRoleTarget : kRoleWeights, unnamed_[3]);
  }

  std::filesystem::path directory_;
  std::string place_;
  std::vector<Word> words_;
  std::vector<std::string> unnamed_;
  Names names_;
};

/// What editors write before the text.
void skip_byte_order_mark(std::string& line, const std::string& path) {
  if (line.starts_with("\xef\xbb\xbf")) line.erase(0, 3);
  if (line.starts_with("\xff\xfe") || line.starts_with("\xfe\xff"))
    throw InvalidArgument(printable(path) + ": the list is in UTF-16; save it in UTF-8");
}

}  // namespace

std::vector<SequenceFiles> examine_list(const std::string& path, const std::string& mask) {
  std::ifstream list(path);
  if (!list) throw InvalidArgument(printable(path) + ": cannot open the list of sequences");
  std::vector<SequenceFiles> sequences;
  std::vector<Role> columns;
  std::string text;
  bool first = true;
  for (int number = 1; std::getline(list, text); ++number) {
    if (number == 1) skip_byte_order_mark(text, path);
    ListLine line(text, std::filesystem::path(path).parent_path(),
                  printable(path) + ", line " + std::to_string(number));
    if (line.empty()) continue;
    if (std::exchange(first, false)) {
      columns = line.header();
      if (!columns.empty()) continue;
    }
    sequences.push_back(line.files(columns, " " + std::to_string(sequences.size()), mask));
  }
  if (sequences.empty()) throw InvalidArgument(printable(path) + ": the list names no sequence");
  return sequences;
}

std::string sequences_text(const std::vector<AttentionSequence>& sequences, Index d1, Index d2) {
  const auto masked = std::ranges::count_if(sequences, [](const auto& sequence) { return sequence.mask.has_value(); });
  const std::string masks = masked == 0                       ? ""
                            : masked == std::ssize(sequences) ? ", masked"
                                                              : ", " + std::to_string(masked) + " of them masked";
  return counted(std::ssize(sequences), "sequence") + masks + ", the first " +
         std::to_string(sequences[0].partition.rows_global()) + " queries x " +
         std::to_string(sequences[0].keys.rows()) + " keys, X " + std::to_string(d1) + " x " + std::to_string(d2);
}

std::vector<SequenceFiles> examine_sequences(const Arguments& arguments) {
  if (arguments.given("sequences")) return examine_list(arguments.text("sequences"), arguments.text("mask"));
  const auto look = [&](const char* role) { return examine(role, arguments.text(role)); };
  SequenceFiles files{look("queries"), look("keys"), look("target"), {}, {}, {}};
  files.mask = examine_mask(arguments.text("mask"), "mask");
  if (arguments.given("values")) files.values = look("values");
  if (arguments.given("weights")) files.weights = look("weights");
  return {std::move(files)};
}

}  // namespace attnreg::app
