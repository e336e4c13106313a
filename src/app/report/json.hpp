#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "app/options/options.hpp"

/// Makes JSON of a struct, and a struct of JSON: an object of these members, in this order. Goes into the namespace of
/// the struct. If memory ends while a null becomes an object, the library leaves one that cannot be destroyed: what is
/// filled piece by piece begins as `object()` or `array()`; the same holds for `binary()`, in place of `binary_t`.
#define ATTNREG_JSON(Struct, ...)                                              \
  template <class Json>                                                        \
  void to_json(Json& nlohmann_json_j, const Struct& nlohmann_json_t) {         \
    nlohmann_json_j = Json::object();                                          \
    NLOHMANN_JSON_EXPAND(NLOHMANN_JSON_PASTE(NLOHMANN_JSON_TO, __VA_ARGS__))   \
  }                                                                            \
  template <class Json>                                                        \
  void from_json(const Json& nlohmann_json_j, Struct& nlohmann_json_t) {       \
    NLOHMANN_JSON_EXPAND(NLOHMANN_JSON_PASTE(NLOHMANN_JSON_FROM, __VA_ARGS__)) \
  }

namespace attnreg::app {

/// What every document begins with: its schema, "attnreg-NAME-1", which docs/schemas describes, and the configuration.
inline nlohmann::ordered_json document_of(const std::string& name, const Arguments& arguments) {
  return {{"schema", "attnreg-" + name + "-1"}, {"configuration", arguments.configuration()}};
}

}  // namespace attnreg::app
