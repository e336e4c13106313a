#include "regression/solve_cost.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "algebra/linear_solver_choice.hpp"
#include "objective/sampled_model.hpp"
#include "regression/row_space.hpp"
#include "regression/start_point.hpp"
#include "surrogate/row_sample.hpp"
#include "surrogate/surrogate.hpp"

namespace attnreg {

namespace {

constexpr double kDouble = 8;       // bytes
constexpr double kSmall = 1 << 22;  // numbers: the allocator keeps what it was given back of so many and fewer

/// What the parts of the model ask again and again. Of blocks everything is that of one of them.
struct Facts {
  SolveChoice choice;
  double parts = 1;  // that the rows are divided among
  double processes = 1;
  double n = 0, d = 0;  // rows; unknowns
  double rows = 0;      // of the part with the most
  double numbers = 0;   // stored there
  double sketch = 0;    // rows of it
  double oversampling = 0;
  bool samples_model = false;  // preconditioners are made of sampled rows
  RowSample::Nodes nodes{};

  Facts(const SolveShape& shape, const SolveLayout& layout, const RegressionOptions& options)
      : choice(solve_choice(shape, layout, options)),
        parts(layout.blocks > 0 ? layout.blocks : layout.ranks),
        processes(layout.ranks),
        n(static_cast<double>(shape.rows)),
        d(static_cast<double>(choice.unknowns)),
        rows(std::ceil(n / parts)),
        numbers(shape.sparse ? shape.numbers() / parts : rows * static_cast<double>(shape.columns)),
        sketch(options.sampling.sketch_rows > 0 ? static_cast<double>(options.sampling.sketch_rows)
                                                : std::max(6 * d, 64.0)),
        oversampling(options.sampling.oversampling > 0 ? options.sampling.oversampling
                     : shape.sparse                    ? sparse_oversampling
                                                       : automatic_oversampling(shape.rows, static_cast<Index>(d))),
        samples_model(oversampling * d < n && sketch < n),
        nodes(layout.blocks > 0     ? RowSample::Nodes::any
              : layout.nodes() == 1 ? RowSample::Nodes::one
                                    : RowSample::Nodes::several) {}

  bool by(Method method) const { return choice.method == method; }
  bool on_root() const { return choice.linear_solver == LinearSolver::rank0; }
  /// Numbers of a sample that rank 0 works on alone.
  double few() const { return RowSample::few_numbers(static_cast<int>(parts), choice.unknowns, nodes); }
  /// Rows of a sample by scores.
  double by_scores(const SolveShape& shape) const {
    return std::min(n, (rows_by_scores(shape.rows, shape.columns) + rows_by_mass) * d);
  }
  double rounds() const { return std::ceil(std::log2(std::max(processes, 1.0))); }
};

/// Doubles of d x d, of rank 0 or another one, of a solver on rank 0.
double whole_matrices(const Facts& is, bool is_root, int threads) {
  const double more = threads - 1;
  if (!is.samples_model) {
    double parts = is_root ? (is.parts > 2 ? 11.3 : 9.2) : is.by(Method::newton) ? 7 : 9;
    if (is.d * is.d <= kSmall && (is_root || !is.by(Method::newton))) parts += 2.2;
    return (parts + 2 * more) * is.d * is.d;
  }
  // A sketch is summed from the threads' own, copied by rank 0, and received by ranks on the way there; sampled rows
  // are brought together, and their sums have the same way.
  const double sketch = is.sketch / is.d;
  double parts = is_root ? 2 * sketch + (is.parts > 2 ? 6 : 3.4) : sketch + 6;
  if (is.sketch * is.d <= kSmall) parts += is.parts == 1 ? 1 : is.parts == 2 ? (is_root ? 4.5 : 7) : 3;
  return (parts + more + sketch * std::max(0.0, more - 1)) * is.d * is.d;
}

/// Likewise of a process with so many blocks. They share factors and products, and run in turn; each has a sketch or
/// sums of its own when it waits for the others.
double matrices_of_blocks(const Facts& is, bool is_root, double blocks) {
  const bool by_newton = is.by(Method::newton);
  const double square = is.d * is.d, own = by_newton ? 3.7 : 3;
  if (is.choice.starts_on_sample) return whole_matrices(is, true, 1) + own * (blocks - 1) * square;
  if (!is.samples_model) return ((by_newton ? 4.5 : 6) + own * blocks) * square;
  const double shared = by_newton ? (is_root ? 1.8 : 0.4) : is_root ? 3.5 : 2;
  return is.sketch * is.d * (shared + blocks);
}

/// Likewise of the grid: a model, its factor and the matrix before it, a sketch, and panels of the sums.
double spread_matrices(const Facts& is, int threads) {
  constexpr double kPanelRows = 256, kPanels = 4;
  const double sketch = is.samples_model ? is.sketch : 0;
  return is.d * (sketch + 3 * is.d) / is.processes + (kPanels - 1 + threads) * std::min(is.d, kPanelRows) * is.d;
}

/// That are sent of a row.
double numbers_of_row(const Facts& is, const SolveShape& shape) {
  return shape.sparse ? 2 * shape.numbers() / is.n + 1 : is.d;
}

/// The kept rows of the largest sample there will be at first, as doubles, with the vectors over them.
double sample_numbers(const Facts& is, const SolveShape& shape, bool is_root) {
  constexpr double kVectors = 8;  // of the objective on them
  if (!is.choice.starts_on_sample && !is.by(Method::surrogate)) return 0;
  const double by_scores = is.by(Method::surrogate) ? is.by_scores(shape) : 0;
  const double kept = std::max(std::min(is.n, first_rows * is.d), by_scores);
  const double row = numbers_of_row(is, shape);
  const bool on_root = kept * row <= is.few() || !sample_saves(shape.rows, shape.columns);
  if (on_root && !is_root) return kept * row / is.parts;
  return (on_root ? 2 : 1 / is.parts) * kept * row + (on_root ? 1 : 1 / is.parts) * kept * kVectors;
}

/// blocks: of the process; 0: none.
RankMemory memory_of(const Facts& is, const SolveShape& shape, const SolveLayout& layout, bool is_root, double blocks) {
  constexpr double kTile = 1 << 17;  // numbers that a thread works with
  RankMemory memory;
  memory.rows = is.numbers * static_cast<double>(item_bytes(shape.storage) + (shape.sparse ? 4 : 0)) +
                (shape.sparse ? kDouble * is.rows : 0);
  double vectors = is.by(Method::newton) ? 6 : 7;
  if (shape.row_weights) vectors += 2.5;
  if (shape.offsets) vectors += 1;
  if (shape.sparse && is.by(Method::newton)) vectors += 3;  // the rows of a Gram matrix, with their weights
  if (shape.targets > 1) {
    const double together = std::min(static_cast<double>(shape.targets), targets_at_once(is.rows, is.numbers));
    vectors = 2 * static_cast<double>(shape.targets) + together * vectors;
  }
  memory.vectors = kDouble * is.rows * vectors;
  memory.sample = kDouble * sample_numbers(is, shape, is_root);
  const double all = is.choice.in_row_space && is_root ? 4 * is.n * static_cast<double>(shape.columns) : 0;
  const double matrices = blocks > 0     ? matrices_of_blocks(is, is_root, blocks)
                          : is.on_root() ? whole_matrices(is, is_root, layout.threads)
                                         : spread_matrices(is, layout.threads);
  memory.matrices = kDouble * (all + kTile * layout.threads + matrices);
  return memory;
}

/// blocks: likewise, or a mean of several processes.
RankMemory memory_of_process(const Facts& is, const SolveShape& shape, const SolveLayout& layout, bool is_root,
                             double blocks) {
  if (layout.blocks == 0) return memory_of(is, shape, layout, is_root, 0);
  RankMemory memory = memory_of(is, shape, layout, is_root, std::max(blocks, 1.0));
  const RankMemory block = memory_of(is, shape, layout, false, 1);
  for (const auto part : {&RankMemory::rows, &RankMemory::vectors, &RankMemory::sample})
    memory.*part += (blocks - 1) * block.*part;
  memory.matrices *= std::min(blocks, 1.0);  // processes without blocks have none
  return memory;
}

}  // namespace

double SolveShape::bytes() const {
  const double of_entries = numbers() * static_cast<double>(item_bytes(storage) + (sparse ? 4 : 0));
  return of_entries + (sparse ? kDouble * static_cast<double>(rows) : 0);
}

bool may_sample(const RegressionOptions& options, LinearSolver solver) {
  return has_surrogate(options.loss) && solver == LinearSolver::rank0;
}

MethodChoice chosen_method(std::int64_t rows, Eigen::Index columns, bool sparse, bool fits_on_root,
                           const RegressionOptions& options, LinearSolver solver) {
  const bool saves = sample_saves(rows, columns), samples = may_sample(options, solver) && (saves || fits_on_root);
  MethodChoice choice;
  choice.method = options.method;
  if (choice.method == Method::automatic)
    choice.method = samples && saves && !sparse ? Method::surrogate : cheaper_method(rows, columns, options.sampling);
  choice.is_replaced = choice.method == Method::surrogate && !samples;
  if (choice.is_replaced) choice.method = Method::newton_cg;
  choice.starts_on_sample = choice.method == Method::surrogate ? options.start != Start::given
                                                               : samples && options.start == Start::automatic &&
                                                                     choice.method != Method::sketched_newton;
  return choice;
}

double rank0_matrix_bytes(int ranks, int threads, std::int64_t rows, Eigen::Index columns,
                          const SamplingOptions& sampling) {
  SolveShape shape{.rows = rows, .columns = columns};
  RegressionOptions options;
  options.method = Method::newton_cg;
  options.sampling = sampling;
  options.linear_solver.kind = LinearSolver::rank0;
  return kDouble * whole_matrices(Facts(shape, {.ranks = ranks, .threads = threads}, options), true, threads);
}

SolveChoice solve_choice(const SolveShape& shape, const SolveLayout& layout, const RegressionOptions& options) {
  SolveChoice choice;
  choice.in_row_space = solves_in_row_space(shape.rows, shape.columns, options);
  choice.unknowns = choice.in_row_space ? shape.rows : shape.columns;
  const bool only_rank0 = options.method == Method::sketched_newton || options.method == Method::surrogate ||
                          options.sampling.jl_columns == 0 || layout.blocks > 0 || choice.in_row_space;
  if (options.linear_solver.kind != LinearSolver::automatic)
    choice.linear_solver = options.linear_solver.kind;
  else if (!only_rank0)
    choice.linear_solver = automatic_linear_solver(layout.ranks, choice.unknowns, [&] {
      return layout.ranks_on_busiest() *
             rank0_matrix_bytes(layout.ranks, layout.threads, shape.rows, choice.unknowns, options.sampling) /
             layout.node_bytes;
    });
  const double numbers = shape.sparse ? 2 * shape.numbers() + static_cast<double>(shape.rows) : shape.numbers();
  const bool several = shape.targets > 1 && options.method == Method::automatic;
  RegressionOptions asked = options;
  if (several) asked.method = cheaper_method(shape.rows, choice.unknowns, options.sampling);
  static_cast<MethodChoice&>(choice) =
      chosen_method(shape.rows, choice.unknowns, shape.sparse, fits_on_root(numbers), asked, choice.linear_solver);
  return choice;
}

SolveMemory solve_memory(const SolveShape& shape, const SolveLayout& layout, const RegressionOptions& options) {
  const Facts is(shape, layout, options);
  // The first ranks have a block more where they are not dealt out evenly.
  const auto blocks_of_first = [&](int ranks) {
    return static_cast<double>(ranks * (layout.blocks / layout.ranks) + std::min(ranks, layout.blocks % layout.ranks));
  };
  const int here = layout.ranks_on_busiest();
  const double own = blocks_of_first(1), second = layout.ranks > 1 ? blocks_of_first(2) - own : own;
  const double mean = here > 1 ? (blocks_of_first(here) - own) / (here - 1) : second;
  return {memory_of_process(is, shape, layout, true, own), memory_of_process(is, shape, layout, false, second),
          memory_of_process(is, shape, layout, false, mean)};
}

double solve_bytes(const SolveShape& shape, const SolveLayout& layout, const RegressionOptions& options) {
  const SolveMemory memory = solve_memory(shape, layout, options);
  const int ranks = layout.ranks_on_busiest();
  return (memory.rank0.total() + (ranks - 1) * memory.mean_other.total()) / ranks;
}

double targets_at_once(double rows, double numbers) {
  constexpr double kSmall = 1 << 25;  // numbers of a rank, 256 MB
  constexpr double kMostOfA = 4;      // numbers, in units of those of A
  constexpr double kVectors = 10;     // of rows, of a target
  constexpr double kStack = 1 << 14;  // numbers, of a target that runs
  constexpr double kFewest = 4, kMost = 64;
  return std::clamp(std::max(kSmall, kMostOfA * numbers) / (kVectors * rows + kStack), kFewest, kMost);
}

double program_bytes(int ranks_on_node) {
#ifdef ATTNREG_HDF5
  constexpr double kLibraries = 28e6;  // that of HDF5 brings 5 MB of others with it
#else
  constexpr double kLibraries = 22.7e6;
#endif
  return kLibraries + 0.6e6 * std::min(ranks_on_node - 1, 4);
}

namespace {

/// Reads, Gram matrices, factors and collectives of the iteration, where the rows of a sample lie on rank 0.
SolveWork typical_steps(const Facts& is) {
  constexpr double kNewtonSteps = 20, kSampledSteps = 6, kSketchedSteps = 25;
  const double kept = std::min(is.n, 1.2 * is.oversampling * is.d), sample = std::min(is.n, first_rows * is.d);
  const double steps = is.choice.starts_on_sample ? kSampledSteps : kNewtonSteps;
  // Of the grid: panels of 256 columns, each with a read of theirs and a message.
  const double panels = is.on_root() ? 0 : std::ceil(is.d / 256), panel_reads = is.on_root() ? 0 : (panels + 1) / 2;
  switch (is.choice.method) {
    case Method::surrogate:
      return {.reads = 12,
              .least_reads = 8,
              .most_reads = 45,
              .sample_reads = 220 * sample / is.n,
              .gram_rows = 12 * sample,
              .factorizations = 12,
              .collectives = 48};
    case Method::newton:
      return {.reads = 4 + 2 * steps * (1 + panel_reads),
              .gram_rows = (steps + 1) * is.n,
              .factorizations = 4 * steps,
              .collectives = 6 + steps * (5 + 2 * panels)};
    case Method::sketched_newton:
      return {.reads = 4 * kSketchedSteps,
              .gram_rows = kSketchedSteps * kept,
              .factorizations = 2 * kSketchedSteps,
              .collectives = 8 * kSketchedSteps};
    default:
      const double reads =
          is.choice.starts_on_sample ? 24 : typical_products(is.oversampling) + 2.5 * typical_models + 8;
      return {.reads = reads + typical_models * panel_reads * kept / is.n,
              .gram_rows = typical_models * kept,
              .factorizations = 2 * typical_models,
              .collectives = 2 * reads + 6 + typical_models * panels};
  }
}

/// Messages, where there is somebody to send them to.
void add_messages(const Facts& is, const SolveShape& shape, SolveWork& work) {
  constexpr double kSamples = 3;  // that are sent to rank 0
  const bool on_sample = is.choice.starts_on_sample;
  const double sample = on_sample ? std::min(is.n, first_rows * is.d) : 0;
  const double row = numbers_of_row(is, shape);
  const bool spread = sample_saves(shape.rows, shape.columns) && sample * row > is.few();
  if (spread) work.collectives += is.by(Method::surrogate) ? 25 : 70;  // each product with the sample is a message
  if (is.by(Method::surrogate) && is.by_scores(shape) * row > is.few()) work.collectives += 40;
  const double square = is.d * is.d;
  const double models = is.by(Method::surrogate) && !spread ? 0 : work.factorizations;  // sums, and factors to all
  const double sketch = is.samples_model && !on_sample ? is.sketch * is.d : 0;
  const double gathered = spread || is.parts == 1 ? 0 : sample * (is.d + 3);
  const double numbers = work.collectives * 2 * is.d + models * square + 2 * sketch + kSamples * gathered;
  work.message_bytes = kDouble * numbers;
  const double whole = is.on_root() ? std::max(models > 0 ? square : 0, sketch) : 256 * is.d;  // or in panels
  work.largest_message = kDouble * std::max({2 * is.d, whole, gathered});
}

}  // namespace

SolveWork solve_work(const SolveShape& shape, const SolveLayout& layout, const RegressionOptions& options) {
  const Facts is(shape, layout, options);
  SolveWork work = typical_steps(is);
  if (work.most_reads == 0) {
    work.least_reads = 0.4 * work.reads;
    work.most_reads = 2.5 * work.reads;
  }
  if (is.choice.starts_on_sample && !is.by(Method::surrogate)) {
    const double sample = std::min(is.n, first_rows * is.d);
    work.sample_reads = 100 * sample / is.n;
    work.gram_rows += 6 * sample;
    work.factorizations += 6;
  }
  add_messages(is, shape, work);
  const auto targets = static_cast<double>(shape.targets);
  const double batches = std::ceil(targets / targets_at_once(is.rows, is.numbers));
  for (double* count : {&work.gram_rows, &work.factorizations, &work.message_bytes, &work.sample_reads})
    *count *= targets;
  for (double* count : {&work.reads, &work.least_reads, &work.most_reads, &work.collectives}) *count *= batches;
  return work;
}

SolveTime solve_time(const SolveShape& shape, const SolveLayout& layout, const RegressionOptions& options,
                     const Speeds& speeds) {
  constexpr double kVectors = 6;           // over rows, read or written beside a read of A
  constexpr double kNumber = 8 / 16e9;     // seconds of a read of a number on the machine of `gram_price`
  constexpr double kCores = 2;             // that it has
  constexpr double kRank0Flop = 0.045e-9;  // seconds of a flop of LAPACK, 22 Gflop/s
  const Facts is(shape, layout, options);
  const SolveWork work = solve_work(shape, layout, options);
  const int nodes = layout.nodes();
  const double cores = std::min(static_cast<double>(layout.ranks), is.parts) * layout.threads;
  SolveTime time;
  time.reading = ((work.reads + work.sample_reads) * shape.bytes() + work.reads * kVectors * kDouble * is.n) / nodes /
                 speeds.node_bandwidth;
  time.matrices = work.gram_rows * is.d * is.d * gram_price * kNumber * kCores / cores;
  time.factorizations =
      work.factorizations * std::pow(is.d, 3) / 3 * kRank0Flop / (is.on_root() ? 1 : std::max(1.0, is.processes / 2));
  if (is.processes > 1)
    time.messages = work.collectives * is.rounds() * speeds.round_seconds + work.message_bytes * speeds.byte_seconds;
  return time;
}

}  // namespace attnreg
