#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "app/options/options.hpp"
#include "sparsify/key_errors.hpp"

namespace attnreg::app {

/// What was found for one head.
struct HeadChoice {
  std::int64_t kept = 0;
  bool is_fitted = false;        ///< the weights were fitted
  double size = 0;               ///< |O|_F
  std::vector<KeyError> errors;  ///< of the choice and of what it is measured by; or none
  QueryBound bound{};
};

/// What the result of `sparsify --tokens` is made of.
struct TokenReport {
  const Arguments& arguments;
  std::string method;
  std::int64_t queries, keys, columns, value_columns;
  double scale;
  std::vector<HeadChoice> heads;
  double read_seconds, choose_seconds, measure_seconds;
  int ranks, threads;
  std::vector<std::string> files;  ///< written; empty without -o
};

/// The page on stdout, and the same for report.json.
std::string token_text(const TokenReport& report);
nlohmann::ordered_json token_json(const TokenReport& report);

}  // namespace attnreg::app
