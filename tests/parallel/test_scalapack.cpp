#include <gtest/gtest.h>

#include <Eigen/Core>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "algebra/dense_factors.hpp"
#include "algebra/distributed_matrix.hpp"
#include "algebra/linear_solver_choice.hpp"
#include "algebra/scalapack.hpp"
#include "attnreg/error.hpp"
#include "support/dense_algebra.hpp"
#include "support/reference.hpp"

namespace attnreg::test_scalapack {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Near-square, one row, one column, and one process with the others idle.
std::vector<LinearSolverOptions> grids(int ranks, Index block) {
  std::vector<LinearSolverOptions> all(4, {.kind = LinearSolver::scalapack, .block_size = block});
  all[1].grid_rows = 1, all[1].grid_columns = ranks;
  all[2].grid_rows = ranks, all[2].grid_columns = 1;
  all[3].grid_rows = 1, all[3].grid_columns = 1;
  return all;
}

std::shared_ptr<const ProcessGrid> make_grid(const Communicator& world, const LinearSolverOptions& options) {
  return std::make_shared<const ProcessGrid>(world, options);
}

std::string trace(Index d, const LinearSolverOptions& options) {
  return "d = " + std::to_string(d) + ", block " + std::to_string(options.block_size) + ", grid " +
         std::to_string(options.grid_rows) + " x " + std::to_string(options.grid_columns);
}

/// Positive definite, with a condition of about 1e4.
MatrixXd definite(Index d) {
  const MatrixXd B = reference::random_matrix(d, d + 2, static_cast<std::uint64_t>(d));
  return B * B.transpose() / static_cast<double>(d) + 1e-4 * MatrixXd::Identity(d, d);
}

double one_norm(const MatrixXd& matrix) { return matrix.cwiseAbs().colwise().sum().maxCoeff(); }

/// ScaLAPACK's own measure of a solve: it is to be below 30.
double residual(const MatrixXd& H, const VectorXd& p, const VectorXd& r) {
  const double d = static_cast<double>(r.size());
  return (H * p - r).lpNorm<1>() / (one_norm(H) * p.lpNorm<1>() * reference::eps * d);
}

TEST(BlockCyclic, DealsEveryIndexOutOnce) {
  for (const Index n : {0, 1, 5, 63, 64, 65, 200})
    for (const Index block : {1, 3, 64, 300})
      for (const int processes : {1, 2, 3, 7}) {
        std::vector<int> owners(static_cast<std::size_t>(n), 0);
        for (int process = 0; process < processes; ++process)
          for (Index local = 0; local < local_count(n, block, process, processes); ++local)
            ++owners.at(static_cast<std::size_t>(global_index(local, block, process, processes)));
        EXPECT_EQ(owners, std::vector<int>(owners.size(), 1)) << n << ' ' << block << ' ' << processes;
      }
}

TEST(DistributedMatrix, AddsPanelsOfAllRanks) {
  for (const std::int64_t limit : {std::int64_t{1} << 30, std::int64_t{10}}) {
    const Communicator world(MPI_COMM_WORLD, {.elements_per_call = limit});
    const MatrixXd whole = reference::random_matrix(23, 17, 1);
    for (const Index block : {1, 4, 50})
      for (const auto& options : grids(world.size(), block)) {
        DistributedMatrix matrix(make_grid(world, options), 23, 17);
        const MatrixXd share = (world.rank() + 1) * whole;
        matrix.add_sum(world, share.topRows(9), 0, 0);
        matrix.add_sum(world, share.bottomLeftCorner(14, 3), 9, 0);
        matrix.add_sum(world, share.bottomRightCorner(14, 14), 9, 3);
        const MatrixXd found = matrix.replicated();
        const VectorXd diagonal = matrix.diagonal();
        const double factor = world.size() * (world.size() + 1) / 2;
        SCOPED_TRACE(trace(17, options));
        EXPECT_LE((found - factor * whole).norm(), 1e-14 * factor * whole.norm());
        EXPECT_EQ(diagonal, found.diagonal());
      }
  }
}

TEST(ScaLapack, SolvesAsOneRankDoes) {
  const Communicator world(MPI_COMM_WORLD);
  for (const Index d : {1, 5, 63, 64, 65}) {
    const MatrixXd H = definite(d), B = reference::random_matrix(d, 3, 5);
    const MatrixXd L = reference::cholesky_factor(H);
    const VectorXd r = B.col(0);
    for (const Index block : {7, 16, 64, 100})
      for (const auto& options : grids(world.size(), block)) {
        DistributedMatrix matrix = DistributedMatrix::of(make_grid(world, options), H);
        const VectorXd product = scalapack::multiply_symmetric(matrix, r);
        const bool definite = scalapack::factor_cholesky(matrix);
        const MatrixXd p = scalapack::solve_cholesky(matrix, B);
        const VectorXd Lr = scalapack::multiply_transpose(matrix, r), white = scalapack::solve_transpose(matrix, r);
        const bool replicated = world.is_replicated({p.data(), static_cast<std::size_t>(p.size())});
        SCOPED_TRACE(trace(d, options));
        EXPECT_TRUE(definite);
        EXPECT_TRUE(replicated);
        for (Index c = 0; c < 3; ++c) EXPECT_LE(residual(H, p.col(c), B.col(c)), 30);
        EXPECT_LE((p - reference::solved(H, B)).norm(), 1e-8 * p.norm());
        EXPECT_LE((product - H * r).norm(), 1e-13 * H.norm() * r.norm());
        EXPECT_LE((Lr - L.transpose() * r).norm(), 1e-10 * L.norm() * r.norm());
        EXPECT_LE((L.transpose() * white - r).norm(), 1e-10 * L.norm() * white.norm());
      }
  }
}

// The entries exp(-|i - j| / 20) and what they do to a vector are known without a d x d matrix on any rank.
TEST(ScaLapack, SolvesLargeSystems) {
  const Communicator world(MPI_COMM_WORLD);
  const auto entry = [](Index i, Index j) { return std::exp(-std::abs(static_cast<double>(i - j)) / 20); };
  for (const auto& [d, block] : std::vector<std::pair<Index, Index>>{{500, 64}, {500, 50}, {2000, 64}, {2000, 99}}) {
    const LinearSolverOptions options{.kind = LinearSolver::scalapack, .block_size = block};
    DistributedMatrix matrix(make_grid(world, options), d, d);
    matrix.for_each([&](Index i, Index j, double& value) { value = entry(i, j); });
    const VectorXd r = reference::random_vector(d, 3);
    const bool definite = scalapack::factor_cholesky(matrix);
    const VectorXd p = scalapack::solve_cholesky(matrix, r);
    const MatrixXd H = MatrixXd::NullaryExpr(d, d, entry);
    Cholesky rank0;
    const bool expected = rank0.factor(H);
    SCOPED_TRACE(trace(d, options));
    EXPECT_TRUE(definite && expected);
    EXPECT_LE(residual(H, p, r), 30);
    EXPECT_LE((p - rank0.solve(r)).norm(), 1e-8 * p.norm());
  }
}

TEST(ScaLapack, RefusesWhatIsNotDefiniteOrNotFinite) {
  const Communicator world(MPI_COMM_WORLD);
  const Index d = 65;
  for (const auto& options : grids(world.size(), 16)) {
    const auto grid = make_grid(world, options);
    const auto factors = [&](const MatrixXd& H) {
      DistributedMatrix matrix = DistributedMatrix::of(grid, H);
      return scalapack::factor_cholesky(matrix);
    };
    MatrixXd late = MatrixXd::Identity(d, d);
    late(d - 1, d - 1) = -1;
    std::vector<bool> accepted{factors(-MatrixXd::Identity(d, d)), factors(MatrixXd::Zero(d, d)), factors(late)};
    for (const double bad : {kNaN, kInfinity, -kInfinity})
      for (const auto& [i, j] : std::vector<std::pair<Index, Index>>{{0, 0}, {33, 33}, {d - 1, d - 1}, {d - 1, 0}}) {
        MatrixXd H = definite(d);
        H(i, j) = bad;
        accepted.push_back(factors(H));
      }
    SCOPED_TRACE(trace(d, options));
    for (const bool wrongly : accepted) EXPECT_FALSE(wrongly);
  }
}

// R^T R = M^T M, and with pivoting the columns that depend on earlier ones come last.
TEST(ScaLapack, FactorsTallMatrices) {
  const Communicator world(MPI_COMM_WORLD);
  const Index d = 37, rows = 90;
  MatrixXd M = reference::random_matrix(rows, d, 2);
  M.rightCols(5) = M.leftCols(5).eval();
  M.col(20).setZero();
  const MatrixXd gram = M.transpose() * M;
  for (const auto& options : grids(world.size(), 8)) {
    const auto grid = make_grid(world, options);
    DistributedMatrix plain = DistributedMatrix::of(grid, M), pivoted = plain;
    scalapack::factor_qr(plain);
    const auto pivots = scalapack::factor_pivoted_qr(pivoted, rows);
    const MatrixXd R = plain.replicated().topRows(d).triangularView<Eigen::Upper>();
    const MatrixXd Rp = pivoted.replicated().topRows(d).triangularView<Eigen::Upper>();
    SCOPED_TRACE(trace(d, options));
    EXPECT_LE((R.transpose() * R - gram).norm(), 1e-13 * gram.norm());
    EXPECT_LE((Rp.transpose() * Rp - gram(pivots, pivots)).norm(), 1e-13 * gram.norm());
    EXPECT_GT(std::abs(Rp(d - 7, d - 7)), 1e-2 * std::abs(Rp(0, 0)));
    EXPECT_LE(Rp.diagonal().tail(6).cwiseAbs().maxCoeff(), 1e-14 * std::abs(Rp(0, 0)) * rows);
  }
}

TEST(ScaLapack, ChecksItsArguments) {
  const Communicator world(MPI_COMM_WORLD);
  const int ranks = world.size();
  const std::vector<LinearSolverOptions> wrong{{.block_size = 0},
                                               {.block_size = (Index{1} << 20) + 1},
                                               {.grid_rows = 1, .grid_columns = ranks + 1},
                                               {.grid_rows = 2, .grid_columns = 0},
                                               {.grid_rows = -1, .grid_columns = -1}};
  for (const auto& options : wrong) EXPECT_THROW(ProcessGrid(world, options), InvalidArgument);
  const LinearSolverOptions six = with_grid(6, {}), seven = with_grid(7, {}), three = with_grid(3, {});
  EXPECT_EQ(six.grid_rows * 10 + six.grid_columns, 23);
  EXPECT_EQ(seven.grid_rows * 10 + seven.grid_columns, 23);  // one is idle
  EXPECT_EQ(three.grid_rows * 10 + three.grid_columns, 13);
  EXPECT_NO_THROW(scalapack::require_32_bits(46340, 46340, 64));
  EXPECT_THROW(scalapack::require_32_bits(46341, 46341, 64), OutOfMemory);
  EXPECT_THROW(scalapack::require_32_bits(std::int64_t{1} << 40, std::int64_t{1} << 40, 64), OutOfMemory);
  EXPECT_THROW(scalapack::require_32_bits(4000, 4000, 1 << 20), OutOfMemory);  // work space: block (rows + columns)
  const Index huge = Index{1} << 33;
  EXPECT_THROW(DistributedMatrix(make_grid(world, {}), huge, huge), OutOfMemory);
}

TEST(LinearSolver, IsChosenByColumnsRanksAndMemory) {
  const Communicator world(MPI_COMM_WORLD);
  const auto chosen = [&](Index d, double rank0_bytes) { return chosen_linear_solver(world, d, {}, rank0_bytes).kind; };
  const LinearSolver many = world.size() > 1 ? LinearSolver::scalapack : LinearSolver::rank0;
  const std::array found{chosen(100, kInfinity), chosen(1900, 1), chosen(1900, kInfinity), chosen(2000, 1)};
  const std::array expected{LinearSolver::rank0, LinearSolver::rank0, many, many};
  EXPECT_EQ(found, expected);
}

}  // namespace attnreg::test_scalapack
