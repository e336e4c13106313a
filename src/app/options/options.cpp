#include "app/options/options.hpp"

#include <boost/program_options.hpp>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "errors/printable.hpp"

namespace attnreg::app {

namespace po = boost::program_options;

namespace {

template <class T>
std::optional<T> parse(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

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
    const auto value = parse<double>(text);
    require(value && within(*value, *range), expectation(*range));
  }
  if (const auto* range = std::get_if<Integer>(&kind)) {
    const auto value = parse<std::int64_t>(text);
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

po::options_description boost_description(const Syntax& syntax) {
  po::options_description description;
  for (const auto& group : syntax.groups)
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
  const std::string see_help = "; `attnreg " + std::string(syntax.name) + " --help` lists the options";
  try {
    const auto style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    const auto description = boost_description(syntax);
    const std::vector<std::string> copy(words.begin(), words.end());
    return po::command_line_parser(copy).options(description).style(style).run().options;
  } catch (const po::unknown_option& error) {
    std::vector<std::string_view> names;
    for (const auto& group : syntax.groups)
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
  if (std::holds_alternative<Number>(kind)) return *parse<double>(text);
  if (std::holds_alternative<Integer>(kind)) return *parse<std::int64_t>(text);
  return text;
}

}  // namespace

Arguments::Arguments(const Syntax& syntax, std::span<const std::string> words) : syntax_(syntax) {
  for (const auto& positional : syntax.positionals) declare(positional.name, positional.kind, "");
  for (const auto& group : syntax.groups)
    for (const auto& option : group.options) declare(option.name, option.kind, option.fallback);

  std::vector<std::string> positionals;
  for (const auto& option : split(syntax, words)) {
    if (option.position_key >= 0) {
      positionals.insert(positionals.end(), option.value.begin(), option.value.end());
    } else {
      set(option.string_key, "--" + option.string_key, option.value.empty() ? std::string() : option.value.front());
    }
  }
  set_positionals(positionals);
}

void Arguments::declare(std::string_view name, const ValueKind& kind, std::string_view fallback) {
  order_.push_back(name);
  values_[std::string(name)] = {&kind, std::string(fallback), false};
}

void Arguments::set(std::string_view name, std::string_view shown, const std::string& text) {
  Value& value = values_.find(name)->second;
  if (value.given) throw UsageError(std::string(shown) + " is given twice");
  check_value(shown, *value.kind, text);
  value.text = text;
  value.given = true;
}

void Arguments::set_positionals(std::span<const std::string> words) {
  const bool replaced = std::ranges::any_of(syntax_.instead_of_positionals, [&](auto name) { return given(name); });
  auto wanted = replaced ? std::vector<Positional>{} : syntax_.positionals;
  if (!syntax_.instead_of_last.empty() && given(syntax_.instead_of_last)) wanted.pop_back();
  const std::string command = "attnreg " + std::string(syntax_.name);
  if (words.size() > wanted.size())
    throw UsageError("surplus argument '" + printable(words[wanted.size()]) + "'; `" + command +
                     " --help` shows the usage");
  if (words.size() < wanted.size()) {
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

bool Arguments::has(std::string_view name) const { return given(name) || !value(name).text.empty(); }
bool Arguments::given(std::string_view name) const { return value(name).given; }
std::string Arguments::text(std::string_view name) const { return value(name).text; }
double Arguments::number(std::string_view name) const { return parse<double>(value(name).text).value(); }
std::int64_t Arguments::integer(std::string_view name) const { return parse<std::int64_t>(value(name).text).value(); }

std::size_t Arguments::choice(std::string_view name) const {
  const auto& names = std::get<Choice>(*value(name).kind).names;
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

void Arguments::exclude(std::string_view one, std::string_view other) const {
  if (given(one) && given(other))
    throw UsageError("--" + std::string(one) + " and --" + std::string(other) +
                     " exclude each other; give one of them");
}

nlohmann::ordered_json Arguments::configuration() const {
  nlohmann::ordered_json all;
  for (const auto name : order_) {
    if (name == "help") continue;
    const Value& entry = value(name);
    all[std::string(name)] = {{"value", json_value(*entry.kind, entry.text, entry.given)},
                              {"source", entry.given ? "command line" : "default"}};
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

}  // namespace attnreg::app
