#include "app/report/sparsify_report.hpp"

#include <cmath>

#include "app/report/json.hpp"
#include "app/report/summary.hpp"
#include "app/report/text.hpp"

namespace attnreg {

ATTNREG_JSON(AttentionError, gram, spectral, entry, entry_bound, output)

}  // namespace attnreg

namespace attnreg::app {

namespace {

constexpr double kOfUse = 2;        // times nearer than Y = 0: less is not worth the columns
constexpr double kUniform = 1e-14;  // error of the output that is rounding

constexpr const char* kWhose[] = {"Y", "Y = 0", "uniform"};
constexpr const char* kKeys[] = {"Y", "zero", "uniform"};

std::string matrix_text(const RowMatrix& X) {
  return std::to_string(X.columns()) + " x " + std::to_string(X.rows_global()) + " as " + storage_name(X.storage()) +
         (X.is_sparse() ? ", sparse" : "");
}

/// The methods that promise epsilon, unless the number of columns was given in its place.
bool promises_epsilon(const SparsifyReport& report) {
  const std::string method = report.arguments.text("method");
  return (method == "leverage" || method == "bss") && !report.arguments.given("columns");
}

bool is_measured(const SparsifyReport& report) { return !report.errors.errors.empty(); }

/// What was measured, else what bss knows without; NaN if neither.
double epsilon_of(const SparsifyReport& report) {
  const double measured = is_measured(report) ? report.errors.errors[0].spectral : NAN;
  return std::isnan(measured) ? report.result.certified_epsilon : measured;
}

std::string_view end_name(SparsifyEnd end) {
  switch (end) {
    case SparsifyEnd::reached: return "reached";
    case SparsifyEnd::all_steps: return "all_steps";
    case SparsifyEnd::rounding: return "rounding";
    default: return "drawn";
  }
}

/// The first line: the inequality with its numbers.
std::string headline(const SparsifyReport& report) {
  const double found = epsilon_of(report);
  const std::string sandwich = "(1 - e) X X^T <= Y Y^T <= (1 + e) X X^T";
  if (std::isnan(found))
    return "drawn: " + sandwich + " was not checked, " +
           (is_measured(report) ? "X has too many rows for that" : "as --metrics none asks");
  const std::string e = "e = " + plain(found, 4);
  if (!promises_epsilon(report)) return "chosen: " + sandwich + " with " + e;
  const std::string wanted = report.arguments.text("epsilon");
  if (misses_epsilon(report)) return "NOT within epsilon: " + sandwich + " needs " + e + " > " + wanted;
  return "within epsilon: " + sandwich + " with " + e + " <= " + wanted;
}

/// Whether the bound behind the promise of leverage asks for all columns.
bool promise_needs_all(const SparsifyReport& report) {
  return report.columns_asked >= report.X.rows_global() && report.arguments.text("method") == "leverage" &&
         promises_epsilon(report);
}

std::string promise_text(const SparsifyReport& report) {
  return "the bound behind epsilon = " + report.arguments.text("epsilon") + " asks leverage for " +
         std::to_string(report.columns_asked) + " columns, as many as X has or more: take --method bss, which needs " +
         "fewer, a larger --epsilon, or --columns";
}

/// What it means for the user, in one sentence.
std::string verdict(const SparsifyReport& report) {
  const std::int64_t d = report.X.rows_global();
  if (report.result.columns_global >= d)
    return "nothing gained: Y has " + counted(report.result.columns_global, "column") + ", X has " + std::to_string(d);
  if (!is_measured(report)) return "what Y does to the attention matrix was not measured";
  const auto& errors = report.errors.errors;
  const AttentionError &Y = errors[0], &zero = errors[1];
  if (zero.output <= kUniform)
    return "worthless: the attention of X is uniform to rounding, which that of Y = 0 is, too; see --scale";
  const std::string nearer = Y.output > 0 ? plain(zero.output / Y.output, 3) + " times" : "infinitely";
  if (!(Y.output < zero.output))
    return "worthless: the attention output is no nearer to that of X than that of Y = 0 is";
  if (misses_epsilon(report))
    return report.arguments.text("method") == "leverage"
               ? "an unlucky draw, or scores that are too rough: try another --seed, --jl-columns 64 or bss"
               : "rounding was in the way: X X^T is too ill-conditioned";
  if (!(Y.output <= zero.output / kOfUse))
    return "of little use: the attention output is " + nearer + " nearer to that of X than with Y = 0";
  if (!(Y.entry < 1))
    return "of little use: the output is " + nearer +
           " nearer to that of X than with Y = 0, but an attention weight is off by a factor of " +
           plain(1 + Y.entry, 3);
  if (errors.size() > 2 && errors[2].output <= Y.output && !(errors[2].spectral > Y.spectral))
    return "Y is of use, but as many columns drawn uniformly are as good: no column of X stands out";
  if (errors.size() > 2 && errors[2].output >= zero.output)
    return "Y is of use; as many columns drawn uniformly are not";
  return "Y is of use: the output is " + nearer + " nearer to that of X than with Y = 0";
}

std::string columns_text(const SparsifyReport& report) {
  const std::string of = std::to_string(report.result.columns_global);
  const std::string method = report.arguments.text("method");
  if (method == "jl") return of + ", random combinations of those of X";
  const std::int64_t draws = report.result.draws;
  if (draws == 0) return of;
  return of + (method == "bss" ? " in " + counted(draws, "step") : ", distinct ones of " + counted(draws, "draw"));
}

std::string table(const SparsifyReport& report) {
  const auto& errors = report.errors.errors;
  const auto line = [](const std::string& text) { return text.substr(0, text.find_last_not_of(' ') + 1) + "\n"; };
  const auto row = [&](const char* label, double AttentionError::*value) {
    std::string text = "  " + padded(label, 38);
    for (const AttentionError& error : errors)
      text += padded(std::isnan(error.*value) ? "-" : plain(error.*value, 3), 12);
    return line(text);
  };
  std::string heading(40, ' ');
  for (std::size_t k = 0; k < errors.size(); ++k) heading += padded(kWhose[k], 12);
  return "\nErrors\n" + line(heading) + row("max |Y Y^T - X X^T| / r", &AttentionError::gram) +
         row("spectral, e", &AttentionError::spectral) + row("max |P(Y) / P(X) - 1|", &AttentionError::entry) +
         row("  its bound, exp(2 e r) - 1", &AttentionError::entry_bound) +
         row("|(P(Y) - P(X)) V| / |P(X) V|", &AttentionError::output) +
         "  r = " + plain(report.errors.largest_logit, 4) +
         ", the largest entry of the logits; P: softmax of their rows; uniform: as many draws\n";
}

}  // namespace

bool misses_epsilon(const SparsifyReport& report) {
  return promises_epsilon(report) && epsilon_of(report) > report.arguments.number("epsilon");
}

std::string sparsify_text(const SparsifyReport& report) {
  std::string text = headline(report) + "\n" + summary_line("verdict", verdict(report)) +
                     summary_line("matrix", matrix_text(report.X)) +
                     summary_line("method", report.arguments.text("method")) +
                     summary_line("columns", columns_text(report));
  if (promise_needs_all(report)) text += summary_line("promise", promise_text(report));
  if (!std::isnan(report.result.certified_epsilon))
    text +=
        summary_line("certified e", plain(report.result.certified_epsilon, 4) + ", from the eigenvalues of the choice");
  text += summary_line("reads of X", plain(report.reads, 3)) +
          summary_line("collectives", std::to_string(report.collectives)) +
          summary_line("seconds", fixed(report.read_seconds, 3) + " to read, " + fixed(report.choose_seconds, 3) +
                                      " to choose, " + fixed(report.measure_seconds, 3) + " to measure, on " +
                                      counted(report.X.communicator().size(), "rank") + " with " +
                                      counted(report.threads, "thread") + " each");
  if (is_measured(report)) text += table(report);
  return text + list_text("Files", report.files);
}

nlohmann::ordered_json sparsify_json(const SparsifyReport& report) {
  const Sparsifier& result = report.result;
  auto json = document_of("sparsify", report.arguments);
  json.update({{"n", report.X.columns()},
               {"d", report.X.rows_global()},
               {"storage", storage_name(report.X.storage())},
               {"sparse", report.X.is_sparse()},
               {"verdict", headline(report) + "; " + verdict(report)},
               {"columns", result.columns_global},
               {"draws", result.draws},
               {"columns_asked", report.columns_asked},
               {"end", end_name(result.end)},
               {"epsilon", epsilon_of(report)},
               {"certified_epsilon", result.certified_epsilon},
               {"within_epsilon",
                promises_epsilon(report) ? nlohmann::ordered_json(!misses_epsilon(report)) : nlohmann::ordered_json()},
               {"reads_of_x", report.reads},
               {"collectives", report.collectives},
               {"ranks", report.X.communicator().size()},
               {"threads", report.threads},
               {"read_seconds", report.read_seconds},
               {"choose_seconds", report.choose_seconds},
               {"measure_seconds", report.measure_seconds}});
  if (!is_measured(report)) return json;
  json["scale"] = report.scale;
  json["largest_logit"] = report.errors.largest_logit;
  if (report.errors.rank > 0) json["rank"] = report.errors.rank;
  for (std::size_t k = 0; k < report.errors.errors.size(); ++k) json["errors"][kKeys[k]] = report.errors.errors[k];
  return json;
}

}  // namespace attnreg::app
