#include <cmath>
#include <nlohmann/json.hpp>

#include "app/options/commands.hpp"
#include "app/options/solver_options.hpp"
#include "app/report/json.hpp"
#include "app/report/text.hpp"
#include "app/run/problem.hpp"
#include "app/run/run_directory.hpp"
#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "files/npz_writer.hpp"
#include "files/output_file.hpp"
#include "ranks/activity.hpp"
#include "ranks/span_of.hpp"
#include "rows/dense_rows.hpp"
#include "rows/gathered_rows.hpp"
#include "sampling/subsample.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kSampleEpilogue = R"(Examples:
  attnreg sample A.npy --epsilon 0.5 -o coreset
  mpirun -n 4 attnreg sample A.npz --weights D.npy --rows 5000 -o coreset

With W the diagonal of weights.npy and S the rows in A.npy (A.npz, csr, if A is sparse), S^T W S is near
A^T D A. rows.npy has their numbers in A. Other programs take the pair as rows with sample weights.

Exit code 4: epsilon was promised (without --rows) and is missed; the files are written.
)";

const Syntax kSampleSyntax{
    "sample",
    "Choose few rows of A, with weights, that keep A^T D A.",
    {{"A", "n x d matrix, .npy or sparse .npz"}},
    {{"Choice",
      {{"weights", 0, "FILE", Text{}, "", "D >= 0, one value per row of A; default: ones"},
       {"epsilon", 0, "E", Number{0, true, 0.999}, "0.5", "wanted spectral error"},
       {"delta", 0, "P", Number{0, true, 0.999}, "0.01", "probability of missing it"},
       {"rows", 0, "M", Integer{1, 2147483647}, "",
        "rows expected, or draws, in place of what --epsilon and --delta ask for"},
       {"draws", 0, "KIND", Choice{{"poisson", "replacement"}}, "poisson",
        "poisson: each row is kept or not, independently of the others; replacement: M draws"}}},
     {"Scores",
      sketch_options({{"exact", 0, "", Switch{}, "", "exact scores, by a QR factorization, D^2 operations a row"}},
                     "64")},
     {"Measurement",
      {{"probes", 0, "K", Integer{0, 1000}, "4",
        "random vectors on which the error is estimated, one read of A each; for d <= 2000 it is also exact, unless "
        "0"}}},
     linear_solver_group(),
     computing_options(),
     report_options("where the files go; default: print only")},
    kSampleEpilogue};

SubsampleOptions subsample_options(const Arguments& arguments, int ranks) {
  SubsampleOptions options;
  options.epsilon = arguments.number("epsilon");
  options.delta = arguments.number("delta");
  options.rows = arguments.has("rows") ? arguments.integer("rows") : 0;
  options.with_replacement = arguments.text("draws") == "replacement";
  options.exact_scores = arguments.on("exact");
  take_sketch_options(arguments, options.scores);
  options.scores.linear_solver = linear_solver_options(arguments, ranks);
  return options;
}

/// Collective. rows.npy, weights.npy and A.npy or A.npz, perhaps without any row; their names.
std::vector<std::string> write_sample(const RowMatrix& A, const SampledRows& sample, const ReportDirectory& directory) {
  const Communicator& communicator = A.communicator();
  const auto partition = RowPartition::from_local(communicator, std::ssize(sample.rows));
  const std::int64_t first = partition.begin(communicator.rank()), count = partition.rows_global();
  const std::string matrix = directory.file(A.is_sparse() ? "A.npz" : "A.npy");
  RowMajorMatrix rows(std::ssize(sample.rows), A.columns());
  if (count > 0) rows = dense_rows(GatheredRows(A, sample.rows).matrix(communicator), 0, rows.rows());
  if (A.is_sparse())
    write_sparse(communicator, matrix, "csr", first, count, sparse_rows(rows));
  else
    write_npy(communicator, matrix, {count, A.columns()}, first, span_of(rows));
  std::vector<std::int64_t> numbers;
  for (const Index row : sample.rows) numbers.push_back(A.first_row() + row);
  write_integers(communicator, directory.file("rows.npy"), std::move(numbers), first, count);
  write_npy(communicator, directory.file("weights.npy"), {count}, first, span_of(sample.weights));
  return {directory.file("rows.npy"), directory.file("weights.npy"), matrix};
}

std::string sample_text(const Subsample& found, const SubsampleError& error, const RowMatrix& A,
                        const Arguments& arguments, const std::vector<std::string>& files) {
  std::string page = std::to_string(found.rows.count_global) + " of " + std::to_string(A.rows_global()) +
                     " rows, weighted, for A^T D A\n";
  const bool draws = arguments.text("draws") == "replacement";
  page += summary_line("rows", draws ? plain(found.expected, 12) + " draws with replacement"
                                     : plain(found.expected, 6) + " expected, each kept or not on its own");
  page += summary_line("scores", "rank " + std::to_string(found.scores.rank) + " of " + std::to_string(A.columns()) +
                                     " columns, coherence " + plain(found.scores.coherence, 4));
  if (!arguments.has("rows"))
    page += summary_line(
        "wanted", "(1 - e) A^T D A <= A^T D~ A <= (1 + e) A^T D A with e = " + plain(arguments.number("epsilon"), 6) +
                      " and probability " + plain(1 - arguments.number("delta"), 6));
  if (arguments.integer("probes") > 0)
    page += summary_line("found", std::isnan(error.spectral)
                                      ? "e is " + plain(error.probed, 4) + " or more, on " +
                                            counted(arguments.integer("probes"), "random vector")
                                      : "e = " + plain(error.spectral, 4) + "; " + plain(error.probed, 4) + " on " +
                                            counted(arguments.integer("probes"), "random vector"));
  page += summary_line("reads of A", plain(A.reads(), 6));
  for (const auto& file : files) page += summary_line("written", printable(file));
  return to_width(page);
}

ExitCode run_sample(const Communicator& communicator, const Arguments& arguments) {
  const SubsampleOptions options = subsample_options(arguments, communicator.size());
  set_threads(communicator, arguments);
  const ReportDirectory directory(communicator, arguments);
  communicator.agree([&] {
    examine("A", arguments.text("A"));
    if (arguments.has("weights")) examine("D", arguments.text("weights"));
  });
  const RowMatrix A = load_matrix(communicator, arguments.text("A"), storage_choice(arguments));
  Eigen::VectorXd D;
  if (arguments.has("weights")) {
    D = load_rows_vector(communicator, arguments.text("weights"), "D", A.partition());
    communicator.agree([&] { check_row_numbers(A, D, printable(arguments.text("weights")) + ": weight"); });
  }
  const InPhase working(Phase::solve);
  const Subsample found = subsample(A, D, options);
  SubsampleError error;
  if (const int probes = arguments.count("probes"); probes > 0)
    error = subsample_error(A, D, found.rows, probes, arguments.seed());

  std::vector<std::string> files;
  if (directory.is_used()) files = write_sample(A, found.rows, directory);
  const bool is_missed = !arguments.has("rows") && error.spectral > options.epsilon;
  auto json = document_of("sample", arguments);
  json.update({{"rows", A.rows_global()},
               {"columns", A.columns()},
               {"kept", found.rows.count_global},
               {"expected", found.expected},
               {"oversampling", found.oversampling},
               {"rank", found.scores.rank},
               {"coherence", found.scores.coherence},
               {"epsilon", options.epsilon},
               {"delta", options.delta},
               {"spectral_error", error.spectral},
               {"probed_error", error.probed},
               {"probes", arguments.integer("probes")},
               {"reads_of_a", A.reads()},
               {"files", files}});
  directory.finish(json, sample_text(found, error, A, arguments, files));
  return is_missed ? ExitCode::limit : ExitCode::converged;
}

}  // namespace

Command sample_command() { return {kSampleSyntax, run_sample}; }

}  // namespace attnreg::app
