#include "app/options/options.hpp"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>

#include "algebra/blas_products.hpp"
#include "errors/printable.hpp"

// Weak: another BLAS may be linked in place of OpenBLAS.
extern "C" __attribute__((weak)) void openblas_set_num_threads(int threads);

namespace attnreg::app {

namespace {

namespace po = boost::program_options;

std::string shortest(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

std::string joined(const std::vector<std::string_view>& names) {
  std::string text;
  for (const auto name : names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

std::string expectation(const Number& range) {
  std::string text =
      std::string("a finite number ") + (range.without_smallest ? "> " : ">= ") + shortest(range.smallest);
  if (range.largest < std::numeric_limits<double>::max()) text += " and <= " + shortest(range.largest);
  return text;
}

std::string expectation(const Integer& range) {
  std::string text = "an integer >= " + std::to_string(range.smallest);
  if (range.largest < std::numeric_limits<std::int64_t>::max()) text += " and <= " + std::to_string(range.largest);
  return text;
}

bool within(double value, const Number& range) {
  return std::isfinite(value) && value >= range.smallest && value <= range.largest &&
         !(range.without_smallest && value == range.smallest);
}

void check_value(std::string_view shown, const ValueKind& kind, const std::string& text) {
  const auto require = [&](bool condition, const std::string& expected) {
    if (!condition) throw UsageError(std::string(shown) + " is '" + printable(text) + "'; expected " + expected);
  };
  if (std::holds_alternative<Text>(kind)) require(!text.empty(), "a text that is not empty");
  if (const auto* range = std::get_if<Number>(&kind)) {
    const auto value = number_in<double>(text);
    require(value && within(*value, *range), expectation(*range));
  }
  if (const auto* range = std::get_if<Integer>(&kind)) {
    const auto value = number_in<std::int64_t>(text);
    require(value && *value >= range->smallest && *value <= range->largest, expectation(*range));
  }
  if (const auto* choice = std::get_if<Choice>(&kind))
    require(std::ranges::find(choice->names, text) != choice->names.end(),
            "one of " + joined(choice->names) + suggestion(text, choice->names));
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

po::options_description boost_description(const std::vector<OptionGroup>& groups) {
  po::options_description description;
  for (const auto& group : groups)
    for (const auto& option : group.options) {
      std::string name(option.name);
      if (option.letter != 0) name += std::string(",") + option.letter;
      const bool takes_no_value = std::holds_alternative<Switch>(option.kind);
      description.add_options()(name.c_str(), new po::untyped_value(takes_no_value));
    }
  return description;
}

/// The words as Boost splits them. No abbreviations.
std::vector<po::option> split(const Syntax& syntax, std::span<const std::string> words) {
  const auto groups = groups_of(syntax);
  const std::string see_help = "; `attnreg " + std::string(syntax.name) + " --help` lists the options";
  try {
    const auto style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    const auto description = boost_description(groups);
    const std::vector<std::string> copy(words.begin(), words.end());
    return po::command_line_parser(copy).options(description).style(style).run().options;
  } catch (const po::unknown_option& error) {
    std::vector<std::string_view> names;
    for (const auto& group : groups)
      for (const auto& option : group.options) names.push_back(option.name);
    const std::string name = error.get_option_name();
    const std::string near = name.starts_with("--") ? suggestion(std::string_view(name).substr(2), names, "--") : "";
    throw UsageError("unknown option '" + printable(name) + "'" + near +
                     (near.empty() ? "" : " Options are not abbreviated") + see_help);
  } catch (const po::error& error) {
    throw UsageError(printable(error.what()) + see_help);
  }
}

nlohmann::ordered_json json_value(const ValueKind& kind, const std::string& text, bool given) {
  if (std::holds_alternative<Switch>(kind)) return given;
  if (text.empty()) return nullptr;
  if (std::holds_alternative<Number>(kind)) return *number_in<double>(text);
  if (std::holds_alternative<Integer>(kind)) return *number_in<std::int64_t>(text);
  return text;
}

cpu_set_t affinity() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof cores, &cores) != 0 || CPU_COUNT(&cores) == 0) {
    CPU_ZERO(&cores);
    CPU_SET(0, &cores);
  }
  return cores;
}

/// Equal for ranks on one host with the same cores.
std::int64_t identity(const cpu_set_t& cores) {
  std::string text = host_name();
  text.append(reinterpret_cast<const char*>(&cores), sizeof cores);
  return static_cast<std::int64_t>(std::hash<std::string>{}(text));
}

}  // namespace

std::vector<OptionGroup> groups_of(const Syntax& syntax) {
  std::vector<OptionGroup> groups = syntax.groups;
  groups.push_back(
      {"General",
       {{"config", 0, "FILE", Text{}, "",
         "a .toml or .json file with values for options that are not given here; the run.json of a run repeats it"},
        {"print-config", 0, "", Switch{}, "", "print each value and where it is from, and do nothing else"},
        {"help-all", 0, "", Switch{}, "", "show this page with the options for experts"},
        {"help", 'h', "", Switch{}, "", "show this page"}}});
  return groups;
}

Arguments::Arguments(const Syntax& syntax, std::span<const std::string> words, std::span<const Setting> settings)
    : syntax_(syntax), words_(words.begin(), words.end()) {
  words_.insert(words_.begin(), std::string(syntax.name));
  for (const auto& positional : syntax.positionals) declare(positional.name, positional.kind, "");
  for (const auto& group : groups_of(syntax))
    for (const auto& option : group.options) declare(option.name, option.kind, option.fallback);

  std::vector<std::string> positionals;
  for (const auto& option : split(syntax, words)) {
    if (option.position_key >= 0) {
      positionals.insert(positionals.end(), option.value.begin(), option.value.end());
    } else {
      set(option.string_key, "--" + option.string_key, option.value.empty() ? std::string() : option.value.front());
    }
  }
  for (const auto& setting : settings)
    if (std::ranges::none_of(syntax.positionals, [&](const auto& one) { return one.name == setting.name; }))
      take(setting);
  set_positionals(positionals, settings);
}

/// Unless the value is there, or the command knows no such.
void Arguments::take(const Setting& setting) {
  if (!knows(setting.name) || given(setting.name)) return;
  const bool is_positional =
      std::ranges::any_of(syntax_.positionals, [&](const auto& one) { return one.name == setting.name; });
  if (!is_positional) words_.push_back("--" + setting.name);  // a run that goes on has them, too
  if (!std::holds_alternative<Switch>(value(setting.name).kind)) {
    set(setting.name, setting.shown, setting.text, setting.source);
    words_.push_back(setting.text);
    return;
  }
  if (setting.text != "true" && setting.text != "false")
    throw UsageError(setting.shown + " is '" + printable(setting.text) + "'; expected true or false");
  if (setting.text == "true")
    set(setting.name, setting.shown, "", setting.source);
  else
    words_.pop_back();
}

void Arguments::resume(std::shared_ptr<const Checkpoint> checkpoint, const std::string& directory,
                       const Arguments& by) {
  checkpoint_ = std::move(checkpoint);
  values_.find("output")->second.text = directory;
  if (by.on("quiet") || by.on("verbose"))
    for (const auto* const name : {"quiet", "verbose"}) values_.find(name)->second.given = false;
  for (const auto& [name, value] : by.values_)
    if (const auto own = values_.find(name); value.given && own != values_.end()) own->second = value;
}

void Arguments::declare(std::string_view name, const ValueKind& kind, std::string_view fallback) {
  order_.push_back(name);
  values_[std::string(name)] = {kind, std::string(fallback)};
}

void Arguments::set(std::string_view name, std::string_view shown, const std::string& text, const std::string& source) {
  Value& value = values_.find(name)->second;
  if (value.given) throw UsageError(std::string(shown) + " is given twice");
  check_value(shown, value.kind, text);
  value.text = text;
  value.given = true;
  value.source = source;
}

void Arguments::set_positionals(std::span<const std::string> words, std::span<const Setting> settings) {
  const bool replaced = std::ranges::any_of(syntax_.instead_of_positionals, [&](auto name) { return given(name); });
  auto wanted = replaced ? std::vector<Positional>{} : syntax_.positionals;
  if (!replaced && !syntax_.instead_of_last.empty() && given(syntax_.instead_of_last)) wanted.pop_back();
  const std::string command = "attnreg " + std::string(syntax_.name);
  if (!syntax_.more.empty() && words.size() > wanted.size()) {
    rest_.assign(words.begin() + std::ssize(wanted), words.end());
    words = words.first(wanted.size());
  }
  if (words.size() > wanted.size())
    throw UsageError("surplus argument '" + printable(words[wanted.size()]) + "'; `" + command +
                     " --help` shows the usage");
  if (words.empty())  // a configuration has all of them or none
    for (const auto& positional : wanted)
      for (const auto& setting : settings)
        if (setting.name == positional.name) take(setting);
  const bool has_all = std::ranges::all_of(wanted, [&](const auto& positional) { return given(positional.name); });
  if (words.size() < wanted.size() && !has_all && !on("print-config")) {
    const auto& missing = wanted[words.size()];
    throw UsageError("missing argument " + std::string(missing.name) + " (" + std::string(missing.help) + "); `" +
                     command + " --help` shows the usage");
  }
  for (std::size_t k = 0; k < words.size(); ++k) set(wanted[k].name, wanted[k].name, words[k]);
}

const Arguments::Value& Arguments::value(std::string_view name) const {
  const auto found = values_.find(name);
  if (found == values_.end()) throw InternalError("option '" + std::string(name) + "' is not declared");
  return found->second;
}

bool Arguments::knows(std::string_view name) const { return values_.contains(name); }
bool Arguments::has(std::string_view name) const { return given(name) || !value(name).text.empty(); }
bool Arguments::given(std::string_view name) const { return value(name).given; }
std::string Arguments::text(std::string_view name) const { return value(name).text; }
double Arguments::number(std::string_view name) const { return number_in<double>(value(name).text).value(); }
std::int64_t Arguments::integer(std::string_view name) const {
  return number_in<std::int64_t>(value(name).text).value();
}

std::size_t Arguments::choice(std::string_view name) const {
  const auto& names = std::get<Choice>(value(name).kind).names;
  return static_cast<std::size_t>(std::ranges::find(names, value(name).text) - names.begin());
}

std::optional<int> Arguments::optional_integer(std::string_view name) const {
  return has(name) ? std::optional(count(name)) : std::nullopt;
}

void Arguments::require(std::string_view name) const {
  if (!given(name))
    throw UsageError("option --" + std::string(name) + " is needed; `attnreg " + std::string(syntax_.name) +
                     " --help` shows the usage");
}

void Arguments::refuse(std::initializer_list<std::string_view> names, std::string_view why) const {
  for (const std::string_view name : names)
    if (given(name)) throw UsageError("--" + std::string(name) + " " + std::string(why));
}

void Arguments::exclude(std::string_view one, std::string_view other) const {
  if (given(one) && given(other))
    throw UsageError("--" + std::string(one) + " and --" + std::string(other) +
                     " exclude each other; give one of them");
}

std::vector<std::string> Arguments::texts_but(std::initializer_list<std::string_view> names) const {
  std::vector<std::string> texts;
  for (const auto& [name, value] : values_)
    if (value.given && std::holds_alternative<Text>(value.kind) && std::ranges::find(names, name) == names.end())
      texts.push_back(value.text);
  return texts;
}

nlohmann::ordered_json Arguments::configuration() const {
  auto all = nlohmann::ordered_json::object();
  for (const auto name : order_) {
    if (name == "help" || name == "help-all" || name == "print-config" || name == "config") continue;
    const Value& entry = value(name);
    all[std::string(name)] = {{"value", json_value(entry.kind, entry.text, entry.given)}, {"source", entry.source}};
  }
  return all;
}

std::string suggestion(std::string_view word, std::span<const std::string_view> names, const std::string& prefix) {
  std::string_view best;
  std::size_t best_distance = std::max<std::size_t>(2, word.size() / 3) + 2;
  for (const auto name : names) {
    const bool begins = word.size() >= 2 && name.starts_with(word);
    const std::size_t distance = begins ? 0 : edit_distance(word, name) + 1;
    if (distance < best_distance) {
      best = name;
      best_distance = distance;
    }
  }
  return best.empty() ? "" : "; did you mean '" + prefix + std::string(best) + "'?";
}

OptionGroup report_options(std::string_view help) {
  return {"Output",
          {{"output", 'o', "DIR", Text{}, "", help},
           {"force", 0, "", Switch{}, "", "replace the files of an earlier run"},
           json_option("print report.json in place of the page")}};
}

Option json_option(std::string_view what) { return {"json", 0, "", Switch{}, "", what}; }

Option force_option() { return {"force", 0, "", Switch{}, "", "replace a file that is there"}; }

Option threads_option() {
  return {"threads",
          0,
          "N",
          Integer{1, 4096},
          "",
          "threads per rank; default: OMP_NUM_THREADS if set, else the cores that this rank may use, divided by the "
          "ranks that share them"};
}

Option watchdog_option() {
  return {"watchdog",
          0,
          "SECONDS",
          Number{0},
          "",
          "if the ranks of a node neither begin nor end a message for so long, print what every rank does and end with "
          "code 9; 0: never, the default"};
}

Option progress_option() {
  return {
      "progress",
      0,
      "STYLE",
      Choice{{"auto", "bar", "lines", "none"}},
      "auto",
      "what is seen on stderr of work that is silent for more than 2 s. bar: one line that is redrawn; lines: a line "
      "for each step, and each minute; auto: a bar on a terminal, else lines"};
}

Option trust_option() {
  return {
      "trust-input",
      0,
      "",
      Switch{},
      "",
      "read deflated .npz archives whatever size they grow to; else one that grows to more than 100 times its file, "
      "and above 1 GB, is refused"};
}

OptionGroup computing_options() {
  return {"Computing",
          {{"storage", 0, "TYPE", Choice{{"file", "double", "float", "half", "bfloat16"}}, "file",
            "type in which the matrix is held in memory; sums are always in double. file: the type of the file. half "
            "(float16) and bfloat16, for dense ones, take a quarter of double's memory; what they do not have is "
            "rounded, and results are those of the rounded matrix"},
           trust_option(),
           threads_option(),
           watchdog_option(),
           progress_option()}};
}

ThreadLayout set_threads(const Communicator& communicator, const Arguments& arguments) {
  if (openblas_set_num_threads != nullptr) openblas_set_num_threads(1);
  const cpu_set_t cores = affinity();
  const std::int64_t mine = identity(cores);
  ThreadLayout layout;
  layout.cores = CPU_COUNT(&cores);
  const auto of_processes = communicator.all_gather(communicator.leads_process() ? mine : 0);
  layout.ranks_on_cores = static_cast<int>(std::max<std::int64_t>(1, std::ranges::count(of_processes, mine)));
  layout.is_asked = arguments.has("threads") || std::getenv("OMP_NUM_THREADS") != nullptr;
  if (arguments.has("threads")) {
    layout.threads = arguments.count("threads");
  } else if (layout.is_asked) {
    layout.threads = omp_get_max_threads();
  } else {
    layout.threads = std::max(1, layout.cores / layout.ranks_on_cores);
  }
  omp_set_num_threads(layout.threads);
  start_blas(communicator, layout.threads);
  return layout;
}

void use_fewer_threads(ThreadLayout& layout, double numbers_read) {
  constexpr double kNumbersOfThread = 1 << 18;  // 2 MB of A: as long as it takes to wake a thread, several times
  if (layout.is_asked) return;
  layout.threads =
      static_cast<int>(std::clamp(numbers_read / kNumbersOfThread, 1.0, static_cast<double>(layout.threads)));
  omp_set_num_threads(layout.threads);
}

}  // namespace attnreg::app
