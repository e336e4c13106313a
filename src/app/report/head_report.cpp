#include "app/report/head_report.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "app/report/json.hpp"
#include "app/report/text.hpp"
#include "app/report/verdict.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

ATTNREG_JSON(HeadFit, queries, total_variation, divergence, error, same_largest)
ATTNREG_JSON(HeadQuality, all, uniform, sequences)

}  // namespace attnreg

namespace attnreg::app {

namespace {

std::string_view verdict_name(HeadVerdict verdict) {
  constexpr std::array<std::string_view, 4> names{"predicts", "roughly", "fits_only", "neither"};
  return names.at(static_cast<std::size_t>(verdict));
}

std::string_view source_name(RankSource source) {
  constexpr std::array<std::string_view, 3> names{"given", "gap", "hold_out"};
  return names.at(static_cast<std::size_t>(source));
}

std::string quality_line(const std::string& label, const HeadFit& fit) {
  return summary_line(label, padded(scientific(fit.error, 3), 12) + padded(scientific(fit.total_variation, 3), 18) +
                                 padded(scientific(fit.divergence, 3), 12) + fixed(100 * fit.same_largest, 2) + " %");
}

std::string spectrum_text(const Eigen::VectorXd& values) {
  constexpr Eigen::Index kShown = 4;
  std::string text = values.size() == 0 ? "-" : "";
  for (Eigen::Index k = 0; k < std::min(kShown, values.size()); ++k) text += plain(values[k], 4) + " ";
  return values.size() > kShown ? text + "... " + plain(values[values.size() - 1], 4) : text;
}

std::string rank_text(const HeadResult& result) {
  const std::string rank = result.rank > 0 ? std::to_string(result.rank) : "any";
  switch (result.rank_source) {
    case RankSource::gap:
      return rank + ", by the gap: the singular values of the log-odds fall by " + plain(result.gap, 3) + " behind it";
    case RankSource::hold_out: return rank + ", by hold-out";
    default: return rank + ", as given";
  }
}

}  // namespace

std::string head_text(const HeadReport& report) {
  const HeadResult& result = report.result;
  std::string text =
      "\nFit and prediction\n" +
      summary_line("", padded("|F-B|/|B|", 12) + padded("total variation", 18) + padded("KL", 12) + "same largest") +
      quality_line("sequences of the fit", report.fit.all);
  if (report.held_out)
    text +=
        quality_line("held out", report.held_out->all) + quality_line("uniform attention", report.held_out->uniform);
  else
    text += quality_line("uniform attention", report.fit.uniform);
  text += summary_line("rank", rank_text(result));
  if (result.singular_values.size() > 0)
    text +=
        summary_line("singular values", spectrum_text(result.singular_values) + "  (of X in the metric of the logits)");
  if (result.zeros > 0)
    text +=
        summary_line("zeros in B", fixed(100 * result.zeros, 2) + " %, resolution " + scientific(result.resolution, 2));
  for (const auto& direction : result.null_directions) text += summary_line("not determined", direction);
  return text;
}

std::string heads_text(const std::vector<HeadReport>& reports) {
  const bool held_out = reports[0].held_out.has_value();
  std::string text = "\nFit and prediction, |F - B| / |B|; singular values of X, first and last\n  " +
                     padded("head", 5) + padded("rank", 5) + padded("by", 12) + padded("fit", 9) +
                     padded("held out", 9) + padded("uniform", 9) + padded("singular", 18) +
                     (held_out ? "verdict" : "") + "\n";
  for (std::size_t h = 0; h < reports.size(); ++h) {
    const auto& [result, fit, held] = reports[h];
    const auto& values = result.singular_values;
    const std::string ends = values.size() == 0   ? "-"
                             : values.size() == 1 ? plain(values[0], 3)
                                                  : plain(values[0], 3) + ", " + plain(values[values.size() - 1], 3);
    text +=
        "  " + padded(std::to_string(h), 5) + padded(result.rank > 0 ? std::to_string(result.rank) : "any", 5) +
        padded(std::string(source_name(result.rank_source)) + (result.gap > 0 ? " " + scientific(result.gap, 1) : ""),
               12) +
        padded(scientific(fit.all.error, 2), 9) + padded(held ? scientific(held->all.error, 2) : "-", 9) +
        padded(scientific((held ? held->uniform : fit.uniform).error, 2), 9) + padded(ends, 18) +
        (held ? std::string(verdict_name(head_verdict(fit, *held))) : "") + "\n";
  }
  for (const auto& direction : reports[0].result.null_directions) text += summary_line("not determined", direction);
  return text;
}

std::string heads_verdict_text(const std::vector<HeadReport>& reports) {
  std::vector<std::string> verdicts;
  for (const auto& report : reports)
    verdicts.push_back(
        verdict_text(report.result.converged,
                     report.held_out ? std::optional(head_verdict(report.fit, *report.held_out)) : std::nullopt));
  std::string text;
  for (std::size_t h = 0; h < verdicts.size(); ++h) {
    if (std::find(verdicts.begin(), verdicts.begin() + static_cast<std::ptrdiff_t>(h), verdicts[h]) !=
        verdicts.begin() + static_cast<std::ptrdiff_t>(h))
      continue;
    const auto same = std::ranges::count(verdicts, verdicts[h]);
    const bool all = same == std::ssize(verdicts);
    text += (text.empty() ? "" : "; ") +
            (all ? "" : std::to_string(same) + " of " + counted(std::ssize(verdicts), "head") + ": ") + verdicts[h];
  }
  return text;
}

std::vector<std::string> remarks(const std::vector<HeadResult>& heads, std::vector<std::string> HeadResult::*of) {
  std::vector<std::string> texts;
  std::vector<std::vector<std::size_t>> places;
  for (std::size_t h = 0; h < heads.size(); ++h)
    for (const auto& text : heads[h].*of) {
      const auto known = static_cast<std::size_t>(std::ranges::find(texts, text) - texts.begin());
      if (known == texts.size()) {
        texts.push_back(text);
        places.emplace_back();
      }
      places[known].push_back(h);
    }
  for (std::size_t k = 0; k < texts.size(); ++k) {
    if (places[k].size() == heads.size()) continue;
    std::string names = places[k].size() == 1 ? "head" : "heads";
    for (const std::size_t h : places[k]) names += (h == places[k][0] ? " " : ", ") + std::to_string(h);
    texts[k] = names + ": " + texts[k];
  }
  return texts;
}

nlohmann::ordered_json head_json(const HeadReport& report) {
  const HeadResult& result = report.result;
  const auto& values = result.singular_values;
  nlohmann::ordered_json json{{"relative_error", result.error},
                              {"rank", result.rank},
                              {"rank_source", source_name(result.rank_source)},
                              {"gap", result.gap},
                              {"singular_values", std::vector<double>(values.begin(), values.end())},
                              {"log_odds_error", result.log_odds_error},
                              {"zeros", result.zeros},
                              {"resolution", result.resolution},
                              {"equations", result.equations},
                              {"unknowns", result.unknowns},
                              {"common", result.common},
                              {"next_common", result.next_common},
                              {"null_directions", result.null_directions},
                              {"steps", result.steps},
                              {"polish_steps", result.polish_steps},
                              {"products", result.products},
                              {"reads", result.reads},
                              {"cpu_seconds", result.cpu_seconds},
                              {"fit", report.fit}};
  json["held_out"] = nullptr;
  json["verdict"] = nullptr;
  if (report.held_out) {
    json["held_out"] = *report.held_out;
    json["verdict"] = verdict_name(head_verdict(report.fit, *report.held_out));
  }
  return json;
}

}  // namespace attnreg::app
