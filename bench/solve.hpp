#pragma once

#include <string>

#include "measure.hpp"

namespace attnreg::bench {

struct SolvePlan {
  std::string preset;   ///< of the generator
  std::string problem;  ///< directory with A.npy or A.npz, b.npy and w.npy, in place of a preset
  std::int64_t rows = 0;
  Index columns = 0, nonzeros = 10;
  RowType type = RowType::f64;
  std::string scratch;  ///< directory for the generated files, which are removed
  std::string start = "automatic";
  double time_limit_seconds = 60;
};

/// Collective. What `rows`, `columns` and `type` of A are in `plan.problem`: A.npz is csr.
void read_shape(const Communicator& communicator, SolvePlan& plan);

/// Collective. Generates or loads a problem, solves it with the options' defaults, and reports seconds, seconds / R,
/// reads, iterations, and how much memory it took at most beyond what was there before (G13, G20).
void bench_solve(const Communicator& communicator, const SolvePlan& plan, const Facts& facts, const std::string& csv);

}  // namespace attnreg::bench
