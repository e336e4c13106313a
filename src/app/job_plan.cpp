#include "job_plan.hpp"

#include <algorithm>
#include <cmath>

namespace attnreg::app {

double solve_bytes(const SolveShape& shape, int ranks, int threads) {
  constexpr double row_vectors = 10;
  const auto rows_local = static_cast<double>(shape.rows / ranks + 1);
  const auto columns = static_cast<double>(shape.columns);
  const double entries_local = shape.sparse ? static_cast<double>(shape.entries) / ranks : rows_local * columns;
  const double entry_bytes = (shape.storage == Storage::float32 ? 4 : 8) + (shape.sparse ? 4 : 0);  // with the column
  return entries_local * entry_bytes + rows_local * row_vectors * 8 +
         8 * columns * columns * (6 * threads + 4);  // each thread: a sketch of 6 d rows, or two Grams
}

JobPlan plan_job(const SolveShape& shape, const JobLayout& layout, double node_bandwidth) {
  constexpr double kMargin = 1.25, kProgramBytes = 200e6;
  constexpr double kFlops = 10e9, kFactorizations = 25, kStartSeconds = 10;
  const int on_busiest = std::min(layout.ranks, layout.ranks_per_node);
  const double rank_bytes = solve_bytes(shape, layout.ranks, layout.threads);
  const double cube = std::pow(static_cast<double>(shape.columns), 3);
  const double reads = shape.columns <= 256 ? 110 : 220;

  JobPlan plan;
  plan.bytes_per_node = on_busiest * (kMargin * rank_bytes + kProgramBytes);
  plan.seconds = reads * on_busiest * rank_bytes / node_bandwidth + kFactorizations * 3 * cube / kFlops + kStartSeconds;
  plan.minutes = std::max<std::int64_t>(10, static_cast<std::int64_t>(std::ceil(5 * plan.seconds / 60)));
  return plan;
}

}  // namespace attnreg::app
