#include <algorithm>
#include <cmath>
#include <random>
#include <span>

#include "app/options/commands.hpp"
#include "app/report/json.hpp"
#include "app/report/text.hpp"
#include "app/run/problem.hpp"
#include "app/run/run_directory.hpp"
#include "attnreg/apply_attention.hpp"
#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "ranks/activity.hpp"
#include "ranks/span_of.hpp"
#include "rows/dense_rows.hpp"

namespace attnreg {

ATTNREG_JSON(ReleaseError, entry, attention, covariance)
ATTNREG_JSON(PrivacyDelta, delta, error)
ATTNREG_JSON(PrivateAttention, smallest_eigenvalue, spectral_error, expected_spectral_error, frobenius_error,
             expected_frobenius_error, release, nothing, ridge_alone)

}  // namespace attnreg

namespace attnreg::app {

namespace {

constexpr std::string_view kPrivateEpilogue = R"(Examples:
  attnreg private X.npy --ridge 50 --sensitivity 0.001 --dp-epsilon 1 --dp-delta 1e-5 -o release
  attnreg private X.npy --neighbours row --row-norm 1 --samples 10000 -o release
  attnreg private X.npy --neighbours entry --row-norm 1 --entry-change 0.01 -o release
  attnreg private S.npy --covariance --sensitivity 0.002 --samples 2000 -o release

Draws k samples g ~ N(0, Sigma), Sigma = X X^T + ridge I, and releases their covariance, 1/k sum g g^T, and the
attention matrix made of it. delta of the k samples is computed, with a bound on its error, from what neighbours can
change; code 3 if it is above --dp-delta, or another condition fails; the message says which.

NOT certified: numbers in floating point are not the real numbers of the proof; the generator is not a cryptographic
one; --sensitivity is your promise about all neighbours of X; the conditions are checked on X itself. report.json and
what is printed compare with the true matrices: do not publish them.
)";

constexpr std::int64_t kMostSamples = 1000000;  // 1/1000 relative error of an entry: more are for who asks for them

const Syntax kPrivateSyntax{
    "private",
    "Release an attention matrix with (epsilon, delta) differential privacy by Gaussian sampling.",
    {{"X", "n x d matrix, .npy or sparse .npz; with --covariance n x n, X X^T itself"}},
    {{"Privacy",
      {{"dp-epsilon", 0, "E", Number{0, true, 1000}, "1", "epsilon of the privacy"},
       {"dp-delta", 0, "P", Number{0, true, 0.999}, "0.001", "delta of the privacy"},
       {"sensitivity", 0, "D", Number{0, true}, "",
        "at least |Sigma^(1/2) Sigma'^-1 Sigma^(1/2) - I|_F for all neighbours X', below 1; needed, unless "
        "--neighbours says who they are"},
       {"neighbours", 0, "KIND", Choice{{"promised", "row", "entry"}}, "promised",
        "promised: those that --sensitivity is for; row: X with one row replaced; entry: X with one entry changed; of "
        "these two D is made of --row-norm, --entry-change, the ridge and n"},
       {"row-norm", 0, "C", Number{0, true}, "",
        "row, entry: the norm that no row of X, nor of a neighbour, exceeds; needed"},
       {"entry-change", 0, "E", Number{0, true}, "", "entry: by how much the entry changes at most; needed"},
       {"samples", 0, "K", Integer{1, std::int64_t{1} << 40}, "",
        "k; more are more accurate and less private; default: as many as are private, at most 1000000, or 10000 where "
        "the ridge is made for them"},
       {"seed", 0, "S", Integer{0}, "",
        "of the noise, for tests only: whoever knows it undoes the noise; default: from the operating system"}}},
     {"Problem",
      {{"covariance", 0, "", Switch{}, "", "X is the covariance"},
       {"ridge", 0, "L", Number{0}, "",
        "added to the covariance, and taken off again for the attention; default: 0, but of --neighbours row or entry "
        "the smallest with which the samples are private"},
       {"smallest-eigenvalue", 0, "ETA", Number{0}, "0", "what the smallest eigenvalue of Sigma must reach"},
       {"scale", 0, "FACTOR", Number{0, true}, "1", "of the logits"}}},
     computing_options(),
     report_options("for covariance.npy, attention.npy and report.json; default: print only")},
    kPrivateEpilogue};

/// Collective. The same on all ranks.
std::uint64_t noise_seed(const Communicator& communicator, const Arguments& arguments) {
  if (arguments.given("seed")) return arguments.seed();
  std::random_device system;
  std::uint64_t seed = (static_cast<std::uint64_t>(system()) << 32) | system();
  communicator.broadcast(std::span(reinterpret_cast<char*>(&seed), sizeof seed));
  return seed;
}

/// Whether what neighbours change is derived from who they are.
bool is_derived(const Arguments& arguments) { return arguments.text("neighbours") != "promised"; }

/// Throws unless the sensitivity is given, or can be made.
void check_sensitivity(const Arguments& arguments) {
  const std::string kind = arguments.text("neighbours");
  if (kind != "entry") arguments.refuse({"entry-change"}, "is for --neighbours entry");
  if (!is_derived(arguments)) {
    arguments.require("sensitivity");
    return arguments.refuse({"row-norm"}, "is for --neighbours row or entry");
  }
  arguments.require("row-norm");
  if (kind == "entry") arguments.require("entry-change");
  arguments.refuse({"sensitivity"}, "does not go with --neighbours row or entry, which make it");
}

/// Who the neighbours are. covariance: X X^T, whose diagonal tells the norms of the rows.
Neighbours neighbours_of(const Arguments& arguments, const Eigen::MatrixXd& covariance) {
  constexpr double kRounding = 1e-12;
  const double C = arguments.number("row-norm");
  Neighbours neighbours{.rows = covariance.rows(), .row_norm = (1 + kRounding) * C};
  if (arguments.has("entry-change")) neighbours.change = arguments.number("entry-change");
  for (Eigen::Index i = 0; i < covariance.rows(); ++i) {
    const double norm = std::sqrt(std::max(covariance(i, i), 0.0));
    if (!(norm <= neighbours.row_norm))
      refuse("row " + std::to_string(i) + " (counted from 0) of X has the norm " + plain(norm, 6) +
             ", above --row-norm " + arguments.text("row-norm") + ": scale the rows down");
  }
  return neighbours;
}

constexpr std::int64_t kSamplesOfRidge = 10000;  // from there on the noise hardly depends on them

PrivateAttentionOptions private_options(const Communicator& communicator, const Arguments& arguments,
                                        const Eigen::MatrixXd& covariance) {
  PrivateAttentionOptions options;
  options.budget = {arguments.number("dp-epsilon"), arguments.number("dp-delta")};
  options.samples = arguments.has("samples") ? arguments.integer("samples") : 0;
  if (arguments.has("ridge")) options.ridge = arguments.number("ridge");
  if (is_derived(arguments)) {
    const Neighbours neighbours = neighbours_of(arguments, covariance);
    if (!arguments.has("ridge")) {
      if (options.samples == 0) options.samples = kSamplesOfRidge;
      options.ridge = smallest_ridge(options.budget, options.samples, neighbours);
    }
    options.change = covariance_change(neighbours, options.ridge);
  } else {
    options.change.size = arguments.number("sensitivity");
  }
  if (options.samples == 0) options.samples = std::min(sample_limit(options.budget, options.change), kMostSamples);
  options.smallest_eigenvalue = arguments.number("smallest-eigenvalue");
  options.scale = arguments.number("scale");
  options.seed = noise_seed(communicator, arguments);
  return options;
}

/// Collective. X X^T, or X as it is, on every rank.
Eigen::MatrixXd load_covariance(const Communicator& communicator, const Arguments& arguments) {
  const RowMatrix X = load_matrix(communicator, arguments.text("X"), storage_choice(arguments));
  if (!arguments.on("covariance")) return row_gram(X);
  if (X.rows_global() != X.columns())
    refuse(printable(arguments.text("X")) + " is " + std::to_string(X.rows_global()) + " x " +
           std::to_string(X.columns()) + ", but a covariance (--covariance) is square");
  return shared_rows(X, 0, X.columns());
}

nlohmann::ordered_json report_json(const Arguments& arguments, const PrivateAttention& result,
                                   const PrivateAttentionOptions& options, std::int64_t n) {
  nlohmann::ordered_json errors = result;
  errors["worse_than_nothing"] = result.is_worse_than_nothing();
  auto json = document_of("private", arguments);
  json.update({{"n", n},
               {"samples", result.samples},
               {"dp_epsilon", arguments.number("dp-epsilon")},
               {"dp_delta", arguments.number("dp-delta")},
               {"neighbours", arguments.text("neighbours")},
               {"ridge", options.ridge},
               {"privacy", result.privacy},
               {"sensitivity", options.change.frobenius()},
               {"sensitivity_limit", result.sensitivity_limit},
               {"seed_from_system", !arguments.given("seed")},
               {"certified", false},
               {"not_private", errors}});
  return json;
}

/// The errors of the release beside those of what needs none.
std::string errors_table(const PrivateAttention& result) {
  const auto row = [&](const char* label, double ReleaseError::*value) {
    std::string text = "  " + padded(label, 38);
    for (const ReleaseError* error : {&result.release, &result.nothing, &result.ridge_alone})
      text += padded(plain(error->*value, 3), 12);
    return text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
  };
  return std::string(40, ' ') + "release     nothing     ridge alone\n" +
         row("attention, max |P^ / P - 1|", &ReleaseError::entry) +
         row("attention, |P^ - P| / |P|", &ReleaseError::attention) +
         row("covariance, |S - X X^T| / |X X^T|", &ReleaseError::covariance) +
         "  nothing: attention 1 / n everywhere, S = 0; ridge alone: as many samples as one likes, S = Sigma; norms "
         "are Frobenius norms\n";
}

std::string report_text(const Arguments& arguments, const PrivateAttention& result,
                        const PrivateAttentionOptions& options, std::int64_t n) {
  const auto error = [](double found, double expected) { return plain(found, 3) + ", expected " + plain(expected, 3); };
  std::string text;
  if (result.is_worse_than_nothing())
    text = "WORSE THAN PUBLISHING NOTHING: uniform attention, 1 / n everywhere, is at least as near to the true one\n";
  text += "(" + arguments.text("dp-epsilon") + ", " + arguments.text("dp-delta") +
          ")-private on paper; not certified, see below\n";
  text += "  matrix               " + std::to_string(n) + " x " + std::to_string(n) + "\n";
  text += "  samples              " + std::to_string(result.samples) + "\n";
  text += "  ridge                " + plain(options.ridge, 6) + "\n";
  text += "  delta                " + plain(result.privacy.delta, 4) +
          (is_derived(arguments) ? ", right to " + plain(result.privacy.error, 2)
                                 : ", a bound; with one eigenvalue that changes at least " +
                                       plain(result.privacy.delta - result.privacy.error, 2)) +
          "\n";
  text +=
      "  sensitivity          " + plain(options.change.frobenius(), 4) + " <= " + plain(result.sensitivity_limit, 4) +
      ", what these samples allow" +
      (is_derived(arguments) ? "; of one " + arguments.text("neighbours") + ", from --row-norm and the ridge" : "") +
      "\n";
  text += "\nCompared with the true matrices; not to be published\n";
  text += "  smallest eigenvalue  " + plain(result.smallest_eigenvalue, 4) + "\n";
  text += "  spectral error       " + error(result.spectral_error, result.expected_spectral_error) + "\n";
  text += "  Frobenius error      " + error(result.frobenius_error, result.expected_frobenius_error) + "\n";
  text += errors_table(result);
  const std::string promise = is_derived(arguments)
                                  ? "norm of the rows of all neighbours, which is the caller's promise"
                                  : "sensitivity, which is the caller's promise";
  text += "\nNot certified: sampling in floating point; the generator, which is not a cryptographic one; the " +
          promise + "; the conditions, which were checked on X itself.\n";
  if (arguments.given("seed")) text += "Not private at all towards anyone who knows --seed: for tests only.\n";
  return text;
}

ExitCode run_private(const Communicator& communicator, const Arguments& arguments) {
  check_sensitivity(arguments);
  set_threads(communicator, arguments);
  const ReportDirectory directory(communicator, arguments);
  const Eigen::MatrixXd covariance = load_covariance(communicator, arguments);
  const PrivateAttentionOptions options = private_options(communicator, arguments, covariance);
  const InPhase working(Phase::solve);
  const PrivateAttention result = private_attention(communicator, covariance, options);

  const std::int64_t n = covariance.rows();
  if (directory.is_used()) {  // the matrices are those of rank 0, and empty elsewhere
    write_npy(communicator, directory.file("covariance.npy"), {n, n}, 0, span_of(result.covariance));
    write_npy(communicator, directory.file("attention.npy"), {n, n}, 0, span_of(result.attention));
  }
  directory.finish(report_json(arguments, result, options, n), report_text(arguments, result, options, n));
  return ExitCode::converged;
}

}  // namespace

Command private_command() { return {kPrivateSyntax, run_private}; }

}  // namespace attnreg::app
