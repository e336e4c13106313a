#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "app/options/options.hpp"
#include "attnreg/attention_regression.hpp"
#include "attnreg/regression.hpp"

namespace attnreg::app {

/// What a command took, as the clock of rank 0 has it.
struct Timing {
  double loading = 0;      ///< up to the solve: files and checks
  double solve = 0;        ///< of all solves, without their certificates
  double certificate = 0;  ///< of all solves
};

/// What the summary of a regression is made of, beside its result.
struct SolveReport {
  const Arguments& arguments;
  const RegressionResult& result;
  const RowMatrix& A;
  int threads;
  Timing timing;
  std::string path;     ///< the table of a path; empty for a single solve
  std::string names{};  ///< of the largest rows and columns: a section, or empty
};

/// What the summary of any solve is made of.
struct SummaryPage {
  const Arguments& arguments;
  const SolveResult& result;
  int ranks, threads;
  std::string reference;  ///< what |g| is compared with, "|g(0)|"
  std::string verdict;    ///< what it means for the user; may be empty
  std::string problem, method;
  std::string cost;      ///< a line: the reads of the data
  std::string sections;  ///< fit, certificate and the like
  Timing timing{};
};

/// "1.234 on 2 ranks with 1 thread each; certificate 0.100, loading 0.020"
std::string seconds_text(const Timing& timing, int ranks, int threads);
/// The same as members of the summary in run.json.
nlohmann::ordered_json timing_json(const Timing& timing);
/// "\nNotes\n  ..." with one line each; nothing without any.
std::string list_text(std::string_view title, const std::vector<std::string>& lines);
/// The same of notes and the like: five of them unless there is --verbose, and where the others are.
std::string folded_text(std::string_view title, std::vector<std::string> lines, const Arguments& arguments);

/// The page on stdout: why it stopped, as an inequality with its numbers; what was found; what it cost; how well f
/// reproduces b; what to think of it. files: those written.
std::string page_text(const SummaryPage& page, const std::vector<std::string>& files);
std::string summary_text(const SolveReport& report, const std::vector<std::string>& files);

/// The first result that did not converge, or the first: its exit code is that of all.
const RegressionResult& worst_result(const std::vector<RegressionResult>& results);

/// A table of several results for people, one line each. name: of what tells them apart, in `names`, as wide as its
/// column. `parts`: the loss fits a distribution, so that the total variation says how well. Of more than 100 it has
/// 100, those that did not converge before others, and says how many it leaves out.
std::string results_table(const std::string& name, const std::vector<std::string>& names,
                          const std::vector<RegressionResult>& results, bool parts);

/// The same with 17 digits, as CSV. `residuals`: with a column for |f - b| / |b|.
std::string results_csv(const std::string& name, const std::vector<std::string>& names,
                        const std::vector<RegressionResult>& results, bool residuals);

/// The notes or warnings of all targets, each once, with the targets that have it; of more than 100, 100.
std::vector<std::string> of_all_targets(const std::vector<RegressionResult>& results,
                                        std::vector<std::string> SolveResult::*list);

nlohmann::ordered_json certificate_json(const Certificate& certificate);

/// What the audits of these regressions did, as a line; empty without any.
std::string audit_text(std::span<const RegressionResult> results);
nlohmann::ordered_json audit_json(const AuditReport& audit);

/// The certificate of an attention regression; the text is empty for the level none.
std::string certificate_text(const AttentionCertificate& certificate);
nlohmann::ordered_json certificate_json(const AttentionCertificate& certificate);

/// The same for run.json: what every solve has, and what a regression with so many rows has.
nlohmann::ordered_json result_json(const SolveResult& result);
nlohmann::ordered_json summary_json(const Arguments& arguments, const RegressionResult& result, std::int64_t rows);
/// The rest of what every solve has there: minima, notes, warnings.
nlohmann::ordered_json remarks_json(const SolveResult& result);
/// All of it, of one regression.
nlohmann::ordered_json regression_json(const SolveReport& report);

}  // namespace attnreg::app
