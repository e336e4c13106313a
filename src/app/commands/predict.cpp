#include <limits>

#include "app/options/commands.hpp"
#include "app/report/json.hpp"
#include "app/report/text.hpp"
#include "app/run/problem.hpp"
#include "attnreg/files.hpp"
#include "attnreg/regression.hpp"
#include "errors/printable.hpp"
#include "files/output_file.hpp"
#include "losses/losses.hpp"
#include "ranks/activity.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kPredictEpilogue = R"(Examples:
  mpirun -n 4 attnreg predict A.npy run/x.npy -o f.npy
  attnreg predict A.npy run/x.npy --loss rescaled-cosh -o f.npy
  attnreg predict A.npy run/x.npy --offset log_exposure.npy -o f.npy
)";

const Syntax kPredictSyntax{
    "predict",
    "Write what a fit compares with b, f = softmax(A x) or exp(A x) and the like, one value per row of A.",
    {{"A", "n x d matrix, .npy"}, {"x", "d values, .npy"}},
    {{"Model", {{"loss", 0, "NAME", Choice{loss_names()}, "softmax", "of the fit; says what f is"}, offset_option()}},
     computing_options(),
     {"Output",
      {{"output", 'o', "FILE", Text{}, "", "where f goes, n values, .npy; needed"},
       json_option("print the figures as JSON"),
       force_option()}}},
    kPredictEpilogue};

ExitCode predict_rows(const Communicator& communicator, const Arguments& arguments) {
  arguments.require("output");
  const std::string path = arguments.text("output");
  set_threads(communicator, arguments);
  communicator.agree([&] {
    examine("A", arguments.text("A"));
    examine("x", arguments.text("x"));
    if (arguments.has("offset")) examine("offset", arguments.text("offset"));
    if (communicator.is_root()) check_output(path, arguments.on("force"));
  });
  const RowMatrix A = load_matrix(communicator, arguments.text("A"), storage_choice(arguments));
  const Eigen::VectorXd x = load_vector(communicator, arguments.text("x"), "x", A.columns());

  RegressionModel model(arguments.text("loss"));
  model.offset = load_offset(A, arguments);

  const InPhase working(Phase::solve);
  const Eigen::VectorXd f = predict(A, x, model);
  write_npy(communicator, path, {A.rows_global()}, A.first_row(), span_of(f));

  const double largest = communicator.max(f.size() > 0 ? f.maxCoeff() : -std::numeric_limits<double>::infinity());
  const double size = communicator.max(f.size() > 0 ? f.cwiseAbs().maxCoeff() : 0.0);  // the squares might overflow
  const Eigen::VectorXd scaled = size > 0 ? Eigen::VectorXd(f / size) : f;
  const double sum = communicator.sum(scaled.sum()), squares = communicator.sum(scaled.squaredNorm());
  auto json = document_of("predict", arguments);
  json.update(
      {{"output", path}, {"rows", A.rows_global()}, {"largest", largest}, {"effective_support", sum * sum / squares}});
  print_result(communicator, arguments.on("json")
                                 ? json_text(json)
                                 : to_width(printable(path) + ": " + std::to_string(A.rows_global()) +
                                            " values, largest " + scientific(largest, 6) + ", effective support " +
                                            scientific(sum * sum / squares, 6) + " rows\n"));
  return ExitCode::converged;
}

}  // namespace

Command predict_command() { return {kPredictSyntax, predict_rows}; }

}  // namespace attnreg::app
