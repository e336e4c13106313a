// Times the d x d algebra on rank 0 and by ScaLAPACK: mpirun -n 2 linear_solver_bench D... (bench/README.md).
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <random>
#include <string>

#include "attnreg/leverage.hpp"
#include "machine.hpp"
#include "measure.hpp"
#include "objective/sampled_model.hpp"
#include "sampling/leverage_basis.hpp"

namespace attnreg::bench {
namespace {

using Eigen::VectorXd;

constexpr Index kEntries = 20;  // of a row

/// Few sparse rows: what is timed is what depends on d alone.
RowMatrix make_rows(const Communicator& world, Index n, Index d) {
  const RowPartition partition = RowPartition::tiled(n, d, world.size());
  std::mt19937_64 engine(static_cast<std::uint64_t>(world.rank()));
  std::normal_distribution<double> normal;
  CsrRows rows;
  rows.columns = d;
  const Index entries = std::min(kEntries, d), stride = d / entries;
  for (Index i = 0; i < partition.rows_local(world.rank()); ++i) {
    for (Index k = 0; k < entries; ++k) {
      const auto offset = static_cast<Index>(engine() % static_cast<std::uint64_t>(stride));
      rows.indices.push_back(static_cast<std::int32_t>(k * stride + offset));
      rows.values.push_back(normal(engine));
    }
    rows.offsets.push_back(static_cast<std::int64_t>(rows.indices.size()));
  }
  return RowMatrix(world, partition, std::move(rows));
}

struct Measured {
  double seconds = 0, megabytes = 0;  ///< of the slowest rank; growth of the largest one
};

/// Collective. The best of `repeats`.
Measured measure(const Communicator& world, int repeats, const std::function<void()>& work) {
  Measured best{std::numeric_limits<double>::infinity(), 0};
  reset_peak_memory();
  const double before = resident_bytes();
  for (int k = 0; k < repeats; ++k) best.seconds = std::min(best.seconds, timed(world, work));
  best.megabytes = world.max(peak_resident_bytes() - before) / 1048576;
  return best;
}

void run(const Communicator& world, Index d) {
  const int repeats = d <= 1000 ? 5 : d <= 2000 ? 3 : 1;
  const RowMatrix A = make_rows(world, 8 * d, d);
  const VectorXd delta = VectorXd::Constant(A.rows_local(), 1e-3), w2 = VectorXd::Constant(A.rows_local(), 1e-6);
  const WeightedRows rows{delta};
  const VectorXd centre = VectorXd::Zero(d), r = VectorXd::LinSpaced(d, -1, 1);
  for (const auto kind : {LinearSolver::rank0, LinearSolver::scalapack}) {
    const LinearSolverOptions options{.kind = kind};
    const auto grid = kind == LinearSolver::scalapack ? std::make_shared<const ProcessGrid>(world, options) : nullptr;
    SamplingOptions sampling;
    sampling.oversampling = 1000;  // all rows
    std::optional<Preconditioner> M;
    const Measured model =
        measure(world, repeats, [&] { M = SampledModel(A, w2, sampling, grid).preconditioner(rows, centre, false); });
    const Measured solve = measure(world, 3 * repeats, [&] { M->solve(r); });
    const Measured norm = measure(world, 3 * repeats, [&] { M->norm(r); });
    const Measured basis =
        measure(world, 1, [&] { leverage_basis(A, {}, {.sketch_rows = 2 * d, .linear_solver = options}); });
    if (world.is_root())
      std::printf("| %d | %s | %.4f | %.2f | %.2f | %.3f | %.0f | %.0f |\n", static_cast<int>(d),
                  std::string(linear_solver_name(kind)).c_str(), model.seconds, 1e3 * solve.seconds, 1e3 * norm.seconds,
                  basis.seconds, model.megabytes, basis.megabytes);
    if (world.is_root()) std::fflush(stdout);
  }
}

}  // namespace
}  // namespace attnreg::bench

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  {
    const attnreg::Communicator world(MPI_COMM_WORLD);
    if (world.is_root())
      std::printf(
          "| d | solver | model, s | solve, ms | norm, ms | basis (2 d rows), s | model, MB | basis, MB |\n"
          "|--:|---|--:|--:|--:|--:|--:|--:|\n");
    for (int k = 1; k < argc; ++k) attnreg::bench::run(world, std::atol(argv[k]));
  }
  MPI_Finalize();
  return 0;
}
