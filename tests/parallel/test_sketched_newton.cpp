#include <gtest/gtest.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "attnreg/leverage.hpp"
#include "certificate/global_convexity.hpp"
#include "losses/losses.hpp"
#include "regression/sketched_newton.hpp"
#include "sampling/sampling.hpp"
#include "support/dense_algebra.hpp"
#include "support/solve.hpp"

namespace attnreg::test_sketched_newton {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::Problem;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Options {
  NewtonOptions newton = {};
  SketchedNewtonOptions sketched = {};
  SamplingOptions sampling = {};
  double epsilon = 0;
};

struct Outcome {
  VectorXd x;
  SketchedNewtonSummary summary;
  std::vector<IterationRecord> records;
  std::vector<VectorXd> iterates;  // x0, and after every step
};

/// Collective over `world`. Some ranks may get no rows.
Outcome iterate(const Problem& problem, const VectorXd& x0, Options options, MPI_Comm world = MPI_COMM_WORLD) {
  const Communicator communicator(world);
  const auto data = reference::distribute(communicator, problem, reference::Layout::random);
  RegressionObjective objective(data.A, data.b, data.w, make_loss(problem.loss));
  Outcome out;
  Point point = objective.evaluate(x0);
  std::size_t called = 0;
  options.newton.on_iteration = [&](const IterationRecord& record) {
    out.records.push_back(record);
    out.iterates.push_back(point.x);
  };
  options.sketched.on_step = [&](const SketchedStep&) { ++called; };
  out.summary = sketched_newton(objective, point, options.newton, options.sketched, options.sampling, options.epsilon);
  EXPECT_EQ(called, out.summary.steps.size());
  out.x = point.x;
  return out;
}

VectorXd minimiser(const Problem& problem, const VectorXd& x0) {
  NewtonOptions options;
  options.relative_tolerance = 1e-14;
  return solve(problem, x0, options, MPI_COMM_SELF).x;
}
VectorXd minimiser(const Problem& problem) { return minimiser(problem, VectorXd::Zero(problem.A.cols())); }

/// The papers' assumptions: w^2 = 100 + 1 / sigma_min(A)^2.
Problem papers_problem(Index rows, Index columns, std::uint64_t seed) {
  Problem problem = reference::random_problem(rows, columns, 1, 0, seed);
  const MatrixXd gram = problem.A.transpose() * problem.A;
  const double smallest = reference::eigenvalues(gram)[0];
  problem.w.setConstant(std::sqrt(100 + 1 / smallest));
  return problem;
}

/// A peaked softmax with a minimum where H is positive definite although the weights are small.
Problem peaked_problem(Index rows, Index columns, std::uint64_t seed) {
  return reference::random_problem(rows, columns, 1.5, 3e-3, seed);
}

std::int64_t draws_of(const Problem& problem, const Options& options, int steps) {
  return with_replacement_size(problem.A.cols(), options.sketched.sampling_error, options.sketched.delta / steps, 0.5);
}

/// H~ of the given step at x, written down densely in the form of the papers, on this process alone.
MatrixXd dense_model(const Problem& problem, const VectorXd& x, const Options& options, std::int64_t draws,
                     std::uint32_t step) {
  const Communicator self(MPI_COMM_SELF);
  const RowMatrix A = reference::distribute(self, problem.A, reference::Layout::tiled);
  const VectorXd f = reference::softmax(problem.A, x), c = f - problem.b, p = f.cwiseProduct(2 * f - problem.b);
  const double gamma = f.dot(c), kappa = f.dot(3 * f - 2 * problem.b);
  const VectorXd D = p - gamma * f + problem.w.cwiseAbs2();
  const auto scores = leverage_scores(A, D.cwiseAbs(), {.seed = options.sampling.seed, .iteration = step});
  const auto sample =
      sample_with_replacement(A, scores.scores, {.draws = draws, .seed = options.sampling.seed, .iteration = step});
  VectorXd sparse = VectorXd::Zero(D.size());
  for (std::size_t k = 0; k < sample.rows.size(); ++k)
    sparse[sample.rows[k]] = D[sample.rows[k]] * sample.weights[static_cast<Index>(k)];
  MatrixXd H = problem.A.transpose() * sparse.asDiagonal() * problem.A;
  if (!options.sketched.keep_low_rank) return H;
  const VectorXd centre = problem.A.transpose() * f, Ap = problem.A.transpose() * p;
  return H + kappa * centre * centre.transpose() - Ap * centre.transpose() - centre * Ap.transpose();
}

double norm_in(const MatrixXd& H, const VectorXd& v) { return std::sqrt(std::max(0.0, v.dot(H * v))); }

TEST(SketchedNewton, StepIsTheCorrectedOneOfThePapers) {
  const Problem problem = peaked_problem(3000, 5, 3);
  const VectorXd x0 = minimiser(problem).array() + 1e-3;
  for (const bool keep : {true, false}) {
    Options options;
    options.newton.max_iterations = 2;
    options.sketched.sampling_error = 0.5;
    options.sketched.keep_low_rank = keep;
    options.sampling.seed = 7;
    const Outcome result = iterate(problem, x0, options);
    const auto draws = draws_of(problem, options, 2);
    EXPECT_EQ(result.iterates.size(), 3U);
    for (std::uint32_t step = 0; step + 1 < result.iterates.size(); ++step) {
      const VectorXd &x = result.iterates[step], &next = result.iterates[step + 1];
      const auto there = reference::evaluate(problem, x);
      const MatrixXd model = dense_model(problem, x, options, draws, step);
      const VectorXd s = -reference::solved(model, reference::to_double(there.gradient));
      // the uncentred form cancels, in both codes
      EXPECT_LT((next - x - s).norm(), 1e-7 * s.norm()) << "step " << step << (keep ? ", kept" : ", dropped");
      EXPECT_EQ(result.summary.steps[step].draws, draws);
      EXPECT_LT(result.summary.steps[step].rows, draws);
      // a probe averages the eigenvalues of H~^-1 H, so it lies between them
      const double error = reference::spectral_error(there.hessian.cast<double>(), model);
      EXPECT_LE(result.summary.steps[step].sampling_error, 1.001 * error);
      EXPECT_GT(result.summary.steps[step].sampling_error, keep ? 0.02 * error : 0.0);
    }
  }
}

TEST(SketchedNewton, ContractsInTheNormOfTheHessian) {
  int compared = 0;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    Problem problem = peaked_problem(4000, 6, 10 * seed);
    if (seed > 2)  // cond(A) = 1e5 and cond(H) = 1e10
      for (Index k = 0; k < 6; ++k) problem.A.col(k) *= std::pow(10.0, -k);
    const VectorXd best = minimiser(problem);
    const MatrixXd H_best = reference::evaluate(problem, best).hessian.cast<double>();
    // so near that the terms of second order of the step (math: docs/errata.md) are far below the sampling error
    const VectorXd direction = reference::random_vector(6, seed);
    const VectorXd x0 = best + 1e-4 / norm_in(H_best, direction) * std::sqrt(H_best.norm()) * direction;
    Options options;
    options.newton.max_iterations = 5;
    options.newton.relative_tolerance = 1e-14;
    options.sketched.sampling_error = 0.3;
    options.sampling.seed = seed;
    const Outcome result = iterate(problem, x0, options);
    const auto draws = draws_of(problem, options, 5);
    for (std::size_t step = 0; step + 1 < result.iterates.size(); ++step) {
      const VectorXd &x = result.iterates[step], &next = result.iterates[step + 1];
      const MatrixXd H = reference::evaluate(problem, x).hessian.cast<double>();
      const double e0 =
          reference::spectral_error(H, dense_model(problem, x, options, draws, static_cast<std::uint32_t>(step)));
      const double before = norm_in(H, x - best), after = norm_in(H, next - best);
      if (!(e0 < 0.4) || after < 1e-9 * norm_in(H, best)) continue;  // below: rounding of x*
      EXPECT_LE(after, 1.2 * e0 / (1 - e0) * before) << "seed " << seed << ", step " << step << ", e0 " << e0;
      ++compared;
    }
  }
  EXPECT_GE(compared, 16);  // of 20
}

TEST(SketchedNewton, CertifiesEpsilonOn100Of100SeedsInThePapersRegime) {
  const Problem problem = papers_problem(8000, 4, 5);
  const VectorXd x0 = VectorXd::Constant(4, 1e-2), best = minimiser(problem);
  const double epsilon = 1e-7 * (x0 - best).norm();
  int reached = 0, longest = 0, step_limit = 0;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    Options options;
    options.sketched.sampling_error = 0.2;
    options.sketched.probes = 0;
    options.sampling.seed = seed;
    options.epsilon = epsilon;
    const Outcome result = iterate(problem, x0, options);
    const auto& summary = result.summary;
    const bool sampled = !summary.steps.empty() && summary.steps[0].draws > 0 && summary.steps[0].rows < 8000;
    if (summary.newton.termination == Termination::converged && summary.distance_bound <= epsilon && sampled &&
        (result.x - best).norm() <= epsilon && summary.newton.iterations <= summary.step_limit)
      ++reached;
    longest = std::max(longest, summary.newton.iterations);
    step_limit = summary.step_limit;
  }
  EXPECT_EQ(reached, 100);
  EXPECT_EQ(step_limit, 18);  // ln(1e7) / ln 2.5 = 17.6
  EXPECT_LE(longest, 6);      // 0.4 a step is a worst case
}

TEST(SketchedNewton, DistanceBoundHoldsAtEveryStep) {
  for (const double weight : {0.6, 1.0, 10.0}) {  // 0.2405 < w^2, far below the papers' 100
    Problem problem = reference::random_problem(3000, 4, 1, weight, 8);
    const VectorXd best = minimiser(problem);
    Options options;
    options.sketched.sampling_error = 0.5;
    options.epsilon = 1e-10;
    const Outcome result = iterate(problem, VectorXd::Constant(4, 0.3), options);
    EXPECT_GT(result.summary.convexity, 0);
    EXPECT_EQ(result.summary.newton.termination, Termination::converged);
    const auto& steps = result.summary.steps;
    EXPECT_EQ(steps.size() + 1, result.iterates.size());
    for (std::size_t k = 0; k < std::min(steps.size(), result.iterates.size() - 1); ++k) {
      const double distance = (result.iterates[k + 1] - best).norm();
      EXPECT_LE(distance, steps[k].distance_bound + 1e-15);
      EXPECT_LE(steps[k].distance_bound, 100 * distance + 1e-12);  // and it says something: cond(H) is about 1.5
    }
  }
}

TEST(SketchedNewton, GlobalConvexityIsTheSmallestEigenvalueOfTheBound) {
  const Communicator world(MPI_COMM_WORLD);
  for (const std::string loss : {"softmax", "cross-entropy"}) {
    Problem problem = reference::random_problem(500, 4, 1, 0.7, 2);
    problem.b /= problem.b.lpNorm<1>();
    problem.loss = loss;
    problem.w.head(20).setConstant(0.1);  // not all rows need a large weight
    const auto data = reference::distribute(world, problem, reference::Layout::random);
    RegressionObjective objective(data.A, data.b, data.w, make_loss(loss));
    const double l = global_convexity(objective).convexity;
    const VectorXd D = problem.w.cwiseAbs2().array() - (loss == "softmax" ? 0.2405 : 0);
    const MatrixXd bound = problem.A.transpose() * D.asDiagonal() * problem.A;
    const double expected = reference::eigenvalues(bound)[0];
    EXPECT_NEAR(l, expected, 1e-10 * expected);
    EXPECT_LE(l, expected * (1 + 1e-14));
  }
}

TEST(SketchedNewton, WithoutTheLowRankPartItNeedsLargeWeights) {
  const Problem papers = papers_problem(8000, 4, 6);
  const VectorXd far = VectorXd::Constant(4, 1e-2), best = minimiser(papers);
  Options options;
  options.epsilon = 1e-9 * (far - best).norm();
  const Outcome kept = iterate(papers, far, options);
  options.sketched.keep_low_rank = false;
  const Outcome dropped = iterate(papers, far, options);
  EXPECT_EQ(kept.summary.newton.termination, Termination::converged);
  EXPECT_EQ(dropped.summary.newton.termination, Termination::converged);
  EXPECT_LE((dropped.x - kept.x).norm(), 2 * options.epsilon);

  const Problem peaked = peaked_problem(300, 5, 3);  // all rows: the low-rank part makes the whole difference
  const VectorXd near = minimiser(peaked).array() + 1e-4;
  options = {};
  options.newton.max_iterations = 30;
  const Outcome exact = iterate(peaked, near, options);
  options.sketched.keep_low_rank = false;
  const Outcome stalled = iterate(peaked, near, options);
  EXPECT_EQ(exact.summary.newton.termination, Termination::converged);
  EXPECT_LE(exact.summary.newton.iterations, 4);
  EXPECT_LT(exact.summary.steps[0].sampling_error, 1e-6);
  EXPECT_NE(stalled.summary.newton.termination, Termination::converged);
  const VectorXd f = reference::softmax(peaked.A, near), c = f - peaked.b;
  const VectorXd D = (f.array() * ((f + c).array() - f.dot(c))).matrix() + peaked.w.cwiseAbs2();
  const MatrixXd low_rank_dropped = peaked.A.transpose() * D.asDiagonal() * peaked.A;
  EXPECT_GT(reference::spectral_error(reference::evaluate(peaked, near).hessian.cast<double>(), low_rank_dropped), 5);
  EXPECT_GT(stalled.summary.steps.back().sampling_error, 1);  // along the step
}

TEST(SketchedNewton, TheNumberOfRanksDoesNotMatter) {
  const Problem problem = peaked_problem(3000, 5, 4);
  const VectorXd x0 = minimiser(problem).array() + 1e-3;
  Options options;
  options.newton.max_iterations = 8;
  options.sketched.sampling_error = 0.5;
  const Outcome together = iterate(problem, x0, options), alone = iterate(problem, x0, options, MPI_COMM_SELF);
  const bool replicated = Communicator(MPI_COMM_WORLD).is_replicated(reference::span_of(together.x));
  EXPECT_TRUE(replicated);
  ASSERT_EQ(together.summary.steps.size(), alone.summary.steps.size());
  for (std::size_t k = 0; k < alone.summary.steps.size(); ++k) {
    EXPECT_EQ(together.summary.steps[k].rows, alone.summary.steps[k].rows);
    EXPECT_NEAR(together.summary.steps[k].sampling_error, alone.summary.steps[k].sampling_error, 1e-7);
  }
  EXPECT_EQ(together.summary.newton.termination, alone.summary.newton.termination);
  EXPECT_LE((together.x - alone.x).norm(), 1e-10 * alone.x.norm());
  EXPECT_EQ(together.summary.notes, alone.summary.notes);
}

TEST(SketchedNewton, AnIndefiniteHessianIsABreakdownWithTheLastPoint) {
  for (const Index rows : {60, 3000}) {  // all rows, and sampled ones
    Problem problem{reference::random_matrix(rows, 3, 5), VectorXd::Zero(rows), VectorXd::Constant(rows, 1e-6)};
    problem.b[7] = 1;  // delta_7 is about -1/n, the others 2/n^2 each
    problem.A.row(7) *= 4;
    Options options;
    options.sketched.sampling_error = 0.5;
    const Outcome result = iterate(problem, VectorXd::Zero(3), options);
    EXPECT_EQ(result.summary.newton.termination, Termination::breakdown);
    EXPECT_EQ(result.x, VectorXd::Zero(3));
    EXPECT_TRUE(std::isfinite(result.summary.newton.value));
    EXPECT_EQ(result.summary.convexity, 0);
    EXPECT_EQ(result.summary.distance_bound, kInfinity);
    EXPECT_NE(result.summary.notes.back().find("not positive definite"), std::string::npos);
  }
}

TEST(SketchedNewton, DependentColumnsAreABreakdown) {
  Problem problem = papers_problem(2000, 4, 5);
  problem.A.col(2).setZero();
  const Outcome result = iterate(problem, VectorXd::Zero(4), {});
  EXPECT_EQ(result.summary.newton.termination, Termination::breakdown);
  EXPECT_TRUE(result.x.allFinite());
}

TEST(SketchedNewton, StepsUsedUpIsALimit) {
  const Problem problem = papers_problem(8000, 4, 5);
  Options options;
  options.sketched.sampling_error = 0.9;
  options.epsilon = 1e-12;
  options.sketched.radius = 1e-11;  // wrong: x0 is further away
  const Outcome result = iterate(problem, VectorXd::Constant(4, 1), options);
  EXPECT_EQ(result.summary.step_limit, 3);  // ln 10 / ln 2.5 = 2.5
  EXPECT_EQ(result.summary.newton.termination, Termination::iteration_limit);
  EXPECT_EQ(result.summary.newton.iterations, 3);
  EXPECT_GT(result.summary.distance_bound, options.epsilon);

  options.newton.max_iterations = 1;
  EXPECT_EQ(iterate(problem, VectorXd::Constant(4, 1), options).summary.newton.iterations, 1);
}

TEST(SketchedNewton, StopsAtTheGradientWhereNothingIsCertified) {
  const Problem problem = peaked_problem(3000, 5, 4);
  const VectorXd best = minimiser(problem);
  Options options;
  options.sketched.sampling_error = 0.3;
  options.newton.relative_tolerance = 1e-6;
  options.epsilon = 1e-9;  // of no use: l and r0 are not known
  const Outcome result = iterate(problem, best.array() + 1e-3, options);
  EXPECT_EQ(result.summary.newton.termination, Termination::converged);
  EXPECT_LE(result.summary.newton.relative_gradient, 1e-6);
  EXPECT_EQ(result.summary.step_limit, 0);
  EXPECT_EQ(result.summary.distance_bound, kInfinity);
}

TEST(SketchedNewton, EpsilonBelowRoundingIsNotClaimed) {
  const Problem problem = papers_problem(2000, 3, 5);
  Options options;
  options.epsilon = 1e-30;
  const Outcome result = iterate(problem, VectorXd::Constant(3, 1), options);
  EXPECT_EQ(result.summary.newton.termination, Termination::converged_rounding);
  EXPECT_GT(result.summary.distance_bound, options.epsilon);
  EXPECT_LE((result.x - minimiser(problem)).norm(), result.summary.distance_bound);
}

TEST(SketchedNewton, ServesCrossEntropyToo) {
  Problem problem = reference::random_problem(4000, 4, 1, 1e-2, 9);
  problem.loss = "cross-entropy";
  Options options;
  options.sketched.sampling_error = 0.3;
  options.epsilon = 1e-8;
  const Outcome result = iterate(problem, minimiser(problem).array() + 0.05, options);
  EXPECT_EQ(result.summary.newton.termination, Termination::converged);
  EXPECT_GT(result.summary.steps.at(0).draws, 0);
  EXPECT_LE((result.x - minimiser(problem)).norm(), result.summary.distance_bound);
  EXPECT_LE(result.summary.distance_bound, options.epsilon);
}

TEST(SketchedNewton, ReadsOfAStep) {
  const Problem problem = peaked_problem(3000, 5, 4);
  Options options;
  options.sketched.sampling_error = 0.5;
  options.newton.max_iterations = 3;
  const VectorXd x0 = minimiser(problem).array() + 1e-3;
  for (const int probes : {0, 4}) {
    options.sketched.probes = probes;
    const Outcome result = iterate(problem, x0, options);
    const double kept = static_cast<double>(result.summary.steps[1].rows) / 3000;
    EXPECT_NEAR(result.records[2].reads_of_a - result.records[1].reads_of_a, 5 + (probes > 0 ? 1 : 0) + kept, 1e-9);
    EXPECT_EQ(std::isnan(result.summary.steps[0].sampling_error), probes == 0);
  }
}

TEST(SketchedNewton, RefusesWrongOptions) {
  const Problem problem = peaked_problem(30, 2, 4);
  const auto refuses = [&](auto&& change) {
    Options options;
    change(options);
    EXPECT_THROW(iterate(problem, VectorXd::Zero(2), options), InvalidArgument);
  };
  refuses([](Options& o) { o.sketched.delta = 0; });
  refuses([](Options& o) { o.sketched.delta = 1; });
  refuses([](Options& o) { o.sketched.sampling_error = 1; });
  refuses([](Options& o) { o.sketched.radius = -1; });
  refuses([](Options& o) { o.sketched.probes = -1; });
  refuses([](Options& o) { o.epsilon = std::nan(""); });
  refuses([](Options& o) { o.newton.relative_tolerance = 0; });
}

}  // namespace attnreg::test_sketched_newton
