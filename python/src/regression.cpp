// Regressions: solve, path, solve_targets, predict, evaluate, certify.
#include "attnreg/regression.hpp"

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "call.hpp"
#include "options.hpp"

namespace attnreg::python {

namespace {

RegressionModel model_of(const py::dict& given) {
  RegressionModel model;
  take(given, "loss", model.loss);
  take(given, "ridge", model.ridge);
  take(given, "ridge_scaled", model.ridge_scaled);
  if (given.contains("offset"))
    model.offset = std::make_shared<const Eigen::VectorXd>(vector_of(given["offset"].cast<DoubleArray>()));
  return model;
}

RegressionOptions options_of(Call& call, const py::dict& given, const py::object& callback) {
  RegressionOptions options;
  static_cast<RegressionModel&>(options) = model_of(given);
  take_choice(given, "method", options.method);
  take_choice(given, "start", options.start);
  if (given.contains("x0")) options.x0 = vector_of(given["x0"].cast<DoubleArray>());
  take(given, "starts", options.random_starts);
  take_choice(given, "certificate", options.certificate);
  take(given, "epsilon", options.epsilon);
  take(given, "audit", options.audit);
  take(given, "oversampling", options.sampling.oversampling);
  take(given, "sketch_rows", options.sampling.sketch_rows);
  take(given, "nonzeros", options.sampling.nonzeros);
  take(given, "jl_columns", options.sampling.jl_columns);
  take(given, "seed", options.sampling.seed);
  take_choice(given, "linear_solver", options.linear_solver.kind);
  take(given, "block_size", options.linear_solver.block_size);
  take(given, "delta", options.sketched_newton.delta);
  take(given, "radius", options.sketched_newton.radius);
  take(given, "sampling_error", options.sketched_newton.sampling_error);
  take(given, "keep_low_rank", options.sketched_newton.keep_low_rank);
  take_newton(given, options.newton);
  options.newton.on_iteration = call.recorder(callback, "solve");
  options.on_start_iteration = call.recorder(callback, "start");
  return options;
}

py::dict fit_dict(const FitQuality& fit) {
  py::dict result;
  result["relative_residual"] = fit.relative_residual;
  result["total_variation"] = fit.total_variation;
  result["kullback_leibler"] = fit.kullback_leibler;
  result["r_squared"] = fit.r_squared;
  result["support_fitted"] = fit.support_fitted;
  result["support_target"] = fit.support_target;
  result["target_sum"] = fit.target_sum;
  return result;
}

py::dict certificate_dict(const Certificate& certificate) {
  py::dict result;
  result["level"] = std::string(certificate_level_name(certificate.level));
  result["gradient_norm"] = certificate.gradient_norm;
  result["relative_gradient"] = certificate.relative_gradient;
  result["reads"] = certificate.reads;
  result["minimiser_exists"] = certificate.minimiser_exists;
  if (certificate.level != CertificateLevel::full) return result;
  result["gradient_floor"] = certificate.gradient_floor;
  result["newton_decrement"] = certificate.newton_decrement;
  result["smallest_eigenvalue"] = certificate.smallest_eigenvalue;
  result["largest_eigenvalue"] = certificate.largest_eigenvalue;
  result["eigenvalue_rounding"] = certificate.eigenvalue_rounding;
  result["kind"] = std::string(stationary_kind_name(certificate.kind));
  result["no_minimiser"] = certificate.no_minimiser;
  result["convexity"] = certificate.convexity;
  result["distance_bound"] = certificate.distance_bound;
  result["distance_reason"] = certificate.distance_reason;
  py::list assumptions;
  for (const auto& [name, statement, value, required, holds] : certificate.assumptions) {
    py::dict assumption;
    assumption["name"] = name;
    assumption["statement"] = statement;
    assumption["value"] = value;
    assumption["required"] = required;
    assumption["holds"] = holds;
    assumptions.append(assumption);
  }
  result["assumptions"] = assumptions;
  return result;
}

py::dict result_dict(RegressionResult result) {
  py::dict dict = newton_dict(result.summary);
  dict["x"] = array_of(std::move(result.x));
  dict["jac"] = array_of(std::move(result.gradient));
  dict["fitted"] = array_of(std::move(result.fitted));
  dict["method"] = std::string(method_name(result.method));
  dict["start"] = std::string(start_name(result.start));
  dict["start_iterations"] = result.start_iterations;
  dict["sample_reads"] = result.sample_reads;
  dict["certificate"] = certificate_dict(result.certificate);
  dict["fit"] = fit_dict(result.fit);
  dict["notes"] = result.notes;
  dict["warnings"] = result.warnings;
  py::list minima;
  for (const auto& [value, termination, starts, from] : result.minima) {
    py::dict minimum;
    minimum["fun"] = value;
    minimum["termination"] = std::string(termination_name(termination));
    minimum["starts"] = starts;
    minimum["from"] = from;
    minima.append(minimum);
  }
  dict["minima"] = minima;
  py::list steps;
  for (const auto& step : result.sketched_steps) {
    py::dict one;
    one["iteration"] = step.iteration;
    one["draws"] = step.draws;
    one["rows"] = step.rows;
    one["sampling_error"] = step.sampling_error;
    one["distance_bound"] = step.distance_bound;
    steps.append(one);
  }
  dict["sketched_steps"] = steps;
  if (const AuditReport& audit = result.audit; audit.rate > 0) {
    py::dict found;
    found["rate"] = audit.rate;
    found["evaluations"] = audit.evaluations;
    found["rows"] = audit.rows;
    found["reads"] = audit.reads;
    found["repeated"] = audit.repeated;
    found["misjudged"] = audit.misjudged;
    dict["audit"] = found;
  }
  return dict;
}

/// What all results of a call share.
void add_call(Call& call, py::dict& result) {
  result["interrupted"] = call.is_interrupted();
  result["history"] = call.history();
}

py::dict solve(Call& call, const Matrix& A, const DoubleArray& b, const py::object& w, const py::dict& options,
               const py::object& callback) {
  const RegressionOptions chosen = options_of(call, options, callback);
  const Eigen::VectorXd target = vector_of(b);
  const RidgeWeights weights = weights_of(w);
  RegressionResult result =
      call.run_until_interrupted([&] { return solve_regression(*A.rows, target, weights, chosen); });
  call.finish_callback();
  py::dict dict = result_dict(std::move(result));
  add_call(call, dict);
  return dict;
}

py::list list_of(Call& call, std::vector<RegressionResult> results) {
  py::list list;
  for (auto& result : results) {
    py::dict dict = result_dict(std::move(result));
    add_call(call, dict);
    list.append(dict);
  }
  return list;
}

/// The phase of each record is the number of its weight: a path begins each with iteration 0.
py::list path(Call& call, const Matrix& A, const DoubleArray& b, const std::vector<double>& weights,
              const py::dict& options, const py::object& callback) {
  const RegressionOptions chosen = options_of(call, options, callback);
  const Eigen::VectorXd target = vector_of(b);
  auto results = call.run_until_interrupted([&] { return solve_path(*A.rows, target, weights, chosen); });
  call.finish_callback();
  return list_of(call, std::move(results));
}

py::list targets(Call& call, const Matrix& A, const DoubleArray& B, const py::object& w, const py::dict& options,
                 const py::object& callback) {
  RegressionOptions chosen = options_of(call, options, callback);
  const Eigen::MatrixXd all = matrix_of(B);
  const RidgeWeights weights = weights_of(w);
  std::map<int, std::function<void(const IterationRecord&)>> recorders;
  const auto on_iteration = [&](int target, const IterationRecord& record) {
    auto& recorder = recorders[target];
    if (!recorder) recorder = call.recorder(callback, std::to_string(target));
    recorder(record);
  };
  auto results = call.run_until_interrupted([&] { return solve_targets(*A.rows, all, weights, chosen, on_iteration); });
  call.finish_callback();
  return list_of(call, std::move(results));
}

py::array predict_rows(Call& call, const Matrix& A, const DoubleArray& x, const py::dict& model) {
  const Eigen::VectorXd point = vector_of(x);
  const RegressionModel chosen = model_of(model);
  return array_of(call.run([&] { return predict(*A.rows, point, chosen); }));
}

py::dict evaluate(Call& call, const Matrix& A, const DoubleArray& b, const py::object& w, const DoubleArray& x,
                  const py::dict& model, bool hessian) {
  const RegressionModel chosen = model_of(model);
  const Eigen::VectorXd target = vector_of(b), point = vector_of(x);
  const RidgeWeights weights = weights_of(w);
  RegressionEvaluation found =
      call.run([&] { return evaluate_regression(*A.rows, target, weights, point, chosen, hessian); });
  py::dict result;
  result["fun"] = found.value;
  result["log_fun"] = found.log_value;
  result["jac"] = array_of(std::move(found.gradient));
  if (hessian) result["hess"] = array_of(std::move(found.hessian));
  return result;
}

py::dict certify(Call& call, const Matrix& A, const DoubleArray& b, const py::object& w, const DoubleArray& x,
                 const py::dict& model, int level) {
  const RegressionModel chosen = model_of(model);
  const Eigen::VectorXd target = vector_of(b), point = vector_of(x);
  const RidgeWeights weights = weights_of(w);
  return certificate_dict(call.run([&] {
    return certify_regression(*A.rows, target, weights, point, chosen, static_cast<CertificateLevel>(level));
  }));
}

}  // namespace

void define_regression(py::module_& module) {
  module.def("loss_names", [] {
    std::vector<std::string> names;
    for (const auto name : loss_names()) names.emplace_back(name);
    return names;
  });
  module.def("solve", solve);
  module.def("path", path);
  module.def("targets", targets);
  module.def("predict", predict_rows);
  module.def("evaluate", evaluate);
  module.def("certify", certify);
}

}  // namespace attnreg::python
