#include "sampling/sketch.hpp"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <limits>

#include "support/score_problems.hpp"

namespace attnreg::test_sketch {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::Layout;

constexpr SketchKind kinds[] = {SketchKind::sparse_sign, SketchKind::gaussian};

/// S itself: the sketch of the identity.
MatrixXd sketching_matrix(Index n, const SketchOptions& options) {
  const Communicator self(MPI_COMM_SELF);
  return sketch(reference::distribute(self, RowMajorMatrix::Identity(n, n), Layout::tiled), {}, options);
}

/// Sums of n products: rounding of at most 2 n eps sum |S_ki scale_i a_ij| entry by entry, in any order.
void expect_sketch(const MatrixXd& found, const MatrixXd& S, const VectorXd& scale, const RowMajorMatrix& A) {
  const MatrixXd expected = S * scale.asDiagonal() * A;
  const MatrixXd size = S.cwiseAbs() * scale.cwiseAbs().asDiagonal() * A.cwiseAbs();
  const double slack = 2 * static_cast<double>(A.rows()) * reference::eps;
  EXPECT_LE(((found - expected).array().abs() - slack * size.array()).maxCoeff(), 0);
}

MatrixXd summed_sketch(const RowMatrix& A, const VectorXd& scale, const SketchOptions& options) {
  return reference::summed(A.communicator(), sketch(A, scale, options));
}

TEST(Sketch, IsTheSameMatrixOnAnyNumberOfRanksAndThreads) {
  const Communicator world(MPI_COMM_WORLD);
  constexpr Index n = 257, d = 11;
  const RowMajorMatrix A = reference::random_matrix(n, d, 1);
  VectorXd scale = reference::random_vector(n, 2);
  for (Index i = 0; i < n; i += 5) scale[i] = 0;
  const int threads = omp_get_max_threads();
  for (const auto kind : kinds) {
    const SketchOptions options{.kind = kind, .rows = 37, .seed = 7, .iteration = 3};
    const MatrixXd S = sketching_matrix(n, options);
    for (const Layout layout : reference::layouts) {
      const auto distributed = reference::distribute(world, A, layout);
      expect_sketch(summed_sketch(distributed, {}, options), S, VectorXd::Ones(n), A);
      omp_set_num_threads(3 - std::min(threads, 2));
      expect_sketch(summed_sketch(distributed, reference::local_part(distributed, scale), options), S, scale, A);
      omp_set_num_threads(threads);
      EXPECT_EQ(distributed.reads(), 2);
    }
  }
}

TEST(Sketch, SparseColumnsHaveDistinctRowsOfOneSize) {
  constexpr Index n = 500;
  for (const int nonzeros : {1, 4, 7, 9}) {
    const MatrixXd S = sketching_matrix(n, {.rows = 9, .nonzeros = nonzeros});
    for (Index i = 0; i < n; ++i) {
      EXPECT_EQ((S.col(i).array() != 0).count(), nonzeros);
      EXPECT_NEAR(S.col(i).squaredNorm(), 1, 4 * reference::eps);
      EXPECT_NEAR(S.col(i).cwiseAbs().maxCoeff(), 1 / std::sqrt(nonzeros), reference::eps);
    }
  }
}

TEST(Sketch, DependsOnSeedIterationAndKind) {
  constexpr Index n = 40;
  for (const auto kind : kinds) {
    const SketchOptions options{.kind = kind, .rows = 12};
    SketchOptions other_seed = options, other_iteration = options;
    other_seed.seed = 2;
    other_iteration.iteration = 1;
    const MatrixXd S = sketching_matrix(n, options);
    EXPECT_EQ(S, sketching_matrix(n, options));
    EXPECT_GT((S - sketching_matrix(n, other_seed)).norm(), 1);
    EXPECT_GT((S - sketching_matrix(n, other_iteration)).norm(), 1);
  }
}

TEST(Sketch, RefusesBadArgumentsOnAllRanks) {
  const Communicator world(MPI_COMM_WORLD);
  const auto A = reference::distribute(world, reference::random_matrix(20, 3, 1), Layout::tiled);
  EXPECT_THROW(sketch(A, {}, {.rows = 0}), InvalidArgument);
  EXPECT_THROW(sketch(A, {}, {.rows = 3}), InvalidArgument);  // 4 nonzeros
  EXPECT_THROW(sketch(A, {}, {.rows = 8, .nonzeros = 0}), InvalidArgument);
  EXPECT_THROW(sketch(A, VectorXd::Ones(A.rows_local() + 1), {.rows = 8}), InvalidArgument);
}

}  // namespace attnreg::test_sketch
