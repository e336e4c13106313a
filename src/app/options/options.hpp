#pragma once

#include <charconv>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "attnreg/communicator.hpp"
#include "attnreg/error.hpp"
#include "errors/printable.hpp"

namespace attnreg::app {

struct Checkpoint;

/// Wrong use of the command line. All ranks see the same arguments, so all ranks throw.
class UsageError : public Error {
 public:
  explicit UsageError(const std::string& message) : Error(ExitCode::usage, message, Scope::all_ranks) {}
};

// What an option takes.
struct Switch {};
struct Text {};
struct Number {
  double smallest = 0;
  bool without_smallest = false;  ///< the smallest value itself is excluded
  double largest = std::numeric_limits<double>::max();
};
struct Integer {
  std::int64_t smallest = 0;
  std::int64_t largest = std::numeric_limits<std::int64_t>::max();
};
struct Choice {
  std::vector<std::string_view> names;
};
using ValueKind = std::variant<Switch, Text, Number, Integer, Choice>;

struct Option {
  std::string_view name;        ///< without the dashes
  char letter = 0;              ///< 0: no short form
  std::string_view value_name;  ///< in the help; empty for a switch
  ValueKind kind;
  std::string_view fallback;  ///< default, as it would be typed; empty: none
  std::string_view help;
  bool is_expert = false;  ///< on the page of --help-all only
};

struct OptionGroup {
  std::string_view title;
  std::vector<Option> options;
};

struct Positional {
  std::string_view name;
  std::string_view help;
  ValueKind kind = Text{};
};

/// A value from somewhere else than the command line.
struct Setting {
  std::string name;    ///< of an option or a positional argument
  std::string text;    ///< of a switch: "true" or "false"
  std::string source;  ///< "environment" or "configuration file"
  std::string shown;   ///< in messages: "ATTNREG_WEIGHT", "run.toml: weight"
};

/// The command line of one command. The strings are literals.
struct Syntax {
  std::string_view name;
  std::string_view summary;  ///< one line
  std::vector<Positional> positionals;
  std::vector<OptionGroup> groups;
  std::string_view epilogue;                                  ///< examples; printed as it is
  std::vector<std::string_view> instead_of_positionals = {};  ///< options that each stand for all of them
  std::string_view instead_of_last = {};                      ///< option that stands for the last one
  std::string_view more = {};                                 ///< what may follow, as many as one likes: "FILE"
};

/// The options of a command, with those that all commands have: --config, --print-config, --help-all, --help.
std::vector<OptionGroup> groups_of(const Syntax& syntax);

/// A checked command line: every value is there and in its range. Local; equal arguments give equal results.
class Arguments {
 public:
  /// settings: for what the words leave open, the first of each name; names that the command does not have are left
  /// out. Throws `UsageError`: unknown option (names the nearest), abbreviation, repetition, missing or surplus
  /// argument, value that is not a number, not finite or out of range.
  Arguments(const Syntax& syntax, std::span<const std::string> words, std::span<const Setting> settings = {});

  bool knows(std::string_view name) const;                      ///< the command has such an option
  bool has(std::string_view name) const;                        ///< given or with a default
  bool given(std::string_view name) const;                      ///< on the command line or by a setting
  bool on(std::string_view name) const { return given(name); }  ///< of a switch
  std::string text(std::string_view name) const;                ///< empty if it has no value
  double number(std::string_view name) const;
  std::int64_t integer(std::string_view name) const;
  int count(std::string_view name) const { return static_cast<int>(integer(name)); }
  std::optional<int> optional_integer(std::string_view name) const;
  std::uint64_t seed() const { return static_cast<std::uint64_t>(integer("seed")); }
  std::size_t choice(std::string_view name) const;  ///< position among the names of a `Choice`

  /// Throws `UsageError` unless the option was given.
  void require(std::string_view name) const;
  /// Throws `UsageError`, "--name" and why, for the first of these options that was given.
  void refuse(std::initializer_list<std::string_view> names, std::string_view why) const;
  /// Throws `UsageError` if both were given.
  void exclude(std::string_view one, std::string_view other) const;

  /// All texts on the command line but those of these options.
  std::vector<std::string> texts_but(std::initializer_list<std::string_view> names) const;

  /// Of a syntax that takes more: what was given behind the positionals.
  const std::vector<std::string>& rest() const { return rest_; }

  const Syntax& syntax() const { return syntax_; }
  /// The command line, from the command's name on.
  const std::vector<std::string>& words() const { return words_; }

  /// Makes these the arguments of a run that goes on: in `directory`, with the options that `by` has been given.
  void resume(std::shared_ptr<const Checkpoint> checkpoint, const std::string& directory, const Arguments& by);
  const Checkpoint* resumed() const { return checkpoint_.get(); }  ///< none: the run begins
  /// {"rtol": {"value": 1e-10, "source": "default"}, ...}: all arguments and options.
  nlohmann::ordered_json configuration() const;

 private:
  struct Value {
    ValueKind kind;
    std::string text;
    bool given = false;
    std::string source = "default";
  };

  void declare(std::string_view name, const ValueKind& kind, std::string_view fallback);
  void set(std::string_view name, std::string_view shown, const std::string& text,
           const std::string& source = "command line");
  void set_positionals(std::span<const std::string> words, std::span<const Setting> settings);
  void take(const Setting& setting);
  const Value& value(std::string_view name) const;

  const Syntax& syntax_;
  std::vector<std::string> words_, rest_;
  std::shared_ptr<const Checkpoint> checkpoint_;
  std::vector<std::string_view> order_;
  std::map<std::string, Value, std::less<>> values_;
};

/// The number that a text is, whole; none if it is not one.
template <class Number>
std::optional<Number> number_in(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// The numbers that separators divide a text into; empty if one of the parts is none.
template <class Number>
std::vector<Number> numbers_in(std::string_view text, char separator) {
  std::vector<Number> numbers;
  for (const auto part : parts_of(text, separator)) {
    const auto number = number_in<Number>(part);
    if (!number) return {};
    numbers.push_back(*number);
  }
  return numbers;
}

/// "; did you mean 'name'?" with the name closest to `word`: one that begins with it, else the one with the smallest
/// edit distance; empty if all are too far.
std::string suggestion(std::string_view word, std::span<const std::string_view> names, const std::string& prefix = "");

/// The options that several commands share.
Option threads_option();
Option watchdog_option();
Option progress_option();
Option trust_option();                      ///< of commands that read .npz archives
Option force_option();                      ///< of commands that write single files
Option json_option(std::string_view what);  ///< every command has it; what: "the figures as JSON"
OptionGroup computing_options();

/// --output (`help` says for what), --force and --json of commands that write report.json, and --help.
OptionGroup report_options(std::string_view help);

/// The threads of a rank.
struct ThreadLayout {
  int threads = 1;         ///< OpenMP threads of this rank
  int cores = 1;           ///< that this rank may run on
  int ranks_on_cores = 1;  ///< ranks that may run on the same cores, this one included
  bool is_asked = false;   ///< a number was given, and stays
  bool crowded() const { return threads * ranks_on_cores > cores; }
};

/// Collective. Sets the number of OpenMP threads: --threads, else OMP_NUM_THREADS, else the cores in this rank's
/// affinity mask divided by the ranks that share them. BLAS gets one thread, always.
ThreadLayout set_threads(const Communicator& communicator, const Arguments& arguments);
/// Local. Fewer, unless a number was asked for, where a pass reads so few numbers that threads would wait for each
/// other.
void use_fewer_threads(ThreadLayout& layout, double numbers_read);

}  // namespace attnreg::app
