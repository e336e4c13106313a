#pragma once

#include <cstdint>

#include "attnreg/linear_solver.hpp"
#include "attnreg/row_matrix.hpp"

namespace attnreg::app {

/// The shape of a solve, dense or sparse.
struct SolveShape {
  std::int64_t rows = 0, columns = 0;
  std::int64_t entries = 0;  ///< stored entries of A: rows * columns, or those of a sparse A
  bool sparse = false;
  Storage storage = Storage::float64;
  bool in_row_space = false;  ///< of a wide A, dense: rank 0 holds A four times more, and unknowns are as many as rows

  std::int64_t unknowns() const { return in_row_space ? rows : columns; }
};

/// Local. Bytes that the busiest of `ranks` ranks takes at least: its rows of A, the vectors over rows, the d x d sums
/// and the sketch; of both linear solvers the smaller one where the choice is free, as it rests on memory too.
double solve_bytes(const SolveShape& shape, int ranks, int threads, const LinearSolverOptions& solver = {},
                   std::int64_t sketch_rows = 0);

/// The ranks of a job and where they go.
struct JobLayout {
  int ranks = 1, ranks_per_node = 1, threads = 1;
  int nodes() const { return (ranks + ranks_per_node - 1) / ranks_per_node; }
};

/// What to ask a batch system for.
struct JobPlan {
  double bytes_per_node = 0;  ///< to ask for: what the busiest node needs, and a margin
  double seconds = 0;         ///< expected, on the assumptions below
  std::int64_t minutes = 0;   ///< to ask for
};

/// Local. The memory: 1.25 times `solve_bytes`, for the sampled rows and the files' buffers, and 200 MB a rank for MPI
/// and the program. The time: 110 reads' worth for d <= 256, else 220 (the goals that docs/performance.md holds solves
/// of any problem to), at `node_bandwidth` bytes a second and node, and 25 factorizations and products of d x d on rank
/// 0 at 10 Gflop/s; 10 s for the start; asked for is five times that, at least 10 minutes.
JobPlan plan_job(const SolveShape& shape, const JobLayout& layout, double node_bandwidth);

}  // namespace attnreg::app
