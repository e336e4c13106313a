#include "app/report/token_report.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "app/report/json.hpp"
#include "app/report/summary.hpp"
#include "app/report/text.hpp"

namespace attnreg {

ATTNREG_JSON(KeyError, name, keys, output, worst, blind)
ATTNREG_JSON(QueryBound, median, largest)

}  // namespace attnreg

namespace attnreg::app {

namespace {

constexpr double kFarBetter = 2;  // times nearer than another choice of as many keys

/// Over all heads: errors of all outputs together, the worst query of all.
std::vector<KeyError> errors_of_all(const std::vector<HeadChoice>& heads) {
  std::vector<KeyError> all = heads[0].errors;
  double size = 0, largest = 0;
  for (const HeadChoice& head : heads) largest = std::max(largest, head.size);
  const auto share = [&](const HeadChoice& head) { return largest > 0 ? head.size / largest : 0; };
  for (const HeadChoice& head : heads) size += share(head) * share(head);
  for (std::size_t k = 0; k < all.size(); ++k) {
    double keys = 0, squares = 0;
    all[k].blind = 0;
    for (const HeadChoice& head : heads) {
      const KeyError& error = head.errors[k];
      keys += error.keys / static_cast<double>(heads.size());
      squares += std::pow(error.output * share(head), 2);
      all[k].worst = std::max(all[k].worst, error.worst);
      all[k].blind += error.blind;
    }
    all[k].keys = keys;
    all[k].output = size > 0 ? std::sqrt(squares / size) : 0;
  }
  return all;
}

QueryBound bound_of_all(const std::vector<HeadChoice>& heads) {
  QueryBound all = heads[0].bound;
  for (const HeadChoice& head : heads) {
    all.median = std::max(all.median, head.bound.median);
    all.largest = std::max(all.largest, head.bound.largest);
  }
  return all;
}

std::int64_t kept_of_all(const TokenReport& report) {
  std::int64_t kept = 0;
  for (const HeadChoice& head : report.heads) kept += head.kept;
  return kept;
}

bool was_measured(const TokenReport& report) { return !report.heads[0].errors.empty(); }

std::string_view name_on_page(const std::string& name) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 6> names{
      {{"mean", "mean of the values (Y = 0)"},
       {"uniform", "drawn uniformly"},
       {"recent", "most recent"},
       {"topk", "largest attention mass"},
       {"hyperattention", "HyperAttention's idea"},
       {"kdeformer", "KDEformer's, exact norms"}}};
  for (const auto& [key, text] : names)
    if (name == key) return text;
  return name;
}

/// What it means for the user, in one sentence.
std::string token_verdict(const TokenReport& report) {
  if (kept_of_all(report) >= report.keys * std::ssize(report.heads)) return "nothing gained: all keys were kept";
  if (!was_measured(report)) return "what that does to the outputs was not measured";
  const auto errors = errors_of_all(report.heads);
  const KeyError& chosen = errors[0];
  if (chosen.blind > 0)
    return counted(chosen.blind, "query") + " see none of the keys that were kept: keep some for all, as with " +
           "--keep-first 1";
  if (!(chosen.output < errors[1].output)) return "worthless: the mean of the values is as near";
  const auto best = std::ranges::min_element(errors.begin() + 1, errors.end(), {}, &KeyError::output);
  const std::string other(name_on_page(best->name));
  if (!(chosen.output < best->output)) return "of little use: " + other + " is as near to the outputs, or nearer";
  const std::string nearer = chosen.output > 0 ? plain(best->output / chosen.output, 3) + " times" : "infinitely";
  return (best->output > kFarBetter * chosen.output ? "of use: " : "of some use: ") + nearer +
         " nearer to the outputs than the next best, " + other;
}

std::string error_table(const std::vector<KeyError>& errors) {
  std::string text = "\nErrors of the attention output O\n" + std::string(30, ' ') + padded("keys", 10) +
                     padded("|O~ - O| / |O|", 16) + padded("worst query", 13) + "blind\n";
  for (const KeyError& error : errors) {
    const std::string name(name_on_page(error.name));
    text += "  " + padded(name, 28) + padded(plain(error.keys, 6), 10) + padded(plain(error.output, 3), 16) +
            padded(plain(error.worst, 3), 13) + std::to_string(error.blind) + "\n";
  }
  return text;
}

}  // namespace

std::string token_text(const TokenReport& report) {
  const auto heads = std::ssize(report.heads);
  std::string text =
      std::to_string(kept_of_all(report)) + " of " + std::to_string(report.keys * heads) +
      " keys, weighted, for softmax(Q K^T) V\n" + summary_line("verdict", token_verdict(report)) +
      summary_line("heads", std::to_string(heads) + ", " + counted(report.queries, "query") + " and " +
                                counted(report.keys, "key") + " each, d = " + std::to_string(report.columns) +
                                ", values of " + std::to_string(report.value_columns)) +
      summary_line("method", report.method);
  if (report.method == "halving" && !std::ranges::all_of(report.heads, &HeadChoice::is_fitted))
    text += summary_line("weights", "not fitted, as more than " + std::to_string(kMostFitted) + " keys were kept");
  if (was_measured(report)) {
    const QueryBound bound = bound_of_all(report.heads);
    if (!std::isnan(bound.median))
      text += summary_line("any query", "by the bound " + plain(bound.median, 3) + " for half of the queries, " +
                                            plain(bound.largest, 3) + " for all, of the size of an output");
  }
  text += summary_line("seconds", fixed(report.read_seconds, 3) + " to read, " + fixed(report.choose_seconds, 3) +
                                      " to choose, " + fixed(report.measure_seconds, 3) + " to measure, on " +
                                      counted(report.ranks, "rank") + " with " + counted(report.threads, "thread") +
                                      " each");
  if (was_measured(report)) text += error_table(errors_of_all(report.heads));
  return text + list_text("Files", report.files);
}

nlohmann::ordered_json token_json(const TokenReport& report) {
  auto json = document_of("sparsify-tokens", report.arguments);
  json.update({{"heads", report.heads.size()},
               {"queries", report.queries},
               {"keys", report.keys},
               {"d", report.columns},
               {"value_columns", report.value_columns},
               {"scale", report.scale},
               {"method", report.method},
               {"verdict", token_verdict(report)},
               {"kept", kept_of_all(report)},
               {"ranks", report.ranks},
               {"threads", report.threads},
               {"read_seconds", report.read_seconds},
               {"choose_seconds", report.choose_seconds},
               {"measure_seconds", report.measure_seconds},
               {"files", report.files}});
  if (was_measured(report)) {
    json["errors"] = errors_of_all(report.heads);
    json["bound"] = bound_of_all(report.heads);
  }
  json["by_head"] = nlohmann::ordered_json::array();
  for (const HeadChoice& head : report.heads) {
    nlohmann::ordered_json entry{{"kept", head.kept}, {"fitted", head.is_fitted}};
    if (was_measured(report)) entry.update({{"errors", head.errors}, {"bound", head.bound}});
    json["by_head"].push_back(entry);
  }
  return json;
}

}  // namespace attnreg::app
