#include <algorithm>
#include <cmath>

#include "app/options/commands.hpp"
#include "app/options/solver_options.hpp"
#include "app/report/json.hpp"
#include "app/report/text.hpp"
#include "app/run/problem.hpp"
#include "attnreg/files.hpp"
#include "attnreg/leverage.hpp"
#include "errors/printable.hpp"
#include "files/output_file.hpp"
#include "ranks/activity.hpp"
#include "ranks/memory.hpp"
#include "ranks/span_of.hpp"
#include "rows/row_passes.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kScoresEpilogue = R"(Examples:
  mpirun -n 4 attnreg scores A.npy -o scores.npy
  attnreg scores A.npy --weights w.npy --exact -o scores.npy

The score of a row is between 0 and 1, the scores sum to the rank of A. 999 of 1000
approximate ones are right to a factor of 2, with the default of 64 JL columns.
Two reads of A.
)";

const Syntax kScoresSyntax{
    "scores",
    "Write the statistical leverage scores of the rows of A, or of diag(w) A.",
    {{"A", "n x d matrix, .npy"}},
    {{"Scores",
      sketch_options({{"weights", 0, "FILE", Text{}, "", "w, one value per row of A: the scores of diag(w) A"},
                      {"exact", 0, "", Switch{}, "", "by a QR factorization of A, D^2 operations a row"}},
                     "64")},
     linear_solver_group(),
     computing_options(),
     reproducible_group(),
     {"Output",
      {{"output", 'o', "FILE", Text{}, "", "where the scores go, n values, .npy; needed"},
       json_option("print the figures as JSON"),
       force_option()}}},
    kScoresEpilogue};

/// Collective. w times a power of two that brings the rows of diag(w) A to ordinary sizes, which leaves the scores as
/// they are; 0 for rows that are 0.
Eigen::VectorXd scaled_weights(const RowMatrix& A, Eigen::VectorXd w) {
  const Eigen::VectorXd& norms = A.passes().row_norms();
  w = (norms.array() > 0).select(w.cwiseAbs(), 0);
  std::int64_t largest = -2200;  // below those of all numbers but 0
  for (Eigen::Index i = 0; i < w.size(); ++i)
    if (w[i] > 0) largest = std::max<std::int64_t>(largest, std::ilogb(w[i]) + std::ilogb(norms[i]));
  largest = A.communicator().max(largest);
  return w.unaryExpr([&](double value) { return std::ldexp(value, static_cast<int>(-largest)); });
}

LeverageScores find_scores(const RowMatrix& A, const Eigen::VectorXd& weights, const Arguments& arguments) {
  if (arguments.on("exact")) return exact_leverage_scores(A, weights, ExactRoute::qr, RowWeights::roots);
  LeverageOptions options;
  take_sketch_options(arguments, options);
  options.linear_solver = linear_solver_options(arguments, A.communicator().size());
  options.row_weights = RowWeights::roots;
  return leverage_scores(A, weights, options);
}

std::string result_text(const LeverageScores& scores, const RowMatrix& A, const Arguments& arguments) {
  if (arguments.on("json")) {
    auto json = document_of("scores", arguments);
    json.update({{"rows", A.rows_global()},
                 {"columns", A.columns()},
                 {"sum", scores.sum},
                 {"largest", scores.largest},
                 {"coherence", scores.coherence},
                 {"rank", scores.rank},
                 {"reads_of_a", A.reads()}});
    return json_text(json);
  }
  return to_width(printable(arguments.text("output")) + ": " + std::to_string(A.rows_global()) + " " +
                  (arguments.on("exact") ? "exact" : "approximate") + " leverage scores\n  rank       " +
                  std::to_string(scores.rank) + " of " + std::to_string(A.columns()) + " columns\n  sum        " +
                  plain(scores.sum, 6) + "  (exact scores: the rank)\n  largest    " + plain(scores.largest, 6) +
                  "\n  coherence  " + plain(scores.coherence, 6) +
                  "  (1: all rows alike, n / rank: one row alone in a direction)\n");
}

ExitCode scores(const Communicator& communicator, const Arguments& arguments) {
  arguments.require("output");
  linear_solver_options(arguments, communicator.size());
  const std::string path = arguments.text("output");
  set_threads(communicator, arguments);
  communicator.agree([&] {
    examine("A", arguments.text("A"));
    if (arguments.has("weights")) examine("w", arguments.text("weights"));
    if (communicator.is_root()) check_output(path, arguments.on("force"));
  });
  const RowMatrix A = load_matrix(communicator, arguments.text("A"), storage_choice(arguments));
  const auto d = static_cast<double>(A.columns());
  if (A.columns() > A.rows_global())  // otherwise it was asked for with the rows
    require_memory(communicator, 8 * 4 * d * d,
                   printable(arguments.text("A")) + ": leverage scores take matrices of " +
                       std::to_string(A.columns()) + " x " + std::to_string(A.columns()) +
                       ", though there are fewer rows, whose scores are all 1 "
                       "where they do not depend on each other");
  Eigen::VectorXd weights;
  if (arguments.has("weights"))
    weights = scaled_weights(A, load_rows_vector(communicator, arguments.text("weights"), "w", A.partition()));
  const InPhase working(Phase::solve);
  const LeverageScores found = find_scores(A, weights, arguments);

  write_npy(communicator, path, {A.rows_global()}, A.first_row(), span_of(found.scores));
  print_result(communicator, result_text(found, A, arguments));
  return ExitCode::converged;
}

}  // namespace

Command scores_command() { return {kScoresSyntax, scores}; }

}  // namespace attnreg::app
