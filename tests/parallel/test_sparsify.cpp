#include "attnreg/sparsifier.hpp"

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "sparsify/barriers.hpp"
#include "sparsify/choose_by_barriers.hpp"
#include "support/dense_algebra.hpp"
#include "support/score_problems.hpp"

namespace attnreg::test_sparsify {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::Holding;
using reference::Layout;
using reference::Rows;

constexpr ColumnMethod all_methods[] = {ColumnMethod::leverage, ColumnMethod::bss,  ColumnMethod::uniform,
                                        ColumnMethod::norm,     ColumnMethod::topk, ColumnMethod::jl};

/// What was chosen, on every rank.
struct Chosen {
  VectorXd columns, weights;
  RowMajorMatrix Y;
};

Chosen gathered(const Communicator& communicator, const Sparsifier& result) {
  VectorXd columns(static_cast<Index>(result.columns.size()));
  for (std::size_t k = 0; k < result.columns.size(); ++k)
    columns[static_cast<Index>(k)] = static_cast<double>(result.columns[k]);
  Chosen all;
  all.columns = reference::gather(communicator, columns);
  all.weights = reference::gather(communicator, result.weights);
  all.Y = reference::gathered_rows(result.Y);
  return all;
}

/// max |lambda - 1| of K^{-1/2} Y Y^T K^{-1/2}.
double spectral_error(const RowMajorMatrix& X, const RowMajorMatrix& Y) {
  const MatrixXd K = X.transpose() * X, K_Y = Y.transpose() * Y;
  return reference::spectral_error(K, K_Y);
}

TEST(Whitening, GramHasTheSameBitsEverywhere) {
  const Communicator world(MPI_COMM_WORLD), self(MPI_COMM_SELF);
  const RowMajorMatrix X = reference::score_problem(Rows::cauchy, 600, 7);
  const MatrixXd expected = exact_gram(reference::distribute(self, X, Layout::tiled));
  // Each product is rounded once, and their sum hardly at all.
  EXPECT_LE((expected - X.transpose() * X).norm(), 600 * reference::eps * expected.norm());
  for (const Layout layout : reference::layouts) {
    const MatrixXd K = exact_gram(reference::distribute(world, X, layout));
    EXPECT_EQ(K, expected);
  }
  EXPECT_THROW(exact_gram(reference::distribute(world, 1e200 * X, Layout::even)), InvalidArgument);
}

TEST(Whitening, TheScaleOfXDoesNotMatter) {
  const Communicator world(MPI_COMM_WORLD);
  const RowMajorMatrix X = reference::random_matrix(300, 4, 3);
  const auto unscaled = reference::distribute(world, X, Layout::random);
  EXPECT_EQ(scale_for_squares(unscaled), 1);
  const BarrierChoice expected = choose_by_barriers(unscaled, 0.5, 0);
  for (const Eigen::Vector4d& scale :
       {Eigen::Vector4d::Constant(0x1p-600).eval(), Eigen::Vector4d::Constant(0x1p600).eval(),
        Eigen::Vector4d(1, 0x1p70, 0x1p-70, 0x1p-9)}) {
    const auto scaled = reference::distribute(world, RowMajorMatrix(X * scale.asDiagonal()), Layout::random);
    const BarrierChoice found = choose_by_barriers(scaled, 0.5, 0);
    EXPECT_EQ(found.rows, expected.rows);
    EXPECT_NEAR(found.certified_epsilon, expected.certified_epsilon, 1e-12);
  }
}

TEST(Whitening, NullDirectionsAreLeftOut) {
  const RowMajorMatrix X = reference::random_matrix(40, 3, 1) * reference::random_matrix(3, 6, 2);
  const MatrixXd K = X.transpose() * X;
  const MatrixXd T = whitening_of(K, 40);
  EXPECT_EQ(T.cols(), 3);
  // The condition number of K among the others is some hundred.
  EXPECT_LE((T.transpose() * K * T - MatrixXd::Identity(3, 3)).norm(), 1e-10);
  EXPECT_EQ(whitening_of(MatrixXd::Zero(4, 4), 40).cols(), 0);
  EXPECT_EQ(whitening_of(MatrixXd::Constant(4, 4, NAN), 40).cols(), 0);
}

TEST(Barriers, AStepIsThatOfThePaper) {
  constexpr Index n = 4;
  const MatrixXd V = reference::random_matrix(3, n, 5).transpose() / 4;
  Barriers barriers(n, 13.9);
  MatrixXd M = MatrixXd::Zero(n, n);
  const double root = std::sqrt(13.9), rise = (root + 1) / (root - 1);
  double l = -n * root, u = n * (13.9 + root) / (root - 1);
  const MatrixXd I = MatrixXd::Identity(n, n);
  for (Index step = 0; step < 3; ++step, l += 1, u += rise) {
    const VectorXd v = V.col(step);
    const MatrixXd above = reference::inverse((u + rise) * I - M), below = reference::inverse(M - (l + 1) * I);
    const double drop = reference::inverse(u * I - M).trace() - above.trace(),
                 up = below.trace() - reference::inverse(M - l * I).trace();
    const double U = v.dot(above * above * v) / drop + v.dot(above * v);
    const double L = v.dot(below * below * v) / up - v.dot(below * v);
    EXPECT_TRUE(barriers.advance());
    EXPECT_NEAR(v.dot(barriers.gain() * v), L - U, 1e-10 * (std::abs(L) + U));  // cancellation in the traces
    const double t = barriers.add(v);
    EXPECT_NEAR(t, L >= U ? 2 / (L + U) : 0, 1e-9 * std::abs(t));
    M += t * v * v.transpose();
  }
  const VectorXd eigenvalues = reference::eigenvalues(M);
  EXPECT_NEAR(barriers.spectrum().largest, eigenvalues[n - 1], 1e-12);
  EXPECT_EQ(Barriers(3, 2).spectrum().epsilon(), 1);
  EXPECT_NEAR(barrier_degree(0.5), 13.928203, 1e-6);
  EXPECT_NEAR(barrier_degree(0.25), 61.98, 0.01);
}

TEST(Barriers, StepsBetweenDecompositionsAreThoseOfThePaper) {
  constexpr Index n = 4;
  const MatrixXd V = reference::random_matrix(6, n, 5).transpose() / 4;
  Barriers barriers(n, 13.9);
  MatrixXd M = MatrixXd::Zero(n, n);
  const double root = std::sqrt(13.9), rise = (root + 1) / (root - 1);
  double l = -n * root, u = n * (13.9 + root) / (root - 1);
  const MatrixXd I = MatrixXd::Identity(n, n);
  EXPECT_TRUE(barriers.advance());
  barriers.take_candidates(V);
  for (Index step = 0; step < 5; ++step, l += 1, u += rise) {
    const MatrixXd above = reference::inverse((u + rise) * I - M), below = reference::inverse(M - (l + 1) * I);
    const double drop = reference::inverse(u * I - M).trace() - above.trace(),
                 up = below.trace() - reference::inverse(M - l * I).trace();
    Index best = -1;
    double most = 0, weight = 0;
    for (Index c = 0; c < V.cols(); ++c) {
      const VectorXd v = V.col(c);
      const double U = v.dot(above * above * v) / drop + v.dot(above * v);
      const double L = v.dot(below * below * v) / up - v.dot(below * v);
      if (L < U || (best >= 0 && L - U <= most)) continue;
      best = c;
      most = L - U;
      weight = 2 / (L + U);
    }
    EXPECT_EQ(barriers.best_candidate(), best) << step;
    if (best < 0) break;
    const double t = barriers.add_candidate(best);
    EXPECT_NEAR(t, weight, 1e-9 * weight);  // cancellation in the traces
    M += t * V.col(best) * V.col(best).transpose();
    EXPECT_TRUE(barriers.advance_between());
  }
  barriers.retreat();
  const VectorXd eigenvalues = reference::eigenvalues(M);
  EXPECT_NEAR(barriers.spectrum().largest, eigenvalues[n - 1], 1e-12);
  EXPECT_NEAR(barriers.spectrum().smallest, eigenvalues[0], 1e-12);
  EXPECT_TRUE(barriers.advance());  // all eigenvalues lie between the barriers
  // The lower barrier stops half way to the smallest eigenvalue.
  barriers.take_candidates(V);
  int moves = 0;
  while (barriers.add_candidate(0) > 0 && barriers.advance_between() && moves < 100) ++moves;
  EXPECT_GE(moves, 3);
  EXPECT_LE(moves, 12);
}

TEST(Bss, SeveralStepsForEachTimeThatAllRowsAreScored) {
  const Communicator world(MPI_COMM_WORLD), self(MPI_COMM_SELF);
  for (const Rows kind : reference::all_rows) {
    const RowMajorMatrix X = reference::score_problem(kind, 1500, 16);
    const auto single = choose_by_barriers(reference::distribute(world, X, Layout::even), 0.5, 0);
    const auto expected = choose_by_barriers(reference::distribute(self, X, Layout::tiled), 0.5, 0, 7);
    MatrixXd K_Y = MatrixXd::Zero(16, 16);
    for (std::size_t k = 0; k < expected.rows.size(); ++k)
      K_Y += expected.weights[static_cast<Index>(k)] * X.row(expected.rows[k]).transpose() * X.row(expected.rows[k]);
    EXPECT_EQ(expected.end, SparsifyEnd::reached);
    EXPECT_LE(expected.certified_epsilon, 0.5);
    EXPECT_NEAR(reference::spectral_error(X.transpose() * X, K_Y), expected.certified_epsilon, 1e-8);
    // Not many more steps than with the best row of all in each: the last few of 7, and a tenth.
    EXPECT_LE(static_cast<double>(expected.steps), 1.1 * static_cast<double>(single.steps) + 7);
    for (const Layout layout : reference::layouts) {
      const auto A = reference::distribute(world, X, layout);
      const auto found = choose_by_barriers(A, 0.5, 0, 7);
      VectorXd rows(static_cast<Index>(found.rows.size()));
      for (std::size_t k = 0; k < found.rows.size(); ++k)
        rows[static_cast<Index>(k)] = static_cast<double>(A.first_row() + found.rows[k]);
      const VectorXd all_rows = reference::gather(world, rows), weights = reference::gather(world, found.weights);
      EXPECT_EQ(weights, expected.weights);
      const Eigen::Map<const Eigen::Matrix<Index, -1, 1>> expected_rows(expected.rows.data(), all_rows.size());
      EXPECT_EQ(all_rows, VectorXd(expected_rows.cast<double>()));
    }
  }
}

TEST(Bss, TakesAsManyStepsAsItIsTold) {
  // 32 steps at a time from n = 256 on; 283 is not a multiple of it.
  const Communicator world(MPI_COMM_WORLD);
  const auto few = reference::distribute(world, reference::random_matrix(200, 5, 5), Layout::random);
  const BarrierChoice chosen = choose_by_barriers(few, 0.5, 23, 4);
  EXPECT_EQ(chosen.steps, 23);
  EXPECT_EQ(chosen.end, SparsifyEnd::all_steps);
  if (world.size() > 1) return;  // two seconds
  const auto A = reference::distribute(world, reference::random_matrix(400, 256, 5), Layout::even);
  const Sparsifier result = sparsify(A, {.method = ColumnMethod::bss, .columns = 283});
  EXPECT_EQ(result.draws, 283);
  EXPECT_EQ(result.end, SparsifyEnd::all_steps);
  EXPECT_LT(result.certified_epsilon, 1);
}

TEST(Bss, MeetsEpsilonWithFewColumns) {
  const Communicator world(MPI_COMM_WORLD);
  for (const Rows kind : reference::all_rows) {
    const RowMajorMatrix X = reference::score_problem(kind, 900, 6);
    for (const double epsilon : {0.8, 0.5, 0.3}) {
      const auto A = reference::distribute(world, X, Layout::random);
      const Sparsifier result = sparsify(A, {.method = ColumnMethod::bss, .epsilon = epsilon});
      const Chosen chosen = gathered(world, result);
      EXPECT_EQ(result.end, SparsifyEnd::reached);
      EXPECT_LE(result.certified_epsilon, epsilon);
      // df n steps, each with one column; cond(K) eps is far below 1e-8 but for Cauchy rows, whose K is near 1e6.
      EXPECT_LE(static_cast<double>(result.columns_global), std::ceil(barrier_degree(epsilon) * 6));
      EXPECT_NEAR(spectral_error(X, chosen.Y), result.certified_epsilon, 1e-8);
    }
  }
}

TEST(Bss, AllStepsGiveTheFiguresOfTheSpecification) {
  // n = 20, d = 4000: for epsilon 0.8 ceil(4.0 n) steps, 77 columns and a spectral error of .32 measured with other
  // random numbers; twice that is far from the 0.8 that the barriers promise.
  const Communicator world(MPI_COMM_WORLD);
  const auto X = reference::distribute(world, reference::random_matrix(1000, 20, 3), Layout::tiled);
  const std::int64_t steps = static_cast<std::int64_t>(std::ceil(barrier_degree(0.8) * 20));
  const Sparsifier result = sparsify(X, {.method = ColumnMethod::bss, .columns = steps});
  EXPECT_EQ(result.end, SparsifyEnd::all_steps);
  EXPECT_EQ(result.draws, steps);
  EXPECT_LE(result.columns_global, steps);
  EXPECT_LE(result.certified_epsilon, 0.64);
  EXPECT_GE(result.certified_epsilon, 0.1);
}

TEST(Bss, TheSameBitsOnAnyNumberOfRanksAndPartition) {
  const Communicator world(MPI_COMM_WORLD), self(MPI_COMM_SELF);
  RowMajorMatrix X = reference::score_problem(Rows::gaussian, 700, 9);
  X.row(650) = X.row(3);  // ties
  X.row(40) = -X.row(41);
  const SparsifyOptions options{.method = ColumnMethod::bss, .epsilon = 0.6};
  const Chosen expected = gathered(self, sparsify(reference::distribute(self, X, Layout::tiled), options));
  EXPECT_EQ((expected.columns.array() == 650).count(), 0);
  for (const Layout layout : reference::layouts) {
    for (const Holding holding : {Holding::float64, Holding::sparse64}) {
      const Chosen chosen = gathered(world, sparsify(reference::distribute(world, X, layout, holding), options));
      EXPECT_EQ(chosen.columns, expected.columns);
      EXPECT_EQ(chosen.weights, expected.weights);
      EXPECT_EQ(chosen.Y, expected.Y);
    }
  }
}

TEST(Bss, SmallAndDegenerate) {
  const Communicator world(MPI_COMM_WORLD);
  const SparsifyOptions bss{.method = ColumnMethod::bss};
  const auto one = sparsify(reference::distribute(world, RowMajorMatrix::Constant(1, 1, 3), Layout::even), bss);
  const Chosen single = gathered(world, one);
  EXPECT_NEAR(single.Y(0, 0), 3, 1e-14);
  EXPECT_EQ(one.certified_epsilon, 0);

  const auto zero = sparsify(reference::distribute(world, RowMajorMatrix::Zero(30, 4), Layout::even), bss);
  EXPECT_EQ(zero.columns_global, 0);
  EXPECT_EQ(zero.certified_epsilon, 0);

  // Rank 2 of 5, and one column that is the only one in its direction.
  RowMajorMatrix X = reference::random_matrix(50, 1, 1) * RowMajorMatrix::Ones(1, 5);
  X.row(7) << 1, 0, 0, 0, 0;
  const auto flat = sparsify(reference::distribute(world, X, Layout::random), bss);
  const Chosen two = gathered(world, flat);
  EXPECT_LE(flat.certified_epsilon, 0.5);
  EXPECT_EQ((two.columns.array() == 7).count(), 1);

  const auto square = reference::distribute(world, reference::random_matrix(3, 5, 1), Layout::even);  // d < n
  EXPECT_LE(sparsify(square, bss).certified_epsilon, 0.5);
  EXPECT_THROW(sparsify(square, {.method = ColumnMethod::bss, .columns = 3}), InvalidArgument);
}

TEST(Leverage, MeetsEpsilonWithTheProbabilityPromised) {
  // Exact scores: each run fails with probability at most delta = 0.01, so that 2 or more of 12 fail with at most
  // C(12, 2) 1e-4 = 0.007; the Chernoff bound is four times what is needed (measured), so the seed is not lucky.
  const Communicator world(MPI_COMM_WORLD);
  for (const Rows kind : reference::all_rows) {
    const RowMajorMatrix X = reference::score_problem(kind, 3000, 5);
    const auto A = reference::distribute(world, X, Layout::even);
    for (const bool with_replacement : {false, true}) {
      int failures = 0;
      for (std::uint64_t seed = 1; seed <= 12; ++seed) {
        SparsifyOptions options{.epsilon = 0.5, .delta = 0.01, .with_replacement = with_replacement, .seed = seed};
        options.scores = {.sketch_rows = 3000, .jl_columns = 0};
        const Sparsifier result = sparsify(A, options);
        failures += spectral_error(X, gathered(world, result).Y) > 0.5;
        EXPECT_LE(result.columns_global, 2 * columns_for(options, 5));
      }
      EXPECT_LE(failures, 1);
    }
  }
}

TEST(Methods, YIsMadeOfTheColumnsThatTheyName) {
  const Communicator world(MPI_COMM_WORLD), self(MPI_COMM_SELF);
  const RowMajorMatrix X = reference::score_problem(Rows::cauchy, 800, 5);
  for (const ColumnMethod method : all_methods) {
    const SparsifyOptions options{.method = method, .columns = 60, .seed = 3};
    const Chosen expected = gathered(self, sparsify(reference::distribute(self, X, Layout::tiled), options));
    for (const Layout layout : reference::layouts) {
      const Sparsifier result = sparsify(reference::distribute(world, X, layout), options);
      const Chosen chosen = gathered(world, result);
      EXPECT_EQ(chosen.columns, expected.columns);
      if (method == ColumnMethod::jl) {
        EXPECT_EQ(chosen.Y.rows(), 60);
        EXPECT_LE((chosen.Y - expected.Y).norm(), 800 * reference::eps * expected.Y.norm());
        continue;
      }
      EXPECT_EQ(chosen.Y.rows(), result.columns_global);
      EXPECT_TRUE(std::is_sorted(chosen.columns.begin(), chosen.columns.end(), std::less_equal<>{}));
      for (Index k = 0; k < chosen.Y.rows(); ++k) {
        const auto column = static_cast<Index>(chosen.columns[k]);
        EXPECT_EQ(chosen.Y.row(k), std::sqrt(chosen.weights[k]) * X.row(column));
      }
    }
  }
}

TEST(Methods, TopkTakesTheLargest) {
  const Communicator world(MPI_COMM_WORLD);
  RowMajorMatrix X = RowMajorMatrix::Ones(40, 2);
  X.row(25) *= 3;
  X.row(5) *= 2;
  X.row(0).setZero();
  const auto chosen = [&](std::int64_t m) {
    const auto A = reference::distribute(world, X, Layout::random);
    return gathered(world, sparsify(A, {.method = ColumnMethod::topk, .columns = m}));
  };
  const VectorXd four = chosen(4).columns;
  EXPECT_EQ(four, Eigen::Vector4d(1, 2, 5, 25));  // of equal ones the first
  const Chosen all = chosen(1000);
  EXPECT_EQ(all.columns.size(), 40);
  EXPECT_EQ(all.weights, VectorXd(VectorXd::Ones(40)));
}

TEST(Methods, EstimatesAreUnbiased) {
  // The mean of 50 independent draws of 100 columns; the standard deviation of an entry is about K_ii (2 / 5000)^{1/2},
  // 0.02 K_ii, and six of them are far from the 0.5 or more that a wrong weight would do.
  const Communicator world(MPI_COMM_WORLD);
  const RowMajorMatrix X = reference::random_matrix(200, 3, 4);
  const auto A = reference::distribute(world, X, Layout::even);
  const MatrixXd K = X.transpose() * X;
  for (const ColumnMethod method :
       {ColumnMethod::leverage, ColumnMethod::uniform, ColumnMethod::norm, ColumnMethod::jl}) {
    MatrixXd mean = MatrixXd::Zero(3, 3);
    for (std::uint64_t seed = 1; seed <= 50; ++seed) {
      const auto Y = gathered(world, sparsify(A, {.method = method, .columns = 100, .seed = seed})).Y;
      mean += Y.transpose() * Y / 50;
    }
    EXPECT_LE((mean - K).cwiseAbs().maxCoeff(), 0.12 * K.maxCoeff()) << static_cast<int>(method);
  }
}

TEST(Methods, Refusals) {
  const Communicator world(MPI_COMM_WORLD);
  const auto A = reference::distribute(world, reference::random_matrix(20, 3, 1), Layout::even);
  EXPECT_THROW(sparsify(A, {.epsilon = 0}), InvalidArgument);
  EXPECT_THROW(sparsify(A, {.epsilon = 1}), InvalidArgument);
  EXPECT_THROW(sparsify(A, {.epsilon = NAN}), InvalidArgument);
  EXPECT_THROW(sparsify(A, {.delta = 0}), InvalidArgument);
  EXPECT_THROW(sparsify(A, {.columns = -1}), InvalidArgument);
  RowMajorMatrix X = reference::random_matrix(20, 3, 1);
  X(13, 1) = std::numeric_limits<double>::quiet_NaN();  // on one rank
  for (const ColumnMethod method : all_methods)
    EXPECT_THROW(sparsify(reference::distribute(world, X, Layout::even), {.method = method}), InvalidArgument)
        << static_cast<int>(method);
}

/// The definitions, in long double.
AttentionError plain_errors(const RowMajorMatrix& X, const RowMajorMatrix& Y, const MatrixXd& V, double scale) {
  using reference::Matrix;
  const Matrix x = X.cast<reference::Real>(), y = Y.cast<reference::Real>();
  const Matrix K = scale * x.transpose() * x, K_Y = scale * y.transpose() * y;
  const auto attention = [](const Matrix& logits) {
    Matrix P = (logits.array().colwise() - logits.rowwise().maxCoeff().array()).exp();
    const reference::Vector sums = P.rowwise().sum();
    return Matrix(sums.cwiseInverse().asDiagonal() * P);
  };
  const Matrix P = attention(K), P_Y = attention(K_Y), values = V.cast<reference::Real>();
  AttentionError error;
  error.gram = static_cast<double>((K_Y - K).cwiseAbs().maxCoeff() / K.cwiseAbs().maxCoeff());
  error.spectral = spectral_error(X, Y);
  error.entry = static_cast<double>((P_Y.cwiseQuotient(P).array() - 1).abs().maxCoeff());
  error.output = static_cast<double>(((P_Y - P) * values).norm() / (P * values).norm());
  return error;
}

TEST(AttentionErrors, AreTheirDefinitions) {
  const Communicator world(MPI_COMM_WORLD);
  const RowMajorMatrix X = reference::random_matrix(60, 7, 1), V = reference::random_matrix(7, 3, 2);
  for (const double scale : {1e-6, 0.01, 1.0}) {
    for (const Holding holding : {Holding::float64, Holding::sparse64}) {
      const auto A = reference::distribute(world, X, Layout::random, holding);
      const Sparsifier drawn = sparsify(A, {.method = ColumnMethod::uniform, .columns = 30});
      const RowMatrix Ys[] = {drawn.Y, no_columns(A)};
      const auto found = attention_errors(A, Ys, V, {.scale = scale, .block_rows = 3});
      const RowMajorMatrix chosen[] = {gathered(world, drawn).Y, RowMajorMatrix::Zero(1, 7)};
      EXPECT_NEAR(found.largest_logit, scale * (X.transpose() * X).maxCoeff(), 1e-13 * found.largest_logit);
      EXPECT_EQ(found.rank, 7);
      for (std::size_t k = 0; k < 2; ++k) {
        const AttentionError expected = plain_errors(X, chosen[k], V, scale), &error = found.errors[k];
        // 60 terms a logit; errors of the logits are multiplied by at most e^{2 r} beside the entries' own size.
        const double tolerance = 1e-12 * std::max(1.0, found.largest_logit);
        EXPECT_NEAR(error.gram, expected.gram, tolerance);
        EXPECT_NEAR(error.spectral, expected.spectral, 1e-11);
        EXPECT_NEAR(error.entry, expected.entry, tolerance * expected.entry);
        EXPECT_NEAR(error.output, expected.output, tolerance * std::max(expected.output, 1e-3));
        EXPECT_NEAR(error.entry_bound, std::expm1(2 * expected.spectral * found.largest_logit),
                    1e-9 * error.entry_bound);
        EXPECT_LE(error.entry, error.entry_bound);
      }
    }
  }
}

TEST(AttentionErrors, DegenerateAndLarge) {
  const Communicator world(MPI_COMM_WORLD);
  const auto zero = reference::distribute(world, RowMajorMatrix::Zero(5, 3), Layout::even);
  const RowMatrix nothing[] = {no_columns(zero)};
  const auto same = attention_errors(zero, nothing, MatrixXd::Ones(3, 1), {}).errors[0];
  EXPECT_EQ(same.gram, 0);
  EXPECT_EQ(same.spectral, 0);
  EXPECT_EQ(same.entry, 0);
  EXPECT_EQ(same.output, 0);

  // Logits of 1e4: the attention matrix is the identity, without columns it is uniform.
  const auto large = reference::distribute(world, 100 * RowMajorMatrix::Identity(4, 4), Layout::even);
  const RowMatrix none[] = {no_columns(large)};
  const auto found = attention_errors(large, none, MatrixXd::Identity(4, 4), {.spectral_limit = 3});
  EXPECT_EQ(found.largest_logit, 1e4);
  EXPECT_TRUE(std::isnan(found.errors[0].spectral));
  EXPECT_TRUE(std::isnan(found.errors[0].entry_bound));
  EXPECT_EQ(found.errors[0].entry, std::numeric_limits<double>::infinity());
  EXPECT_NEAR(found.errors[0].output, std::sqrt((0.75 * 0.75 + 3 * 0.0625)), 1e-14);
  EXPECT_THROW(attention_errors(large, none, MatrixXd::Ones(3, 1), {}), InvalidArgument);
  EXPECT_THROW(attention_errors(large, none, MatrixXd::Ones(4, 1), {.scale = 0}), InvalidArgument);
}

}  // namespace attnreg::test_sparsify
