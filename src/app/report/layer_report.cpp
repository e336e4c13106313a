#include "app/report/layer_report.hpp"

#include <algorithm>
#include <cmath>

#include "app/report/json.hpp"
#include "app/report/text.hpp"

namespace attnreg {

ATTNREG_JSON(LayerEnd, start, error, held_out)

}  // namespace attnreg

namespace attnreg::app {

std::string layer_text(const LayerResult& layer) {
  const bool held_out = layer.sequences_held_out > 0;
  std::string text = "\nStarts, |F A3 Y - B| / |B|\n";
  if (held_out) text += summary_line("", padded("of the start", 14) + "held out");
  for (std::size_t k = 0; k < layer.ends.size(); ++k) {
    const LayerEnd& end = layer.ends[k];
    text +=
        summary_line(end.start, scientific(end.error, 3) + (held_out ? "      " + scientific(end.held_out, 3) : "") +
                                    (static_cast<int>(k) == layer.best ? "   the best" : ""));
  }
  return text;
}

nlohmann::ordered_json layer_json(const LayerResult& layer) {
  const auto& values = layer.singular_values;
  return {{"rank", layer.rank},           {"singular_values", std::vector<double>(values.begin(), values.end())},
          {"is_exact", layer.is_exact},   {"starts", layer.ends},
          {"best", layer.best},           {"sequences_held_out", layer.sequences_held_out},
          {"equations", layer.equations}, {"unknowns", layer.unknown_numbers},
          {"steps", layer.steps},         {"products", layer.products}};
}

}  // namespace attnreg::app
