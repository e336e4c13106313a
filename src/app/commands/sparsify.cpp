#include "attnreg/sparsifier.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "app/commands/sparsify_tokens.hpp"
#include "app/options/commands.hpp"
#include "app/options/solver_options.hpp"
#include "app/report/sparsify_report.hpp"
#include "app/run/problem.hpp"
#include "app/run/run_directory.hpp"
#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "ranks/activity.hpp"
#include "ranks/root_clock.hpp"
#include "rows/dense_rows.hpp"
#include "sampling/sampling.hpp"
#include "sparsify/sparsifier_files.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kSparsifyEpilogue = R"(Examples:
  attnreg sparsify X.npy --method bss --epsilon 0.5 -o Y
  mpirun -n 4 attnreg sparsify X.npz --columns 2000 --scale 1/sqrt-d -o Y
  attnreg sparsify --tokens --queries Q.npy --keys K.npy --values V.npy --scale 1/sqrt-d --keep 256 -o kept

X is n x d with d >> n; its columns are spread over the ranks. Y has few of them, scaled, so that Y Y^T is
near X X^T, and so are the attention matrices. Writes Y.npy (Y.npz, csc, if X is sparse), columns.npy,
weights.npy and report.json. The errors are printed beside those of Y = 0, which a useless Y does not beat.

With --tokens keys of attention heads are chosen instead: keys.npy, weights.npy and offsets.npy, where those of each
head begin.

Exit code 4: epsilon was promised (leverage or bss, without --columns) and is missed; Y is written.
)";

/// In the order of `ColumnMethod`; then those for keys only.
constexpr std::string_view kColumnMethods[] = {"leverage", "bss",    "uniform", "norm",   "jl",    "topk",
                                               "halving",  "output", "mixed",   "values", "recent"};
const Syntax kSparsifySyntax{
    "sparsify",
    "Choose few columns of X that keep X X^T, and with it the attention matrix.",
    {{"X", "n x d matrix, .npy or sparse .npz (csr, csc)"}},
    {{"Choice",
      {{"method", 0, "NAME", Choice{{std::begin(kColumnMethods), std::end(kColumnMethods)}}, "leverage",
        "leverage: drawn by leverage scores; bss: no randomness, fewest columns; baselines without a guarantee: "
        "uniform, norm (drawn), jl (random combinations), topk (largest norms). "
        "Keys: halving (the default there), drawn by output, mixed, leverage, norm, values or uniform, recent, topk"},
       {"epsilon", 0, "E", Number{0, true, 0.999}, "0.5", "wanted spectral error"},
       {"delta", 0, "P", Number{0, true, 0.999}, "0.01", "probability of missing it, of methods that draw"},
       {"columns", 0, "M", Integer{1, 2147483647}, "",
        "expected columns, draws or (bss) steps, in place of what --epsilon and --delta ask for"},
       {"draws", 0, "KIND", Choice{{"poisson", "replacement"}}, "poisson", "leverage: how columns are drawn"}}},
     {"Scores", sketch_options()},
     token_options(),
     {"Measurement",
      {{"metrics", 0, "LEVEL", Choice{{"none", "full"}}, "full", "full: errors of Y, of Y = 0 and of uniform draws"},
       {"values", 0, "FILE", Text{}, "",
        "V, n x k, of the attention output P V; default: 8 columns of N(0, 1). With --tokens the values, n_k x d_v or "
        "heads "
        "x n_k x d_v; needed"},
       scale_option("of the logits X X^T, d being that of X")}},
     computing_options(),
     report_options("where the files go; default: print only")},
    kSparsifyEpilogue,
    {"tokens"}};

SparsifyOptions sparsify_options(const Arguments& arguments) {
  SparsifyOptions options;
  options.method = static_cast<ColumnMethod>(arguments.choice("method"));
  options.epsilon = arguments.number("epsilon");
  options.delta = arguments.number("delta");
  options.columns = arguments.has("columns") ? arguments.integer("columns") : 0;
  options.with_replacement = arguments.text("draws") == "replacement";
  take_sketch_options(arguments, options.scores);
  options.seed = arguments.seed();
  return options;
}

/// Collective. V on every rank.
Eigen::MatrixXd load_values(const Communicator& communicator, const Arguments& arguments, Index n) {
  if (!arguments.has("values")) return gaussian_probes(n, 8, arguments.seed());
  const RowMatrix V = load_matrix(communicator, arguments.text("values"), StorageChoice::float64);
  if (V.rows_global() != n)
    refuse(printable(arguments.text("values")) + ": V has " + std::to_string(V.rows_global()) + " rows, expected " +
           std::to_string(n) + ", one per row of X");
  return shared_rows(V, 0, n);
}

/// Collective. The errors of Y, of Y = 0 and of as many columns drawn uniformly.
AttentionErrors measure(const RowMatrix& X, const Sparsifier& result, const SparsifyOptions& options,
                        const Eigen::MatrixXd& values, double scale) {
  std::vector<RowMatrix> Ys{result.Y, no_columns(X)};
  if (options.method != ColumnMethod::uniform) {
    const std::int64_t draws = std::max<std::int64_t>(result.columns_global, 1);
    Ys.push_back(sparsify(X, {.method = ColumnMethod::uniform, .columns = draws, .seed = options.seed}).Y);
  }
  return attention_errors(X, Ys, values, {.scale = scale});
}

ExitCode run_sparsify(const Communicator& communicator, const Arguments& arguments) {
  check_token_options(arguments);
  if (arguments.on("tokens")) return sparsify_tokens(communicator, arguments);
  const SparsifyOptions options = sparsify_options(arguments);
  const int threads = set_threads(communicator, arguments).threads;
  const ReportDirectory directory(communicator, arguments);
  const RootClock reading(communicator);
  const RowMatrix X = load_transpose(communicator, arguments.text("X"), storage_choice(arguments));
  const Eigen::MatrixXd values = load_values(communicator, arguments, X.columns());
  const double read_seconds = reading.seconds(), scale = scale_factor(arguments, X.rows_global());

  const InPhase working(Phase::solve);
  const RootClock choosing(communicator);
  const std::int64_t collectives = communicator.collectives();
  const Sparsifier result = sparsify(X, options);
  SparsifyReport report{.arguments = arguments,
                        .result = result,
                        .X = X,
                        .columns_asked = columns_for(options, X.columns()),
                        .errors = {},
                        .scale = scale,
                        .read_seconds = read_seconds,
                        .choose_seconds = choosing.seconds(),
                        .measure_seconds = 0,
                        .reads = X.reads(),
                        .collectives = communicator.collectives() - collectives,
                        .threads = threads,
                        .files = {}};
  const RootClock measuring(communicator);
  if (arguments.text("metrics") == "full") report.errors = measure(X, result, options, values, scale);
  if (!std::isfinite(report.errors.largest_logit))
    refuse(printable(arguments.text("X")) +
           ": X X^T overflows, so that there is no attention matrix; scale X down, or use --metrics none");
  report.measure_seconds = measuring.seconds();

  if (directory.is_used()) {
    report.files = write_sparsifier(result, options.method, arguments.text("output"));
    report.files.push_back(directory.file("report.json"));
  }
  directory.finish(sparsify_json(report), sparsify_text(report));
  return misses_epsilon(report) ? ExitCode::limit : ExitCode::converged;
}

}  // namespace

Command sparsify_command() { return {kSparsifySyntax, run_sparsify}; }

}  // namespace attnreg::app
