#include <nlohmann/json.hpp>

#include "app/report/summary.hpp"
#include "app/report/text.hpp"
#include "app/report/verdict.hpp"

namespace attnreg::app {

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

}  // namespace attnreg::app
