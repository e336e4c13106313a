#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <limits>

#include "attnreg/regression.hpp"
#include "attnreg/row_storage.hpp"

namespace attnreg {

// What a regression takes, told from its shape: one model for `solve`, which looks whether it fits and chooses the
// method, for `jobscript` and for `plan`. All of it is local, and the same on all ranks.

/// A regression as far as it is known before its rows are read.
struct SolveShape {
  std::int64_t rows = 0, columns = 0;
  std::int64_t entries = 0;  ///< that a sparse A stores
  bool sparse = false;
  Storage storage = Storage::float64;
  bool row_weights = false;  ///< a weight for each row
  bool offsets = false;      ///< an offset of each logit
  std::int64_t targets = 1;  ///< solved together

  double numbers() const {
    return sparse ? static_cast<double>(entries) : static_cast<double>(rows) * static_cast<double>(columns);
  }
  double bytes() const;  ///< of A as it is held, on all ranks together
};

/// The processes of a run.
struct SolveLayout {
  int ranks = 1, ranks_per_node = 1, threads = 1;
  int blocks = 0;                                               ///< of --reproducible, in place of ranks; 0: none
  double node_bytes = std::numeric_limits<double>::infinity();  ///< memory that a node has for them

  int nodes() const { return (ranks + ranks_per_node - 1) / ranks_per_node; }
  int ranks_on_busiest() const { return ranks < ranks_per_node ? ranks : ranks_per_node; }
};

/// How a regression is solved.
struct MethodChoice {
  Method method = Method::newton;
  bool starts_on_sample = false;  ///< where the start is left open
  bool is_replaced = false;       ///< the method that was asked for would hold many of the rows in samples
};
/// options: method, loss, start and sampling count; solver: decided. fits_on_root: `fits_on_root(A)`, asked for where
/// `may_sample` and samples do not save.
MethodChoice chosen_method(std::int64_t rows, Eigen::Index columns, bool sparse, bool fits_on_root,
                           const RegressionOptions& options, LinearSolver solver);
/// Whether the loss and the solver allow for samples.
bool may_sample(const RegressionOptions& options, LinearSolver solver);

struct SolveChoice : MethodChoice {
  LinearSolver linear_solver = LinearSolver::rank0;
  bool in_row_space = false;  ///< of a wide A
  std::int64_t unknowns = 0;  ///< columns, or in the row space as many as rows
};
SolveChoice solve_choice(const SolveShape& shape, const SolveLayout& layout, const RegressionOptions& options);

/// Bytes that a process has at a time, at most, beyond the program.
struct RankMemory {
  double rows = 0;      ///< of A
  double vectors = 0;   ///< over rows: b, A x, curvatures, norms, directions
  double sample = 0;    ///< copies of sampled rows
  double matrices = 0;  ///< d x d sums and factors, sketches, rows brought together for them

  double total() const { return rows + vectors + sample + matrices; }
};
struct SolveMemory {
  RankMemory rank0, other;  ///< of others the one with the most rows
  RankMemory mean_other;    ///< the mean of the others of the first node: where blocks are dealt out unequally

  double largest() const { return rank0.total() > other.total() ? rank0.total() : other.total(); }
};
/// The peak, to about a tenth where A is 100 MB a rank or more (docs/scale.md). The d x d part is calibrated: some of
/// it is memory that was freed and that the allocator keeps.
SolveMemory solve_memory(const SolveShape& shape, const SolveLayout& layout, const RegressionOptions& options);

/// What a rank of the first node needs on average, rank 0 among them.
double solve_bytes(const SolveShape& shape, const SolveLayout& layout, const RegressionOptions& options);
/// Of these, the d x d matrices and sketches of rank 0 where it solves with them.
double rank0_matrix_bytes(int ranks, int threads, std::int64_t rows, Eigen::Index columns,
                          const SamplingOptions& sampling);

/// What a process of so many on its node has before a solve: code, MPI and its buffers for the others, BLAS.
double program_bytes(int ranks_on_node);

/// What a typical solve does, one target: problems like those of docs/performance.md, to 1e-10.
struct SolveWork {
  double reads = 0, least_reads = 0, most_reads = 0;  ///< of A; the range is that of these problems
  double sample_reads = 0;                            ///< work on samples, in reads of A
  double gram_rows = 0;                               ///< rows of which Gram matrices are made, in all
  double factorizations = 0;                          ///< d x d, with the products around them
  double collectives = 0;
  double message_bytes = 0, largest_message = 0;  ///< of all of them, and of the longest
};
SolveWork solve_work(const SolveShape& shape, const SolveLayout& layout, const RegressionOptions& options);

/// Targets that are solved together: enough to share messages, or at least reads, without vectors of rows that take
/// much more memory than A. Rows and numbers of A: those of a rank.
double targets_at_once(double rows, double numbers);

/// Seconds by part.
struct SolveTime {
  double reading = 0;         ///< of A and of vectors over rows, from memory
  double matrices = 0;        ///< Gram matrices, on all cores
  double factorizations = 0;  ///< on rank 0, or on all ranks
  double messages = 0;

  double total() const { return reading + matrices + factorizations + messages; }
};
/// What a machine does.
struct Speeds {
  double node_bandwidth = 10e9;  ///< bytes a second that a node reads from memory
  double round_seconds = 5e-6;   ///< of a message between two ranks, of which a collective takes log2(ranks) in turn
  double byte_seconds = 1e-9;    ///< of a byte of a collective
};
SolveTime solve_time(const SolveShape& shape, const SolveLayout& layout, const RegressionOptions& options,
                     const Speeds& speeds);

}  // namespace attnreg
