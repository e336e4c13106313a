#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "app/options/options.hpp"
#include "attnreg/sparsifier.hpp"

namespace attnreg::app {

/// What the result of `sparsify` is made of.
struct SparsifyReport {
  const Arguments& arguments;
  const Sparsifier& result;
  const RowMatrix& X;
  std::int64_t columns_asked;  ///< that epsilon and delta, or --columns, ask for
  AttentionErrors errors;      ///< of Y, of Y = 0 and, unless Y itself is such, of uniformly drawn columns; or none
  double scale;
  double read_seconds, choose_seconds, measure_seconds;
  double reads;  ///< of X, for the choice
  std::int64_t collectives;
  int threads;
  std::vector<std::string> files;  ///< written; empty without -o
};

/// Whether what epsilon promises was asked for and measured, and does not hold.
bool misses_epsilon(const SparsifyReport& report);

/// The page on stdout: the verdict, what was chosen, and its errors beside those of Y = 0 and of uniform draws.
std::string sparsify_text(const SparsifyReport& report);

/// The same for report.json.
nlohmann::ordered_json sparsify_json(const SparsifyReport& report);

}  // namespace attnreg::app
