#include <cmath>
#include <functional>
#include <limits>

#include "app/options/commands.hpp"
#include "app/options/solver_options.hpp"
#include "app/report/json.hpp"
#include "app/report/text.hpp"
#include "app/run/sequence_list.hpp"
#include "attention/attention_passes.hpp"
#include "attnreg/attention_regression.hpp"
#include "attnreg/files.hpp"
#include "attnreg/regression.hpp"
#include "files/output_file.hpp"
#include "objective/fitted_values.hpp"
#include "ranks/activity.hpp"
#include "ranks/span_of.hpp"
#include "ranks/stop.hpp"
#include "regression/fit.hpp"
#include "rows/row_passes.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kEvaluateEpilogue = R"(Examples:
  attnreg evaluate A.npy b.npy x.npy --weight 1e-4
  attnreg evaluate A.npy b.npy x.npy --loss cross-entropy --json --gradient g.npy --hessian H.npy
  attnreg evaluate --queries A1.npy --keys A2.npy --target B.npy --X run/X.npy
  attnreg evaluate --queries A1.npy --keys A2.npy --values A3.npy --target B.npy --X run/X.npy --Y run/Y.npy
  attnreg evaluate --sequences list.txt --mask causal --X run/X.npy

Of attention, gradient and Hessian are those of [vec X; vec Y], vec row by row, and --weights is W (n1 x n2).
)";

OptionGroup with_unknowns(OptionGroup group) {
  group.title = "Attention regression, in place of A, b and x";
  group.options.push_back({"X", 0, "FILE", Text{}, "", "X, d1 x d2"});
  group.options.push_back({"Y", 0, "FILE", Text{}, "", "Y, d3 x dv; with values"});
  return group;
}

const Syntax kEvaluateSyntax{"evaluate",
                             "Value, gradient and Hessian of L(x) = phi(A x) + 1/2 |diag(w) A x|^2 at a given x.",
                             {{"A", "n x d matrix, .npy"}, {"b", "n target values, .npy"}, {"x", "d values, .npy"}},
                             {model_options(),
                              with_unknowns(attention_options(false)),
                              computing_options(),
                              {"Output",
                               {json_option("print the figures as JSON"),
                                {"gradient", 0, "FILE", Text{}, "", "write the gradient, d values, .npy"},
                                {"hessian", 0, "FILE", Text{}, "", "write the exact Hessian, d x d, .npy"},
                                force_option()}}},
                             kEvaluateEpilogue,
                             {"queries", "sequences"}};

std::string result_text(const Problem& problem, const RegressionEvaluation& found, const Arguments& arguments) {
  const double norm = found.gradient.norm(), log_value = found.log_value;
  if (arguments.on("json")) {
    auto json = document_of("evaluate", arguments);
    json.update({{"value", found.value},
                 {"log_value", log_value},
                 {"gradient_norm", norm},
                 {"loss", arguments.text("loss")},
                 {"rows", problem.A.rows_global()},
                 {"columns", problem.A.columns()}});
    return json_text(json);
  }
  std::string value = exact(found.value);
  if (!std::isfinite(found.value)) value = "overflows";
  if (!std::isfinite(found.value) && std::isfinite(log_value)) value += "; ln L = " + exact(log_value);
  return to_width("L    " + value + "\n|g|  " + (std::isfinite(norm) ? exact(norm) : "overflows") + "\nwith " +
                  arguments.text("loss") + " loss, w = " + weight_text(arguments) + ", " +
                  std::to_string(problem.A.rows_global()) + " x " + std::to_string(problem.A.columns()) + "\n");
}

/// Local. The files to be written can be.
void check_outputs(const Communicator& communicator, const Arguments& arguments) {
  for (const std::string_view name : {"gradient", "hessian"})
    if (communicator.is_root() && arguments.has(name)) check_output(arguments.text(name), arguments.on("force"));
}

/// Collective. What a command line asks for; gradient and H (empty unless asked for), replicated. Numbers that are not
/// finite are not written.
ExitCode write_outputs(const Communicator& communicator, const Arguments& arguments, const std::string& text,
                       double value, const Eigen::VectorXd& gradient, const Eigen::MatrixXd& H) {
  const Eigen::Index d = gradient.size();
  const bool finite = gradient.allFinite();
  const bool finite_H = communicator.max(std::int64_t{!H.allFinite()}) == 0;
  StopsEndPhases::end();
  communicator.agree_on_root([&] {
    if (arguments.has("gradient") && finite) write_npy(arguments.text("gradient"), span_of(gradient), {d});
    if (arguments.has("hessian") && finite_H) write_npy(arguments.text("hessian"), span_of(H), {d, d});
    if (!finite_H) print_line("attnreg: error: the Hessian is not finite, and not written");
  });
  print_result(communicator, text);
  return std::isfinite(value) && finite && finite_H ? ExitCode::converged : ExitCode::breakdown;
}

/// The largest size of a logit on this rank, infinite where one is not a number, and the first place that has it.
struct LargestLogit {
  double size = -1;
  std::string place;

  void add(const Eigen::VectorXd& logits, const std::function<std::string()>& place_of) {
    double found = logits.size() > 0 ? logits.cwiseAbs().maxCoeff<Eigen::PropagateNaN>() : -1;
    if (std::isnan(found)) found = std::numeric_limits<double>::infinity();
    if (!(found > size)) return;
    size = found;
    place = place_of();
  }

  /// Collective. Says so, where L or its gradient is not finite.
  void print(const Communicator& communicator) const {
    const double of_all = communicator.max(size);
    const std::int64_t rank =
        communicator.min(std::int64_t{size == of_all ? communicator.rank() : communicator.size()});
    const std::string first = communicator.broadcast(place, static_cast<int>(rank));
    if (communicator.is_root())
      print_line("attnreg: error: L or its gradient is not finite; the largest logit, " +
                 (std::isfinite(of_all) ? "of size " + plain(of_all, 6) : std::string("which overflows")) +
                 ", is that of " + first + " (counted from 0)");
  }
};

/// Collective. Prints the row whose logit is the largest.
void explain_overflow(const RowMatrix& A, const Eigen::VectorXd& x, const RegressionModel& model) {
  const Eigen::VectorXd z = with_offsets(A.passes().multiply(x, Compensated()), logit_offsets(A, model));
  LargestLogit largest;
  for (Eigen::Index i = 0; i < z.size(); ++i)
    largest.add(z.segment(i, 1), [&] { return "row " + std::to_string(A.first_row() + i); });
  largest.print(A.communicator());
}

/// Collective. The same for attention, of the keys that the queries see.
void explain_overflow(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                      const RowMajorMatrix& X) {
  LargestLogit largest;
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    const SequenceView view(sequences[s], communicator.rank());
    const RowMajorMatrix products = sequences[s].queries * X;
    for (Eigen::Index i = 0; i < products.rows(); ++i) {
      RowMajorMatrix logits = products.row(i) * view.keys_transposed;
      if (view.visible) view.visible->fill_hidden(logits, i, 0, 0);
      largest.add(logits.transpose(), [&] {
        return "sequence " + std::to_string(s) + ", row " +
               std::to_string(sequences[s].partition.begin(communicator.rank()) + i);
      });
    }
  }
  largest.print(communicator);
}

ExitCode evaluate_regression(const Communicator& communicator, const Arguments& arguments) {
  arguments.exclude("weight", "weights");
  arguments.exclude("ridge", "ridge-scaled");
  arguments.refuse({"keys", "values", "target", "mask", "X", "Y"}, "needs --queries or --sequences");
  communicator.agree([&] {
    examine_problem(arguments);
    examine("x", arguments.text("x"));
    check_outputs(communicator, arguments);
  });
  const Problem problem = load_problem(communicator, arguments);
  const Eigen::VectorXd x = load_vector(communicator, arguments.text("x"), "x", problem.A.columns());

  const InPhase working(Phase::solve);
  RegressionModel model = regression_model(arguments);
  model.offset = problem.offset;
  const auto found = attnreg::evaluate_regression(problem.A, problem.b, problem.w, x, model, arguments.has("hessian"));
  if (!std::isfinite(found.value) || !found.gradient.allFinite()) explain_overflow(problem.A, x, model);
  return write_outputs(communicator, arguments, result_text(problem, found, arguments), found.value, found.gradient,
                       found.hessian);
}

ExitCode evaluate_sequences(const Communicator& communicator, const Arguments& arguments) {
  check_attention_options(arguments);
  arguments.require("X");
  arguments.refuse({"weight", "loss", "normalise-b", "offset", "ridge", "ridge-scaled"}, "does not go with attention");
  std::vector<SequenceFiles> files;
  communicator.agree([&] {
    files = examine_sequences(arguments);
    examine("X", arguments.text("X"));
    if (arguments.given("Y") != files[0].values.has_value())
      throw InvalidArgument(arguments.given("Y") ? "--Y needs values" : "values need --Y");
    check_outputs(communicator, arguments);
  });
  const auto sequences = load_sequences(communicator, files);
  AttentionUnknowns at{load_replicated_matrix(communicator, arguments.text("X")), RowMajorMatrix(0, 0)};
  if (arguments.given("Y")) at.Y = load_replicated_matrix(communicator, arguments.text("Y"));

  const InPhase working(Phase::solve);
  const auto found = evaluate_attention(communicator, sequences, form_loss(arguments), at, arguments.has("hessian"));
  Eigen::VectorXd gradient(at.X.size() + at.Y.size());
  gradient << found.gradient.X.reshaped<Eigen::RowMajor>(), found.gradient.Y.reshaped<Eigen::RowMajor>();
  if (!std::isfinite(found.value) || !gradient.allFinite()) explain_overflow(communicator, sequences, at.X);
  const double norm = gradient.norm();
  const std::string warning = missing_mask(communicator, sequences);
  auto json = document_of("evaluate", arguments);
  json.update({{"value", found.value},
               {"gradient_norm", norm},
               {"form", arguments.text("form")},
               {"sequences", sequences.size()},
               {"X", {at.X.rows(), at.X.cols()}},
               {"Y", {at.Y.rows(), at.Y.cols()}},
               {"warnings", warning.empty() ? std::vector<std::string>{} : std::vector{warning}}});
  const std::string text =
      arguments.on("json")
          ? json_text(json)
          : to_width((warning.empty() ? "" : "WARNING: " + warning + "\n") + "L    " +
                     (std::isfinite(found.value) ? exact(found.value) : "overflows") + "\n|g|  " +
                     (std::isfinite(norm) ? exact(norm) : "overflows") + "\nwith form " + arguments.text("form") +
                     ", " + counted(static_cast<std::int64_t>(sequences.size()), "sequence") + "\n");
  return write_outputs(communicator, arguments, text, found.value, gradient, found.hessian);
}

ExitCode evaluate(const Communicator& communicator, const Arguments& arguments) {
  set_threads(communicator, arguments);
  return arguments.given("queries") || arguments.given("sequences") ? evaluate_sequences(communicator, arguments)
                                                                    : evaluate_regression(communicator, arguments);
}

}  // namespace

Command evaluate_command() { return {kEvaluateSyntax, evaluate}; }

}  // namespace attnreg::app
