// Attention: the fit of X and Y, the recovery of heads and of layers, values and derivatives.
#include <Eigen/Core>
#include <string>
#include <utility>
#include <vector>

#include "attnreg/attention_regression.hpp"
#include "call.hpp"
#include "options.hpp"

namespace attnreg::python {

namespace {

using MaskArray = py::array_t<std::uint8_t, py::array::c_style | py::array::forcecast>;

AttentionMask mask_of(const py::object& mask) {
  if (py::isinstance<py::str>(mask)) return {};  // "causal"
  const auto rows = mask.cast<MaskArray>();
  return {Eigen::Map<const AttentionMask::Rows>(rows.data(), rows.shape(0), rows.shape(1))};
}

/// Collective. Sequences from dicts with the arrays of this rank's queries; targets of heads are left out.
std::vector<AttentionSequence> sequences_of(Call& call, const py::list& given, bool with_targets) {
  std::vector<AttentionSequence> sequences;
  for (const auto& item : given) {
    const auto from = item.cast<py::dict>();
    const auto matrix = [&](const char* name) { return matrix_of(from[name].cast<DoubleArray>()); };
    const auto queries = from["queries"].cast<DoubleArray>();
    const Index rows = queries.shape(0);
    AttentionSequence sequence{call.run([&] { return RowPartition::from_local(call.communicator(), rows); }),
                               matrix_of(queries),
                               matrix("keys"),
                               {},
                               with_targets ? matrix("target") : RowMajorMatrix(),
                               {}};
    if (!from["values"].is_none()) sequence.values = matrix("values");
    if (!from["weights"].is_none()) sequence.weights = matrix("weights");
    if (!from["mask"].is_none()) sequence.mask = mask_of(from["mask"]);
    sequences.push_back(std::move(sequence));
  }
  return sequences;
}

AttentionMatrix head_of(const py::array& target) {
  if (target.dtype().itemsize() != 4) return matrix_of(target.cast<DoubleArray>());
  const auto floats = target.cast<py::array_t<float, py::array::c_style>>();
  return RowMajorMatrixFloat(Eigen::Map<const RowMajorMatrixFloat>(floats.data(), floats.shape(0), floats.shape(1)));
}

/// Of each head its targets, from each sequence's list of arrays.
std::vector<std::vector<AttentionMatrix>> heads_of(const py::list& given) {
  std::vector<std::vector<AttentionMatrix>> heads;
  for (const auto& item : given) {
    const auto targets = item.cast<py::dict>()["heads"].cast<py::list>();
    heads.resize(targets.size());
    for (std::size_t h = 0; h < targets.size(); ++h) heads[h].push_back(head_of(targets[h].cast<py::array>()));
  }
  return heads;
}

py::dict certificate_dict(const AttentionCertificate& certificate) {
  py::dict result;
  result["level"] = std::string(certificate_level_name(certificate.level));
  result["gradient_norm"] = certificate.gradient_norm;
  result["relative_gradient"] = certificate.relative_gradient;
  if (certificate.level != CertificateLevel::full) return result;
  result["smallest_eigenvalue"] = certificate.smallest_eigenvalue;
  result["largest_eigenvalue"] = certificate.largest_eigenvalue;
  result["eigenvalue_rounding"] = certificate.eigenvalue_rounding;
  result["free_directions"] = certificate.free_directions;
  result["unknowns"] = certificate.unknowns;
  result["kind"] = std::string(stationary_kind_name(certificate.kind));
  result["null_directions"] = certificate.null_directions;
  result["reason"] = certificate.reason;
  return result;
}

void add_matrix(py::dict& result, const char* name, RowMajorMatrix& matrix) {
  if (matrix.size() > 0)
    result[name] = array_of(std::move(matrix));
  else
    result[name] = py::none();
}

py::dict attention(Call& call, const py::list& given, const py::dict& options, const py::object& callback) {
  const auto sequences = sequences_of(call, given, true);
  AttentionOptions chosen;
  take(options, "loss", chosen.loss);
  take_choice(options, "method", chosen.method);
  take_choice(options, "model", chosen.model);
  take(options, "dense_limit", chosen.dense_limit);
  take(options, "rank", chosen.rank);
  take_choice(options, "start", chosen.start);
  if (options.contains("X0")) chosen.x0.X = matrix_of(options["X0"].cast<DoubleArray>());
  if (options.contains("Y0")) chosen.x0.Y = matrix_of(options["Y0"].cast<DoubleArray>());
  take(options, "starts", chosen.random_starts);
  take(options, "seed", chosen.seed);
  take_choice(options, "certificate", chosen.certificate);
  take_newton(options, chosen.newton);
  chosen.newton.on_iteration = call.recorder(callback, "solve");
  chosen.on_start_iteration = call.recorder(callback, "start");
  AttentionResult found =
      call.run_until_interrupted([&] { return solve_attention(call.communicator(), sequences, chosen); });
  call.finish_callback();
  py::dict result = newton_dict(found.summary);
  add_matrix(result, "X", found.unknowns.X);
  add_matrix(result, "Y", found.unknowns.Y);
  add_matrix(result, "P", found.P);
  add_matrix(result, "Q", found.Q);
  result["start"] = std::string(start_name(found.start));
  result["model"] = std::string(model_name(found.model));
  result["error"] = found.error;
  result["fitted_expression"] = found.fitted;
  result["certificate"] = certificate_dict(found.certificate);
  result["notes"] = found.notes;
  result["warnings"] = found.warnings;
  result["interrupted"] = call.is_interrupted();
  result["history"] = call.history();
  return result;
}

py::dict fit_dict(const HeadFit& fit) {
  py::dict result;
  result["queries"] = fit.queries;
  result["total_variation"] = fit.total_variation;
  result["divergence"] = fit.divergence;
  result["error"] = fit.error;
  result["same_largest"] = fit.same_largest;
  return result;
}

py::dict quality_dict(const HeadQuality& quality) {
  py::dict result = fit_dict(quality.all);
  result["uniform"] = fit_dict(quality.uniform);
  py::list sequences;
  for (const auto& fit : quality.sequences) sequences.append(fit_dict(fit));
  result["sequences"] = sequences;
  return result;
}

const char* verdict_name(HeadVerdict verdict) {
  switch (verdict) {
    case HeadVerdict::predicts: return "predicts";
    case HeadVerdict::roughly: return "roughly";
    case HeadVerdict::fits_only: return "fits only";
    case HeadVerdict::neither: return "neither";
  }
  return "";
}

py::dict head_dict(HeadResult head) {
  py::dict result;
  add_matrix(result, "X", head.X);
  add_matrix(result, "P", head.P);
  add_matrix(result, "Q", head.Q);
  result["rank"] = head.rank;
  result["gap"] = head.gap;
  result["singular_values"] = array_of(std::move(head.singular_values));
  result["error"] = head.error;
  result["divergence"] = head.divergence;
  result["log_odds_error"] = head.log_odds_error;
  result["zeros"] = head.zeros;
  result["null_directions"] = head.null_directions;
  result["has_query_constant"] = head.has_query_constant;
  result["notes"] = head.notes;
  result["warnings"] = head.warnings;
  result["converged"] = head.converged;
  result["nit"] = head.steps + head.polish_steps;
  result["reads"] = head.reads;
  result["seconds"] = head.seconds;
  return result;
}

/// Heads over `given`, measured there and on `held_out`.
py::list recover(Call& call, const py::list& given, const py::list& held_out, const py::dict& options) {
  HeadOptions chosen;
  take(options, "loss", chosen.loss);
  take(options, "rank", chosen.rank);
  take(options, "weight", chosen.weight);
  take(options, "rounding", chosen.rounding);
  take_choice(options, "split", chosen.split);
  take(options, "seed", chosen.seed);
  const auto sequences = sequences_of(call, given, false), others = sequences_of(call, held_out, false);
  const auto targets = heads_of(given), other_targets = heads_of(held_out);
  struct Found {
    std::vector<HeadResult> heads;
    std::vector<HeadQuality> fits, held_out;
  };
  Found found = call.run([&] {
    Found all;
    const Communicator& communicator = call.communicator();
    all.heads = recover_heads(communicator, sequences, targets, chosen);
    for (std::size_t h = 0; h < all.heads.size(); ++h) {
      all.fits.push_back(head_quality(communicator, sequences, all.heads[h], targets[h]));
      if (!others.empty()) all.held_out.push_back(head_quality(communicator, others, all.heads[h], other_targets[h]));
    }
    return all;
  });
  py::list list;
  for (std::size_t h = 0; h < found.heads.size(); ++h) {
    py::dict result = head_dict(std::move(found.heads[h]));
    result["fit"] = quality_dict(found.fits[h]);
    if (!found.held_out.empty()) {
      result["held_out"] = quality_dict(found.held_out[h]);
      result["verdict"] = verdict_name(head_verdict(found.fits[h], found.held_out[h]));
    }
    list.append(result);
  }
  return list;
}

py::dict layer(Call& call, const py::list& given, const py::dict& options) {
  LayerOptions chosen;
  take(options, "rank", chosen.rank);
  take(options, "dense_limit", chosen.dense_limit);
  if (options.contains("Y")) chosen.Y = matrix_of(options["Y"].cast<DoubleArray>());
  take(options, "starts", chosen.starts);
  take(options, "rounding", chosen.rounding);
  take(options, "seed", chosen.seed);
  const auto sequences = sequences_of(call, given, true);
  LayerResult found = call.run([&] { return recover_layer(call.communicator(), sequences, chosen); });
  py::dict result;
  add_matrix(result, "X", found.unknowns.X);
  add_matrix(result, "Y", found.unknowns.Y);
  add_matrix(result, "P", found.P);
  add_matrix(result, "Q", found.Q);
  result["rank"] = found.rank;
  result["error"] = found.error;
  result["is_exact"] = found.is_exact;
  result["notes"] = found.notes;
  result["warnings"] = found.warnings;
  result["converged"] = found.converged;
  result["nit"] = found.steps;
  result["reads"] = found.reads;
  result["seconds"] = found.seconds;
  return result;
}

py::dict evaluate(Call& call, const py::list& given, const DoubleArray& X, const py::object& Y, const std::string& loss,
                  bool hessian) {
  const auto sequences = sequences_of(call, given, true);
  const AttentionUnknowns at{matrix_of(X), Y.is_none() ? RowMajorMatrix() : matrix_of(Y.cast<DoubleArray>())};
  AttentionEvaluation found =
      call.run([&] { return evaluate_attention(call.communicator(), sequences, loss, at, hessian); });
  py::dict result;
  result["fun"] = found.value;
  add_matrix(result, "jac_X", found.gradient.X);
  add_matrix(result, "jac_Y", found.gradient.Y);
  if (hessian) result["hess"] = array_of(std::move(found.hessian));
  return result;
}

}  // namespace

void define_attention(py::module_& module) {
  module.def("attention", attention);
  module.def("recover_heads", recover);
  module.def("recover_layer", layer);
  module.def("evaluate_attention", evaluate);
}

}  // namespace attnreg::python
