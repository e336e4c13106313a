// Offsets of the logits: phi(A x + o), and rows that are masked by -infinity.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "attnreg/regression.hpp"
#include "losses/losses.hpp"
#include "newton/journal.hpp"
#include "objective/regression_objective.hpp"
#include "support/reference.hpp"

namespace attnreg::test_offset {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::eps;
using reference::Layout;
using reference::Problem;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

bool is_centred(std::string_view loss) { return make_loss(loss)->is_shift_invariant(); }

/// Small logits, so that every loss is finite, with offsets of size 1; `masks`: every fifth row is masked, and full of
/// large numbers. `hostile` columns are centred (of losses that do not see the level) and scaled.
Problem problem_of(std::string_view loss, double weight, bool masks = false, bool hostile = false, Index rows = 700) {
  Problem problem = reference::random_problem(rows, 5, 0.3, weight, 3);
  problem.loss = loss;
  problem.offset = reference::random_vector(rows, 4);
  if (is_centred(loss)) problem.offset.array() += 20;  // a level, which it does not see
  for (Index i = 0; masks && i < rows; i += 5) {
    problem.offset[i] = -kInfinity;
    problem.A.row(i) *= 1e4;
    if (loss == "cross-entropy") problem.b[i] = 0;
  }
  if (!hostile) return problem;
  problem.A.col(1).array() += 40;
  problem.A.col(3) *= 0x1p-14;
  return problem;
}

/// The rows that are not masked.
Problem without_masked(const Problem& problem) {
  std::vector<Index> rows;
  for (Index i = 0; i < problem.b.size(); ++i)
    if (problem.offset[i] != -kInfinity) rows.push_back(i);
  return {RowMajorMatrix(problem.A(rows, Eigen::all)), problem.b(rows), problem.w(rows), problem.loss,
          problem.offset(rows)};
}

RegressionResult solved(const Problem& problem, RegressionOptions options, Layout layout = Layout::random,
                        reference::Holding holding = reference::Holding::float64) {
  const auto data = reference::distribute(Communicator(MPI_COMM_WORLD), problem, layout, holding);
  options.loss = problem.loss;
  options.offset = data.offset;
  return solve_regression(data.A, data.b, data.w, options);
}

bool is_good(const RegressionResult& result) {
  return result.summary.termination == Termination::converged ||
         result.summary.termination == Termination::converged_rounding;
}

RegressionModel model_of(const Problem& problem, const reference::Distributed& data) {
  RegressionModel model(problem.loss);
  model.offset = data.offset;
  return model;
}

TEST(Offset, IsInTheValueTheDerivativesAndTheStepsOfEveryLoss) {
  const Communicator comm(MPI_COMM_WORLD);
  for (const auto loss : loss_names())
    for (const bool masks : {false, true})
      for (const bool hostile : {false, true}) {
        if (masks && !is_centred(loss)) continue;
        SCOPED_TRACE(std::string(loss) + (masks ? ", masks" : "") + (hostile ? ", hostile" : ""));
        const Problem problem = problem_of(loss, 1e-3, masks, hostile);
        const auto data = reference::distribute(comm, problem, Layout::random);
        const auto columns = std::make_shared<const ScaledColumns>(data.A, is_centred(loss),
                                                                   LogitOffsets(comm, data.offset, !is_centred(loss)));
        RegressionObjective objective(columns, data.b, data.w, make_loss(loss));
        const VectorXd to_callers = columns->factor(), sizes = columns->scale();
        const VectorXd x = 2 * reference::random_vector(5, 21).cwiseQuotient(sizes),
                       s = 2 * reference::random_vector(5, 22).cwiseQuotient(sizes);  // any units
        const auto expected_at = [&](const VectorXd& at) {
          return reference::evaluate(problem, at.cwiseProduct(to_callers));
        };
        const auto expected = expected_at(x);
        const double tolerance = 1e4 * eps;  // 700 terms, as random sums; a column that is 40 times as large
        const VectorXd gradient = reference::to_double(expected.gradient).cwiseProduct(to_callers);
        const MatrixXd hessian = to_callers.asDiagonal() * expected.hessian.cast<double>() * to_callers.asDiagonal();
        const MatrixXd scaled = sizes.cwiseInverse().asDiagonal() * hessian * sizes.cwiseInverse().asDiagonal();
        const auto value = static_cast<double>(expected.value);
        Point point = objective.evaluate(x);
        EXPECT_NEAR(point.value, value, tolerance * std::abs(value));
        EXPECT_LE(objective.norm(point.gradient - gradient), tolerance * (objective.norm(gradient) + scaled.norm()));
        EXPECT_GE(objective.gradient_floor(point, 0) * 100, objective.norm(point.gradient - gradient));
        const VectorXd f = reference::gather(comm, objective.fitted(point));
        EXPECT_LE((f - reference::to_double(expected.f)).lpNorm<Eigen::Infinity>(),
                  tolerance * expected.f.lpNorm<Eigen::Infinity>());
        for (Index i = 0; masks && i < f.size(); i += 5) EXPECT_EQ(f[i], 0);
        Direction along{s};
        const VectorXd product = objective.hessian_product(point, along);
        EXPECT_LE(objective.norm(product - hessian * s), tolerance * scaled.norm() * sizes.cwiseProduct(s).norm());
        const Hessian found = objective.hessian(point);
        if (found.communicator.is_root()) {
          EXPECT_LE(
              (sizes.cwiseInverse().asDiagonal() * (found.exact - hessian) * sizes.cwiseInverse().asDiagonal()).norm(),
              tolerance * scaled.norm());
          EXPECT_GE((found.positive_part - found.exact).diagonal().minCoeff(), -tolerance * hessian.norm());
        }
        for (const bool likely : {false, true}) {
          Direction direction = likely ? objective.likely_direction(point, s) : objective.direction(s);
          for (const Trial& trial : objective.try_steps(point, direction, std::array{1.0, 0.25})) {
            const auto there = static_cast<double>(expected_at(x + trial.t * s).value);
            EXPECT_NEAR(trial.change, there - value, tolerance * (std::abs(there) + std::abs(value)));
          }
          const Point next = objective.step(objective.evaluate(x), std::move(direction), {.t = 1});
          const auto there = expected_at(x + s);
          EXPECT_NEAR(next.value, static_cast<double>(there.value), tolerance * std::abs(next.value));
          EXPECT_LE(objective.norm(next.gradient - reference::to_double(there.gradient).cwiseProduct(to_callers)),
                    tolerance * (objective.norm(next.gradient) + scaled.norm()));
        }
      }
}

// The logits A x + o are those of [A, o] at [x, 1].
TEST(Offset, IsAColumnWithTheCoefficientOne) {
  const Communicator comm(MPI_COMM_WORLD);
  for (const auto loss : loss_names()) {
    SCOPED_TRACE(loss);
    Problem problem = problem_of(loss, 0), wide = problem;
    wide.A.conservativeResize(Eigen::NoChange, 6);
    wide.A.col(5) = problem.offset;
    wide.offset.resize(0);
    const VectorXd x = 0.5 * reference::random_vector(5, 8);
    VectorXd with_one(6);
    with_one << x, 1;
    const auto data = reference::distribute(comm, problem, Layout::even),
               wide_data = reference::distribute(comm, wide, Layout::even);
    const auto found = evaluate_regression(data.A, data.b, data.w, x, model_of(problem, data), true);
    const auto expected = evaluate_regression(wide_data.A, wide_data.b, wide_data.w, with_one, problem.loss, true);
    const double tolerance = 1e3 * eps;
    EXPECT_NEAR(found.value, expected.value, tolerance * expected.value);
    EXPECT_NEAR(found.log_value, expected.log_value, tolerance * (1 + std::abs(expected.log_value)));
    EXPECT_LE((found.gradient - expected.gradient.head(5)).norm(), tolerance * expected.gradient.norm());
    EXPECT_LE((found.hessian - expected.hessian.topLeftCorner(5, 5)).norm(), tolerance * expected.hessian.norm());
    const VectorXd f = predict(data.A, x, model_of(problem, data)), g = predict(wide_data.A, with_one, problem.loss);
    EXPECT_LE((f - g).norm(), tolerance * (g.norm() + eps));
  }
}

TEST(Offset, InTheRangeOfAItMovesX) {
  for (const auto method : {Method::newton, Method::newton_cg, Method::surrogate, Method::automatic})
    for (const auto start : {Start::zero, Start::cross_entropy, Start::automatic}) {
      SCOPED_TRACE(std::string(method_name(method)) + " from " + std::string(start_name(start)));
      Problem problem = problem_of("cross-entropy", 0);
      const VectorXd x0 = reference::random_vector(5, 31);
      RegressionOptions options;
      options.method = method;
      options.start = start;
      problem.offset = problem.A * x0;
      const RegressionResult moved = solved(problem, options);
      problem.offset.resize(0);
      const RegressionResult result = solved(problem, options);
      EXPECT_TRUE(is_good(moved) && is_good(result));
      EXPECT_LE((moved.x + x0 - result.x).norm(), 1e-7 * (x0.norm() + result.x.norm()));
      EXPECT_NEAR(moved.summary.value, result.summary.value, 1e-12 * std::abs(result.summary.value));
    }
}

TEST(Offset, EveryMethodStorageAndStartEndsAtTheMinimum) {
  using reference::Holding;
  struct How {
    Method method;
    Start start;
    Holding holding;
    int random_starts;
  };
  for (const std::string loss : {"softmax", "cross-entropy"})
    for (const bool masks : {false, true})
      for (const auto [method, start, holding, starts] :
           {How{Method::newton, Start::zero, Holding::float64, 0},
            How{Method::newton, Start::automatic, Holding::sparse64, 0},
            How{Method::newton_cg, Start::cross_entropy, Holding::sparse32, 0},
            How{Method::newton_cg, Start::given, Holding::float64, 2},
            How{Method::surrogate, Start::automatic, Holding::float16, 2},
            How{Method::surrogate, Start::zero, Holding::bfloat16, 0},
            How{Method::automatic, Start::automatic, Holding::float32, 0}}) {
        SCOPED_TRACE(loss + (masks ? ", masks, " : ", ") + std::string(method_name(method)) + " from " +
                     std::string(start_name(start)));
        Problem problem = problem_of(loss, 1e-4, masks, false, 1000);
        problem.A = reference::rounded_for_all(problem.A);
        RegressionOptions options;
        options.method = method;
        options.start = start;
        options.random_starts = starts;
        if (start == Start::given) options.x0 = reference::random_vector(5, 41);
        const RegressionResult result = solved(problem, options, Layout::random, holding);
        options.method = Method::newton;
        options.start = Start::automatic;
        options.random_starts = 0;
        const RegressionResult expected = solved(without_masked(problem), options);
        const auto there = reference::evaluate(problem, result.x),
                   zero = reference::evaluate(problem, VectorXd::Zero(5));
        EXPECT_TRUE(is_good(result)) << termination_name(result.summary.termination);
        EXPECT_LE(reference::to_double(there.gradient).norm(), 1e-8 * reference::to_double(zero.gradient).norm());
        EXPECT_NEAR(result.summary.value, static_cast<double>(there.value),
                    1e-12 * std::abs(static_cast<double>(zero.value)));
        EXPECT_LE((result.x - expected.x).norm(), 1e-6 * expected.x.norm());
        EXPECT_NEAR(result.fit.total_variation, expected.fit.total_variation, 1e-7);
      }
}

TEST(Offset, TheOtherLossesEndAtAMinimiser) {
  for (const std::string loss : {"exp", "cosh", "sinh", "rescaled-exp", "rescaled-cosh", "rescaled-sinh"})
    for (const auto method : {Method::newton, Method::newton_cg, Method::automatic}) {
      SCOPED_TRACE(loss + ", " + std::string(method_name(method)));
      const Problem problem = problem_of(loss, 1e-2);
      RegressionOptions options;
      options.method = method;
      const RegressionResult result = solved(problem, options);
      const auto there = reference::evaluate(problem, result.x), zero = reference::evaluate(problem, VectorXd::Zero(5));
      EXPECT_TRUE(is_good(result)) << termination_name(result.summary.termination);
      EXPECT_LE(reference::to_double(there.gradient).norm(), 1e-7 * reference::to_double(zero.gradient).norm());
      EXPECT_LT(there.value, zero.value);
      EXPECT_NEAR(result.summary.value, static_cast<double>(there.value), 1e-10 * static_cast<double>(zero.value));
      for (const auto& note : result.notes) EXPECT_EQ(note.find("even"), note.npos) << note;  // cosh(A x + o) is not
    }
}

TEST(Offset, SketchedNewton) {
  for (const bool masks : {false, true}) {
    Problem problem = problem_of("softmax", 0.3, masks);
    RegressionOptions options;
    options.method = Method::sketched_newton;
    options.newton.max_iterations = 60;
    const RegressionResult result = solved(problem, options);
    options.method = Method::newton;
    const RegressionResult expected = solved(without_masked(problem), options);
    EXPECT_TRUE(is_good(result));
    EXPECT_LE((result.x - expected.x).norm(), 1e-7 * expected.x.norm());
  }
}

TEST(Offset, AMaskedRowHasNoPartInTheCertificate) {
  for (const std::string loss : {"softmax", "cross-entropy"}) {
    SCOPED_TRACE(loss);
    RegressionOptions options;
    options.certificate = CertificateLevel::full;
    const Problem problem = problem_of(loss, 0.6, true);
    const Certificate found = solved(problem, options).certificate,
                      expected = solved(without_masked(problem), options).certificate;
    EXPECT_NEAR(found.smallest_eigenvalue, expected.smallest_eigenvalue, 1e-7 * expected.smallest_eigenvalue);
    EXPECT_NEAR(found.largest_eigenvalue, expected.largest_eigenvalue, 1e-7 * expected.largest_eigenvalue);
    EXPECT_NEAR(found.convexity, expected.convexity, 1e-7 * expected.convexity);
    EXPECT_GT(found.convexity, 0);
    EXPECT_EQ(found.minimiser_exists, expected.minimiser_exists);
    EXPECT_NEAR(found.figures.row_distance, expected.figures.row_distance, 1e-6 * expected.figures.row_distance);
    EXPECT_NEAR(found.figures.third_derivative, expected.figures.third_derivative,
                1e-3 * expected.figures.third_derivative);
    for (std::size_t k = 0; k < expected.assumptions.size(); ++k)
      EXPECT_EQ(found.assumptions[k].holds, expected.assumptions[k].holds) << expected.assumptions[k].name;
  }
}

TEST(Offset, TheDistanceBoundHolds) {
  int bounds = 0;
  for (const auto loss : loss_names())
    for (int k = 0; k < 4; ++k) {
      SCOPED_TRACE(std::string(loss) + ", " + std::to_string(k));
      Problem problem = reference::random_problem(60, 3, 0.3 + 0.1 * k, 0.1, static_cast<std::uint64_t>(50 + k));
      problem.loss = loss;
      problem.offset = 0.5 * (1 + k % 3) * reference::random_vector(60, static_cast<std::uint64_t>(70 + k));
      if (is_centred(loss) && k % 2 == 1) problem.offset[7] = -kInfinity, problem.b[7] = 0, problem.A(7, 1) = 1e3;
      RegressionOptions options;
      options.method = Method::newton;
      options.certificate = CertificateLevel::full;
      options.newton.relative_tolerance = 1e-13;
      const RegressionResult exact = solved(problem, options);
      options.newton.relative_tolerance = k % 2 == 0 ? 1e-2 : 1e-5;
      options.start = Start::given;
      options.x0 = exact.x + 1e-3 * reference::random_vector(3, 9);
      const RegressionResult rough = solved(problem, options);
      if (!rough.certificate.distance_bound || !exact.certificate.distance_bound) continue;
      ++bounds;
      EXPECT_LE((rough.x - exact.x).norm(), *rough.certificate.distance_bound + *exact.certificate.distance_bound);
      const auto data = reference::distribute(Communicator(MPI_COMM_WORLD), problem, Layout::even);
      const Certificate again = certify_regression(data.A, data.b, data.w, rough.x, model_of(problem, data));
      EXPECT_NEAR(again.smallest_eigenvalue, rough.certificate.smallest_eigenvalue,
                  1e-8 * std::abs(again.largest_eigenvalue));
    }
  EXPECT_GE(bounds, 26);  // of 32
}

// b has one row: without a ridge or weights the cross-entropy has no minimiser, whatever the offset and the masked
// rows.
TEST(Offset, WhereNoMinimiserExists) {
  for (const std::string loss : {"softmax", "cross-entropy"})
    for (const bool masks : {false, true}) {
      SCOPED_TRACE(loss + (masks ? ", masks" : ""));
      Problem problem = problem_of(loss, 0, masks);
      problem.b.setZero();
      problem.b[7] = 1;
      problem.A.row(7) *= 20;  // it is a vertex of the hull of the rows that are not masked
      RegressionOptions options;
      options.certificate = CertificateLevel::full;
      const RegressionResult result = solved(problem, options);
      EXPECT_THAT(result.certificate.no_minimiser, testing::HasSubstr("no minimiser exists"));
      if (loss == "cross-entropy") {
        EXPECT_EQ(result.summary.termination, Termination::no_minimiser);
      }
      EXPECT_FALSE(result.certificate.minimiser_exists);
      options.ridge = 0.01;
      const RegressionResult with_ridge = solved(problem, options);
      EXPECT_TRUE(is_good(with_ridge));
      EXPECT_TRUE(with_ridge.certificate.minimiser_exists);
    }
  Problem positive = problem_of("cross-entropy", 0, true);
  positive.b = (positive.offset.array() == -kInfinity).select(0.0, VectorXd::Constant(700, 0.01));
  EXPECT_TRUE(solved(positive, {}).certificate.minimiser_exists);
}

TEST(Offset, InTheRowSpaceOfAWideMatrix) {
  for (const std::string loss : {"softmax", "cross-entropy", "exp"})
    for (const bool masks : {false, true}) {
      if (masks && loss == "exp") continue;
      SCOPED_TRACE(loss + (masks ? ", masks" : ""));
      Problem problem = reference::random_problem(20, 520, 1 / std::sqrt(520.0), 0, 5);
      problem.loss = loss;
      problem.offset = reference::random_vector(20, 6);
      if (masks) problem.offset[4] = problem.offset[11] = -kInfinity;
      if (masks) problem.b[4] = problem.b[11] = 0, problem.A.row(4) *= 1e3;
      if (loss == "exp") problem.b.array() += 1;
      RegressionOptions options;
      options.newton.relative_tolerance = 1e-11;
      const RegressionResult found = solved(problem, options), removed = solved(without_masked(problem), options);
      EXPECT_TRUE(is_good(found)) << termination_name(found.summary.termination);
      EXPECT_LE((found.x - removed.x).norm(), 1e-5 * removed.x.norm());  // of all x with this L the least
      if (loss != "softmax" || masks) continue;
      options.certificate = CertificateLevel::full;  // with all columns
      const RegressionResult expected = solved(problem, options);
      EXPECT_TRUE(is_good(expected)) << termination_name(expected.summary.termination);
      EXPECT_LE((found.x - expected.x).norm(), 1e-5 * expected.x.norm());
    }
}

TEST(Offset, PathsAndTargetsHaveIt) {
  const Communicator comm(MPI_COMM_WORLD);
  for (const bool masks : {false, true}) {
    const Problem problem = problem_of("softmax", 1e-3, masks);
    const auto data = reference::distribute(comm, problem, Layout::even);
    RegressionOptions options;
    options.offset = data.offset;
    options.newton.relative_tolerance = 1e-11;
    const VectorXd x = solve_regression(data.A, data.b, 1e-3, options).x;
    const auto path = solve_path(data.A, data.b, {1e-2, 1e-3}, options);
    EXPECT_LE((path.back().x - x).norm(), 1e-6 * x.norm());
    MatrixXd B(data.b.size(), 2);
    B << data.b, data.b;
    for (const auto& result : solve_targets(data.A, B, 1e-3, options))
      EXPECT_LE((result.x - x).norm(), 1e-6 * x.norm());
    options.offset = nullptr;
    EXPECT_GT((solve_regression(data.A, data.b, 1e-3, options).x - x).norm(), 1e-2 * x.norm());
  }
}

TEST(Offset, GoesOnFromAnyCheckpoint) {
  for (const Method method : {Method::newton, Method::newton_cg, Method::surrogate}) {
    SCOPED_TRACE(method_name(method));
    RegressionOptions options;
    options.method = method;
    const Problem problem = problem_of("softmax", 1e-4, true, false, 1500);
    std::vector<Journal::Parts> left;
    std::shared_ptr<Journal> journal;
    journal = std::make_shared<Journal>(0, [&] { left.push_back(journal->kept()); });
    options.newton.journal = journal;
    const VectorXd x = solved(problem, options).x;
    const auto count = left.size();
    EXPECT_GE(count, 2u);
    for (const auto& parts : left) {
      options.newton.journal = std::make_shared<Journal>(0, [] {});
      options.newton.journal->resume(parts);
      EXPECT_EQ(solved(problem, options).x, x);
    }
  }
}

TEST(Offset, ThatChangesNothingIsNone) {
  Problem problem = problem_of("softmax", 1e-3), without = problem;
  problem.offset.setConstant(7);
  without.offset.resize(0);
  EXPECT_EQ(solved(problem, {}).x, solved(without, {}).x);
  problem.loss = without.loss = "cosh";
  problem.b = without.b = problem.b.array() + 1.2;
  problem.offset.setZero();
  const RegressionResult result = solved(problem, {}), expected = solved(without, {});
  EXPECT_EQ(result.x, expected.x);
  EXPECT_EQ(result.start, Start::random);  // x = 0 is stationary
  EXPECT_EQ(result.notes, expected.notes);
}

TEST(Offset, AMaskedTargetDoesNotCount) {
  Problem problem = problem_of("softmax", 1e-3, true);
  const RegressionResult result = solved(problem, {}), expected = solved(without_masked(problem), {});
  EXPECT_NEAR(result.summary.value, expected.summary.value, 1e-10 * expected.summary.value);
  EXPECT_THAT(result.warnings, testing::Contains(testing::HasSubstr("140 values of b in masked rows")));
}

TEST(Offset, IsRefusedWithItsRow) {
  const Problem problem = problem_of("softmax", 1e-3);
  const auto message = [](Problem wrong, double value) {
    wrong.offset[9] = value;
    try {
      solved(wrong, {});
    } catch (const InvalidArgument& error) {
      return std::string(error.what());
    }
    return std::string("it was taken");
  };
  using testing::HasSubstr;
  for (const double value : {kInfinity, std::nan(""), 1e301, -1e301})
    EXPECT_THAT(message(problem, value), HasSubstr("at row 9 (counted from 0)"));
  for (const std::string loss : {"exp", "cosh", "sinh", "rescaled-exp", "rescaled-cosh", "rescaled-sinh"})
    EXPECT_THAT(message(problem_of(loss, 1e-3), -kInfinity), HasSubstr(loss + " knows no masks"));
  EXPECT_THAT(message(problem_of("cross-entropy", 1e-3), -kInfinity), HasSubstr("the cross-entropy is infinite"));
  Problem all = problem;
  all.offset.setConstant(-kInfinity);
  EXPECT_THAT(message(all, -kInfinity), HasSubstr("all rows"));
  const auto data = reference::distribute(Communicator(MPI_COMM_WORLD), problem, Layout::even);
  RegressionModel model;
  model.offset = std::make_shared<const VectorXd>(VectorXd::Zero(data.b.size() + 1));
  EXPECT_THROW(evaluate_regression(data.A, data.b, data.w, VectorXd::Zero(5), model), InvalidArgument);
  EXPECT_THROW(certify_regression(data.A, data.b, data.w, VectorXd::Zero(5), model), InvalidArgument);
  EXPECT_THROW(predict(data.A, VectorXd::Zero(5), model), InvalidArgument);
}

}  // namespace attnreg::test_offset
