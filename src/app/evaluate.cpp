#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "attnreg/loss.hpp"
#include "attnreg/npy.hpp"
#include "commands.hpp"
#include "output_file.hpp"
#include "problem.hpp"
#include "regression_objective.hpp"
#include "text.hpp"
#include "threads.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kEpilogue = R"(Examples:
  attnreg evaluate A.npy b.npy x.npy --weight 1e-4
  attnreg evaluate A.npy b.npy x.npy --loss cross-entropy --json --gradient g.npy --hessian H.npy
)";

const Syntax kSyntax{"evaluate",
                     "Value, gradient and Hessian of L(x) = phi(A x) + 1/2 |diag(w) A x|^2 at a given x.",
                     {{"A", "n x d matrix, .npy"}, {"b", "n target values, .npy"}, {"x", "d values, .npy"}},
                     {model_options(),
                      computing_options(),
                      {"Output",
                       {{"json", 0, "", Switch{}, "", "print JSON"},
                        {"gradient", 0, "FILE", Text{}, "", "write the gradient, d values, .npy"},
                        {"hessian", 0, "FILE", Text{}, "", "write the exact Hessian, d x d, .npy"},
                        help_option()}}},
                     kEpilogue};

std::string result_text(const Problem& problem, const RegressionObjective& objective, const Arguments& arguments) {
  const double norm = objective.gradient().norm();
  if (arguments.on("json"))
    return json_text({{"value", objective.value()},
                      {"gradient_norm", norm},
                      {"loss", arguments.text("loss")},
                      {"rows", problem.A.rows_global()},
                      {"columns", problem.A.columns()}});
  return "L    " + exact(objective.value()) + "\n|g|  " + exact(norm) + "\nwith " + arguments.text("loss") +
         " loss, w = " + weight_text(arguments) + ", " + std::to_string(problem.A.rows_global()) + " x " +
         std::to_string(problem.A.columns()) + "\n";
}

ExitCode evaluate(const Communicator& communicator, const Arguments& arguments) {
  arguments.exclude("weight", "weights");
  set_threads(communicator, arguments.optional_integer("threads"));
  communicator.agree([&] {
    examine_problem(arguments);
    examine("x", arguments.text("x"));
    for (const std::string_view name : {"gradient", "hessian"})
      if (communicator.is_root() && arguments.has(name)) OutputFile check(arguments.text(name));
  });
  const Problem problem = load_problem(communicator, arguments);
  const Eigen::VectorXd x = load_vector(communicator, arguments.text("x"), "x", problem.A.columns());

  RegressionObjective objective(problem.A, problem.b, problem.w, make_loss(arguments.text("loss")));
  objective.move_to(x);
  const Eigen::Index d = objective.dimension();
  Eigen::MatrixXd H;
  if (arguments.has("hessian")) H = objective.hessian_on_root().exact;
  communicator.agree([&] {
    if (!communicator.is_root()) return;
    const auto values = [](const auto& array) {
      return std::span(array.data(), static_cast<std::size_t>(array.size()));
    };
    if (arguments.has("gradient")) write_npy(arguments.text("gradient"), values(objective.gradient()), {d});
    if (arguments.has("hessian")) write_npy(arguments.text("hessian"), values(H), {d, d});
  });
  print_result(communicator, result_text(problem, objective, arguments));
  const bool finite = std::isfinite(objective.value()) && objective.gradient().allFinite();
  return finite ? ExitCode::converged : ExitCode::breakdown;
}

}  // namespace

Command evaluate_command() { return {kSyntax, evaluate}; }

}  // namespace attnreg::app
