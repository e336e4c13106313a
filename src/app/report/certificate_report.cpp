#include "app/report/certificate_report.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "app/report/text.hpp"
#include "errors/printable.hpp"

namespace attnreg::app {

namespace {

std::string kind_text(StationaryKind kind) {
  switch (kind) {
    case StationaryKind::local_minimum: return "local minimum: the smallest eigenvalue of the Hessian is positive";
    case StationaryKind::saddle: return "NOT a minimum: the Hessian has a negative eigenvalue";
    case StationaryKind::degenerate: return "degenerate: the smallest eigenvalue of the Hessian is 0 to rounding";
    case StationaryKind::unknown: return "unknown: the eigenvalues were not found";
  }
  return "";
}

std::string assumption_text(const Assumption& assumption) {
  const auto number = [](double value) { return std::isnan(value) ? std::string("-") : plain(value, 4); };
  std::string text = "  " + std::string(assumption.holds ? "yes" : "no ") + "  " + assumption.name + ": " +
                     assumption.statement + "; value " + number(assumption.value);
  if (!std::isnan(assumption.required)) text += ", needed " + number(assumption.required);
  return text + "\n";
}

}  // namespace

std::string certificate_text(const Certificate& certificate) {
  if (certificate.level == CertificateLevel::none) return "";
  std::string text = "\nCertificate (" + fixed(certificate.reads, 1) + " more reads of A)\n" +
                     summary_line("|g|, A x made anew", scientific(certificate.gradient_norm, 4) + ", relative " +
                                                            scientific(certificate.relative_gradient, 4));
  if (certificate.level != CertificateLevel::full) return text;
  text += summary_line("stationary point", kind_text(certificate.kind)) +
          summary_line("eigenvalues of H", scientific(certificate.smallest_eigenvalue, 4) + " to " +
                                               scientific(certificate.largest_eigenvalue, 4) + ", rounding " +
                                               scientific(certificate.eigenvalue_rounding, 2)) +
          summary_line("Newton decrement", scientific(certificate.newton_decrement, 4)) +
          summary_line("|x - x*|", (certificate.distance_bound ? "<= " + scientific(*certificate.distance_bound, 4)
                                                               : std::string("no bound")) +
                                       ": " + printable(certificate.distance_reason));
  if (!certificate.no_minimiser.empty()) text += summary_line("minimiser", certificate.no_minimiser);
  if (!certificate.assumptions.empty()) text += "\nAssumptions of the papers\n";
  for (const auto& assumption : certificate.assumptions) text += assumption_text(assumption);
  return text;
}

nlohmann::ordered_json certificate_json(const Certificate& certificate) {
  nlohmann::ordered_json json{{"level", certificate_level_name(certificate.level)},
                              {"gradient_norm", certificate.gradient_norm},
                              {"relative_gradient", certificate.relative_gradient},
                              {"certificate_reads", certificate.reads}};
  if (certificate.level != CertificateLevel::full) return json;
  const DistanceFigures& figures = certificate.figures;
  json.update({{"gradient_floor", certificate.gradient_floor},
               {"newton_decrement", certificate.newton_decrement},
               {"smallest_eigenvalue", certificate.smallest_eigenvalue},
               {"largest_eigenvalue", certificate.largest_eigenvalue},
               {"eigenvalue_rounding", certificate.eigenvalue_rounding},
               {"kind", stationary_kind_name(certificate.kind)},
               {"no_minimiser", nullptr},
               {"convexity", certificate.convexity},
               {"distance_bound", nullptr},
               {"distance_reason", certificate.distance_reason},
               {"figures",
                {{"eta", figures.eta},
                 {"hessian_rounding", figures.hessian_rounding},
                 {"row_distance", figures.row_distance},
                 {"ball", figures.ball},
                 {"third_derivative", figures.third_derivative},
                 {"condition", figures.condition},
                 {"radius", figures.radius}}},
               {"assumptions", nlohmann::ordered_json::array()}});
  if (!certificate.no_minimiser.empty()) json["no_minimiser"] = certificate.no_minimiser;
  if (certificate.distance_bound) json["distance_bound"] = *certificate.distance_bound;
  for (const auto& assumption : certificate.assumptions)
    json["assumptions"].push_back({{"name", assumption.name},
                                   {"statement", assumption.statement},
                                   {"value", assumption.value},
                                   {"required", assumption.required},
                                   {"holds", assumption.holds}});
  return json;
}

std::string certificate_text(const AttentionCertificate& certificate) {
  if (certificate.level == CertificateLevel::none) return "";
  std::string text = "\nCertificate (" + fixed(certificate.passes, 0) + " more passes)\n" +
                     summary_line("|g|", scientific(certificate.gradient_norm, 4) + ", relative " +
                                             scientific(certificate.relative_gradient, 4));
  if (certificate.level != CertificateLevel::full) return text;
  text += summary_line("stationary point",
                       kind_text(certificate.kind) + (certificate.reason.empty() ? "" : "; " + certificate.reason)) +
          summary_line("smallest eigenvalue", scientific(certificate.smallest_eigenvalue, 4) + ", residual " +
                                                  scientific(certificate.residual, 2) + ", rounding " +
                                                  scientific(certificate.eigenvalue_rounding, 2) + ", largest " +
                                                  scientific(certificate.largest_eigenvalue, 4)) +
          summary_line("directions", std::to_string(certificate.unknowns) + ", " +
                                         std::to_string(certificate.free_directions) +
                                         " of which L does not depend on; " + counted(certificate.products, "product") +
                                         (certificate.is_complete ? ", none of the others missed" : ""));
  for (const auto& name : certificate.null_directions) text += "  " + name + "\n";
  return text;
}

nlohmann::ordered_json certificate_json(const AttentionCertificate& certificate) {
  nlohmann::ordered_json json{{"level", certificate_level_name(certificate.level)},
                              {"gradient_norm", certificate.gradient_norm},
                              {"relative_gradient", certificate.relative_gradient},
                              {"certificate_passes", certificate.passes}};
  if (certificate.level != CertificateLevel::full) return json;
  json.update({{"gradient_floor", certificate.gradient_floor},
               {"unknowns", certificate.unknowns},
               {"free_directions", certificate.free_directions},
               {"smallest_eigenvalue", certificate.smallest_eigenvalue},
               {"residual", certificate.residual},
               {"complete", certificate.is_complete},
               {"largest_eigenvalue", certificate.largest_eigenvalue},
               {"eigenvalue_rounding", certificate.eigenvalue_rounding},
               {"products", certificate.products},
               {"kind", stationary_kind_name(certificate.kind)},
               {"null_directions", certificate.null_directions},
               {"reason", certificate.reason}});
  return json;
}

std::string sketched_text(const std::vector<SketchedStep>& steps) {
  if (steps.empty()) return "";
  std::string text = "\nSamples: step, rows drawn, distinct rows, error on probes, certified |x - x*|\n";
  for (const auto& step : steps)
    text += "  " + std::to_string(step.iteration) + "  " + (step.draws == 0 ? "all" : std::to_string(step.draws)) +
            "  " + std::to_string(step.rows) + "  " + scientific(step.sampling_error, 3) + "  " +
            scientific(step.distance_bound, 3) + "\n";
  return text;
}

std::string minima_text(const std::vector<Minimum>& minima) {
  if (minima.empty()) return "";
  std::string text = "\nMinima found: L, number of starts, which\n";
  for (const auto& minimum : minima) {
    text += "  " + scientific(minimum.value, 9) + "  " + std::to_string(minimum.starts) + "  ";
    for (std::size_t k = 0; k < minimum.from.size(); ++k) text += (k > 0 ? ", " : "") + minimum.from[k];
    text += "\n";
  }
  return text;
}

nlohmann::ordered_json sketched_json(const std::vector<SketchedStep>& steps) {
  auto json = nlohmann::ordered_json::array();
  for (const auto& step : steps)
    json.push_back({{"iteration", step.iteration},
                    {"draws", step.draws},
                    {"rows", step.rows},
                    {"sampling_error", step.sampling_error},
                    {"distance_bound", step.distance_bound}});
  return json;
}

nlohmann::ordered_json minima_json(const std::vector<Minimum>& minima) {
  auto json = nlohmann::ordered_json::array();
  for (const auto& minimum : minima)
    json.push_back({{"value", minimum.value}, {"starts", minimum.starts}, {"from", minimum.from}});
  return json;
}

}  // namespace attnreg::app
