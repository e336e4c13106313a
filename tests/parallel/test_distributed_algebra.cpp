#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "algebra/scalapack.hpp"
#include "attnreg/leverage.hpp"
#include "attnreg/regression.hpp"
#include "newton/trust_region.hpp"
#include "objective/regression_objective.hpp"
#include "objective/sampled_model.hpp"
#include "rows/gram.hpp"
#include "sampling/leverage_basis.hpp"
#include "support/reference.hpp"
#include "support/score_problems.hpp"

// What is spread over a process grid against the same on rank 0.

namespace attnreg::test_distributed_algebra {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::shared_ptr<const ProcessGrid> grid_of(const Communicator& world, Index block) {
  return std::make_shared<const ProcessGrid>(world, LinearSolverOptions{.block_size = block});
}

/// A third of the entries, so that sparse rows are sparse.
RowMajorMatrix thinned(RowMajorMatrix A) {
  for (Index i = 0; i < A.rows(); ++i)
    for (Index j = 0; j < A.cols(); ++j)
      if ((i + 2 * j) % 3 != 0) A(i, j) = 0;
  return A;
}

// More columns than two panels; fewer than one; one.
TEST(DistributedGram, IsTheGramMatrixOfBothTerms) {
  const Communicator world(MPI_COMM_WORLD);
  for (const Index d : {1, 40, 600}) {
    const Index n = 130;
    const RowMajorMatrix A = thinned(reference::random_matrix(n, d, 1));
    VectorXd curvature = reference::random_vector(n, 2).cwiseMax(0), ridge = reference::random_vector(n, 3).cwiseAbs();
    const VectorXd centre = reference::random_vector(d, 4);
    ridge.head(20).setZero();
    const MatrixXd centred = A.rowwise() - centre.transpose();
    const MatrixXd expected =
        centred.transpose() * curvature.asDiagonal() * centred + A.transpose() * ridge.asDiagonal() * A;
    for (const auto holding :
         {reference::Holding::float64, reference::Holding::float32, reference::Holding::sparse64}) {
      const RowMatrix rows = reference::distribute(world, A, reference::Layout::random, holding);
      const WeightedRows curved{reference::local_part(rows, curvature), reference::local_part(rows, ridge)};
      MatrixXd gram = distributed_gram(rows, grid_of(world, 32), curved, centre).replicated();
      gram.triangularView<Eigen::StrictlyUpper>() = gram.transpose();
      const double rounding = holding == reference::Holding::float32 ? 1e-6 : 1e-13;  // of the entries held
      EXPECT_LE((gram - expected).norm(), rounding * expected.norm()) << d << ' ' << static_cast<int>(holding);
    }
  }
}

struct Pair {
  MatrixXd H, M;
};

/// H = M - negative N as the Hessians here; definite for negative = 0.
Pair pair_of(Index d, double negative) {
  const MatrixXd B = reference::random_matrix(d, d + 2, 11), C = reference::random_matrix(d, (d + 1) / 2, 12);
  const MatrixXd M = B * B.transpose();
  return {M - negative * C * C.transpose(), M};
}

TEST(DistributedPencil, GivesRank0sTrustRegionStep) {
  const Communicator world(MPI_COMM_WORLD);
  for (const Index d : {1, 5, 63, 64, 65})
    for (const Index block : {7, 64})
      for (const double negative : {0.0, 4.0})
        for (const double radius : {kInfinity, 0.3}) {
          const Pair pair = pair_of(d, negative);
          const VectorXd g = reference::random_vector(d, 13), scale = pair.M.diagonal();
          const auto grid = grid_of(world, block);
          Hessian hessian{world,
                          {},
                          {},
                          scale,
                          std::make_shared<DistributedPencil>(DistributedMatrix::of(grid, pair.H),
                                                              DistributedMatrix::of(grid, pair.M))};
          const auto found = trust_region_step(std::move(hessian), g, radius);
          const auto expected = trust_region_step(pair.H, pair.M, scale, g, radius);
          const bool replicated = world.is_replicated(reference::span_of(found.s));
          SCOPED_TRACE("d = " + std::to_string(d) + ", block " + std::to_string(block) + ", negative part " +
                       std::to_string(negative) + ", radius " + std::to_string(radius));
          EXPECT_TRUE(found.finite && expected.finite && replicated);
          EXPECT_EQ(found.on_boundary, expected.on_boundary);
          EXPECT_NEAR(found.shift, expected.shift, 1e-8 * (1 + expected.shift));
          EXPECT_LE((found.s - expected.s).norm(), 1e-8 * expected.s.norm());
        }
}

TEST(DistributedPencil, OfNaNHasNoStep) {
  const Communicator world(MPI_COMM_WORLD);
  Pair pair = pair_of(20, 1);
  pair.H(19, 3) = std::nan("");
  const auto grid = grid_of(world, 8);
  Hessian hessian{
      world,
      {},
      {},
      pair.M.diagonal(),
      std::make_shared<DistributedPencil>(DistributedMatrix::of(grid, pair.H), DistributedMatrix::of(grid, pair.M))};
  EXPECT_FALSE(trust_region_step(std::move(hessian), VectorXd::Ones(20), 1).finite);
}

// As many JL columns as columns: exact row norms of the sketch, which do not depend on how R was found.
TEST(DistributedLeverage, HasRank0sScores) {
  const Communicator world(MPI_COMM_WORLD);
  const Index n = 900, d = 20;
  RowMajorMatrix deficient = reference::random_matrix(n, d, 5);
  deficient.rightCols(3) = deficient.leftCols(3).eval();
  deficient.col(7).setZero();
  RowMajorMatrix badly_scaled = reference::random_matrix(n, d, 6);
  badly_scaled.col(3) *= 1e120;
  badly_scaled.col(4) *= 1e-120;
  const std::vector<RowMajorMatrix> matrices{reference::score_problem(reference::Rows::cauchy, n, d),
                                             deficient,
                                             badly_scaled,
                                             RowMajorMatrix::Zero(n, d),
                                             reference::random_matrix(100, d, 7),
                                             reference::random_matrix(6, d, 8)};
  for (std::size_t k = 0; k < matrices.size(); ++k) {
    LeverageOptions options{.jl_columns = 64};
    const RowMatrix A = reference::distribute(world, matrices[k], reference::Layout::random);
    const VectorXd weights = reference::local_part(A, reference::random_vector(A.rows_global(), 9).cwiseAbs());
    options.linear_solver = {.kind = LinearSolver::rank0};
    const auto expected = leverage_scores(A, weights, options);
    options.linear_solver = {.kind = LinearSolver::scalapack, .block_size = 8};
    const auto found = leverage_scores(A, weights, options);
    SCOPED_TRACE("matrix " + std::to_string(k));
    EXPECT_EQ(found.rank, expected.rank);
    EXPECT_LE((found.scores - expected.scores).norm(), 1e-10 * std::sqrt(static_cast<double>(n)));
    EXPECT_NEAR(found.sum, expected.sum, 1e-9 * (1 + expected.sum));
  }
}

// Many panels of a sketch, rows in float and sparse; fewer JL columns than columns.
TEST(DistributedLeverage, SketchesPanelByPanel) {
  const Communicator world(MPI_COMM_WORLD);
  const Index n = 2500, d = 100;
  const RowMajorMatrix A = thinned(reference::random_matrix(n, d, 3));
  for (const auto holding : {reference::Holding::float32, reference::Holding::sparse32}) {
    const RowMatrix rows = reference::distribute(world, A, reference::Layout::tiled, holding);
    LeverageOptions options{.jl_columns = 64, .linear_solver = {.kind = LinearSolver::scalapack, .block_size = 16}};
    const double before = rows.reads();
    const auto basis = leverage_basis(rows, {}, options);
    const double reads = rows.reads() - before;
    options.linear_solver.kind = LinearSolver::rank0;
    const auto rank0 = leverage_basis(rows, {}, options);
    const auto scores = scores_from_basis(rows, {}, basis);
    EXPECT_EQ(basis.N.cols(), 64);
    EXPECT_LE((basis.N - rank0.N).norm(), 1e-11 * rank0.N.norm());  // the same rows will be sampled
    EXPECT_EQ(reads, 3);                                            // 600 rows of the sketch in 3 panels, 4 nonzeros
    // 64 columns and 6 d rows: a score is within a factor 2 but with probability 0.006; their mean much nearer
    EXPECT_NEAR(scores.sum, static_cast<double>(d), 0.05 * static_cast<double>(d));
  }
}

TEST(DistributedLeverage, RefusesWhatItCannotDo) {
  const Communicator world(MPI_COMM_WORLD);
  RowMajorMatrix bad = reference::random_matrix(300, 5, 1);
  bad(299, 2) = std::nan("");
  const RowMatrix A = reference::distribute(world, bad, reference::Layout::even);
  LeverageOptions options{.linear_solver = {.kind = LinearSolver::scalapack}};
  EXPECT_THROW(leverage_basis(A, {}, options), InvalidArgument);
  options.jl_columns = 0;
  EXPECT_THROW(leverage_basis(A, {}, options), InvalidArgument);
}

// The same rows, as the scores are exact; a deficient A takes the ridge; NaN has no factor.
TEST(DistributedModel, IsRank0sModel) {
  const Communicator world(MPI_COMM_WORLD);
  const Index n = 4000, d = 12;
  RowMajorMatrix deficient = reference::random_matrix(n, d, 2);
  deficient.rightCols(3) = deficient.leftCols(3).eval();
  SamplingOptions options;
  options.jl_columns = 64;
  for (const RowMajorMatrix& rows : {reference::random_matrix(n, d, 1), deficient}) {
    const RowMatrix A = reference::distribute(world, rows, reference::Layout::random);
    const VectorXd delta = reference::local_part(A, reference::random_vector(n, 3) / n).cwiseMax(0);
    const VectorXd w2 = 1e-8 * reference::local_part(A, reference::random_vector(n, 4)).cwiseAbs2();
    VectorXd centre = 0.1 * reference::random_vector(d, 5);
    SampledModel rank0(A, w2, options), distributed(A, w2, options, grid_of(world, 5));
    const auto expected = rank0.preconditioner({delta}, centre, false);
    const double reads_before = A.reads();
    const auto collectives_before = world.collectives();
    const auto found = distributed.preconditioner({delta}, centre, false);
    const double reads = A.reads() - reads_before;
    const auto collectives = world.collectives() - collectives_before;
    const double kept = static_cast<double>(distributed.rows_kept()) / static_cast<double>(n);
    const double ridge = distributed.ridge();
    const VectorXd r = rows.transpose() * reference::random_vector(n, 6);  // no part along a null direction
    const VectorXd p = expected->solve(r), q = found->solve(r);
    const double norm = expected->norm(p), norm_found = found->norm(p);
    const VectorXd whitened = found->whiten(r);
    const double whitened_norm = found->norm(whitened);
    centre[3] = std::nan("");
    const bool from_nan = distributed.preconditioner({delta}, centre, false).has_value();
    EXPECT_NEAR(kept, static_cast<double>(rank0.rows_kept()) / static_cast<double>(n), 1e-12);
    EXPECT_EQ(ridge, rank0.ridge());
    EXPECT_GE(ridge, 1e-14);
    EXPECT_EQ(distributed.ridge(), 0);    // of the one that failed
    EXPECT_NEAR(reads, 2 + kept, 1e-12);  // a sketch in one panel, the scores, the rows once
    EXPECT_EQ(collectives, 4);            // sketch, panel, centring, counts
    EXPECT_LE((p - q).norm(), 1e-8 * p.norm());
    EXPECT_NEAR(norm_found, norm, 1e-8 * norm);
    EXPECT_NEAR(whitened_norm, r.norm(), 1e-10 * r.norm());
    EXPECT_FALSE(from_nan);
  }
}

// Sparse rows that hardly differ from the centre: their Gram matrix is the rounding of a difference, which is larger
// than the smallest ridge.
TEST(DistributedModel, ClimbsTheLadderOfRidges) {
  const Communicator world(MPI_COMM_WORLD);
  const Index n = 3000, d = 120;
  const RowMajorMatrix rows = 100 + 1e-9 * reference::random_matrix(n, d, 1).array();
  const RowMatrix A = reference::distribute(world, rows, reference::Layout::even, reference::Holding::sparse64);
  const VectorXd delta = VectorXd::Constant(A.rows_local(), 1e-3), w2 = VectorXd::Zero(A.rows_local());
  const VectorXd centre = VectorXd::Constant(d, 100);
  SampledModel rank0(A, w2, {}), distributed(A, w2, {}, grid_of(world, 16));
  const auto expected = rank0.preconditioner({delta}, centre, false);
  const auto found = distributed.preconditioner({delta}, centre, false);
  const VectorXd p = found ? found->solve(VectorXd::Ones(d)) : VectorXd();
  EXPECT_TRUE(expected && found);
  EXPECT_GT(rank0.ridge(), 2e-14);
  EXPECT_GT(distributed.ridge(), 2e-14);
  EXPECT_TRUE(p.size() == d && p.allFinite());
}

/// Bytes of this process: "VmHWM:", the peak since it was last reset, or "VmRSS:".
double resident_bytes(const std::string& name) {
  std::ifstream file("/proc/self/status");
  for (std::string word; file >> word;)
    if (word == name && file >> word) return 1024 * std::stod(word);
  return 0;
}

/// `rows` sparse rows with 20 entries each.
CsrRows random_rows(Index rows, Index columns, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  CsrRows A;
  A.columns = columns;
  for (Index i = 0; i < rows; ++i) {
    for (Index k = 0; k < 20; ++k) {
      const auto width = static_cast<std::uint64_t>(columns / 20);
      A.indices.push_back(static_cast<std::int32_t>(k * (columns / 20) + static_cast<Index>(engine() % width)));
      A.values.push_back(normal(engine));
    }
    A.offsets.push_back(A.entries());
  }
  return A;
}

// A model is two matrices over the processes, the Gram matrix and its factor, and four panels: of the sums here,
// packed, and inside of MPI. On 4 ranks that is less than one d x d matrix.
TEST(DistributedModel, TakesTheMemoryThatIsStated) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "a sanitizer's own memory is in the peak";
#endif
  const Communicator world(MPI_COMM_WORLD);
  constexpr double kSlack = 4e6;  // malloc, and what BLAS and MPI take for small messages
  const Index d = 3000, rows = 50;
  const auto grid = grid_of(world, 64);
  const auto partition = RowPartition::from_local(world, rows);
  const RowMatrix A(world, partition, random_rows(rows, d, static_cast<std::uint64_t>(world.rank())));
  const VectorXd delta = VectorXd::Constant(rows, 1e-3), w2 = VectorXd::Constant(rows, 1e-4),
                 centre = VectorXd::Zero(d);
  {
    DistributedMatrix warm_up = DistributedMatrix::of(grid, MatrixXd::Identity(200, 200));
    scalapack::factor_cholesky(warm_up);
  }
  std::ofstream("/proc/self/clear_refs") << 5;
  const double before = resident_bytes("VmRSS:");
  const bool made = SampledModel(A, w2, {}, grid).preconditioner({delta}, centre, false).has_value();
  const double peak = resident_bytes("VmHWM:") - before;
  const double local = static_cast<double>(local_count(d, 64, 0, grid->rows())) *
                       static_cast<double>(local_count(d, 64, 0, grid->columns()));
  const double stated = 8 * (2 * local + 4.0 * kPanel * static_cast<double>(d));
  EXPECT_TRUE(made);
  EXPECT_LE(peak, stated + kSlack);
  EXPECT_GE(peak, 8 * local);  // it was measured
  const double one_matrix = 8 * static_cast<double>(d * d);
  EXPECT_LT(peak, world.size() >= 4 ? one_matrix : kInfinity);
}

/// Collective. The same regression by both solvers.
void expect_same_solution(const reference::Problem& problem, Method method, Index block) {
  const Communicator world(MPI_COMM_WORLD);
  const auto data = reference::distribute(world, problem, reference::Layout::random);
  RegressionOptions options;
  options.method = method;
  options.start = Start::zero;
  options.certificate = CertificateLevel::none;
  options.newton.relative_tolerance = 1e-12;
  options.linear_solver = {.kind = LinearSolver::rank0};
  const auto expected = solve_regression(data.A, data.b, data.w, options);
  options.linear_solver = {.kind = LinearSolver::scalapack, .block_size = block};
  const auto found = solve_regression(data.A, data.b, data.w, options);
  const bool replicated = world.is_replicated(reference::span_of(found.x));
  SCOPED_TRACE(std::string(method_name(method)) + ", d = " + std::to_string(problem.A.cols()) + ", block " +
               std::to_string(block));
  EXPECT_TRUE(replicated);
  EXPECT_LE(found.summary.relative_gradient, 1e-11);
  EXPECT_LE((found.x - expected.x).norm(), 1e-8 * expected.x.norm());
}

TEST(DistributedRegression, HasRank0sSolution) {
  for (const Index d : {1, 5, 63, 64, 65}) {
    const auto problem = reference::random_problem(40 * d, d, 1 / std::sqrt(static_cast<double>(d)), 1e-3, 21);
    for (const auto method : {Method::newton, Method::newton_cg})
      for (const Index block : {16, 64}) expect_same_solution(problem, method, block);
  }
}

TEST(DistributedRegression, RefusesWhatItCannotDo) {
  const Communicator world(MPI_COMM_WORLD);
  const auto data = reference::distribute(world, reference::random_problem(50, 3, 1, 1e-2, 1));
  RegressionOptions options;
  options.linear_solver.kind = LinearSolver::scalapack;
  options.method = Method::sketched_newton;
  EXPECT_THROW(solve_regression(data.A, data.b, data.w, options), InvalidArgument);
  options.method = Method::newton_cg;
  options.sampling.jl_columns = 0;
  EXPECT_THROW(solve_regression(data.A, data.b, data.w, options), InvalidArgument);
}

}  // namespace attnreg::test_distributed_algebra
