#include <cmath>
#include <nlohmann/json.hpp>

#include "app/options/commands.hpp"
#include "app/options/solver_options.hpp"
#include "app/report/text.hpp"
#include "app/run/sequence_list.hpp"
#include "attnreg/attention_regression.hpp"
#include "attnreg/files.hpp"
#include "files/output_file.hpp"
#include "losses/losses.hpp"
#include "objective/regression_objective.hpp"
#include "ranks/span_of.hpp"

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
                               {{"json", 0, "", Switch{}, "", "print JSON"},
                                {"gradient", 0, "FILE", Text{}, "", "write the gradient, d values, .npy"},
                                {"hessian", 0, "FILE", Text{}, "", "write the exact Hessian, d x d, .npy"},
                                help_option()}}},
                             kEvaluateEpilogue,
                             {"queries", "sequences"}};

/// Collective.
std::string result_text(const Problem& problem, const RegressionObjective& objective, const Point& point,
                        const Arguments& arguments) {
  const double norm = point.gradient.norm(), log_value = objective.log_value(point);
  if (arguments.on("json"))
    return json_text({{"value", point.value},
                      {"log_value", log_value},
                      {"gradient_norm", norm},
                      {"loss", arguments.text("loss")},
                      {"rows", problem.A.rows_global()},
                      {"columns", problem.A.columns()}});
  const std::string value = std::isfinite(point.value) || !std::isfinite(log_value)
                                ? exact(point.value)
                                : "overflows; ln L = " + exact(log_value);
  return "L    " + value + "\n|g|  " + (std::isfinite(norm) ? exact(norm) : "overflows") + "\nwith " +
         arguments.text("loss") + " loss, w = " + weight_text(arguments) + ", " +
         std::to_string(problem.A.rows_global()) + " x " + std::to_string(problem.A.columns()) + "\n";
}

/// Local. The files to be written can be.
void check_outputs(const Communicator& communicator, const Arguments& arguments) {
  for (const std::string_view name : {"gradient", "hessian"})
    if (communicator.is_root() && arguments.has(name)) OutputFile check(arguments.text(name));
}

/// Collective. What a command line asks for; gradient and H (empty unless asked for) on rank 0.
ExitCode write_outputs(const Communicator& communicator, const Arguments& arguments, const std::string& text,
                       double value, const Eigen::VectorXd& gradient, const Eigen::MatrixXd& H) {
  const Eigen::Index d = gradient.size();
  communicator.agree_on_root([&] {
    if (arguments.has("gradient")) write_npy(arguments.text("gradient"), span_of(gradient), {d});
    if (arguments.has("hessian")) write_npy(arguments.text("hessian"), span_of(H), {d, d});
  });
  print_result(communicator, text);
  return std::isfinite(value) && gradient.allFinite() ? ExitCode::converged : ExitCode::breakdown;
}

ExitCode evaluate_regression(const Communicator& communicator, const Arguments& arguments) {
  arguments.exclude("weight", "weights");
  arguments.refuse({"keys", "values", "target", "mask", "X", "Y"}, "needs --queries or --sequences");
  communicator.agree([&] {
    examine_problem(arguments);
    examine("x", arguments.text("x"));
    check_outputs(communicator, arguments);
  });
  const Problem problem = load_problem(communicator, arguments);
  const Eigen::VectorXd x = load_vector(communicator, arguments.text("x"), "x", problem.A.columns());

  RegressionObjective objective(problem.A, problem.b, problem.w, make_loss(arguments.text("loss")));
  const Point point = objective.evaluate(x);
  Eigen::MatrixXd H;
  if (arguments.has("hessian")) H = objective.hessian_on_root(point).exact;
  return write_outputs(communicator, arguments, result_text(problem, objective, point, arguments), point.value,
                       point.gradient, H);
}

ExitCode evaluate_sequences(const Communicator& communicator, const Arguments& arguments) {
  check_attention_options(arguments);
  arguments.require("X");
  arguments.refuse({"weight", "loss"}, "does not go with attention");
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

  const auto found = evaluate_attention(communicator, sequences, form_loss(arguments), at, arguments.has("hessian"));
  Eigen::VectorXd gradient(at.X.size() + at.Y.size());
  gradient << found.gradient.X.reshaped<Eigen::RowMajor>(), found.gradient.Y.reshaped<Eigen::RowMajor>();
  const double norm = gradient.norm();
  const std::string warning = missing_mask(communicator, sequences);
  const auto warnings = warning.empty() ? nlohmann::json::array() : nlohmann::json::array({warning});
  const std::string text = arguments.on("json")
                               ? json_text({{"value", found.value},
                                            {"gradient_norm", norm},
                                            {"form", arguments.text("form")},
                                            {"sequences", sequences.size()},
                                            {"X", {at.X.rows(), at.X.cols()}},
                                            {"Y", {at.Y.rows(), at.Y.cols()}},
                                            {"warnings", warnings}})
                               : (warning.empty() ? "" : "WARNING: " + warning + "\n") + "L    " + exact(found.value) +
                                     "\n|g|  " + exact(norm) + "\nwith form " + arguments.text("form") + ", " +
                                     counted(static_cast<std::int64_t>(sequences.size()), "sequence") + "\n";
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
