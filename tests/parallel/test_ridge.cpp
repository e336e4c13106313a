// The ridge of the columns: 1/2 R |x|^2, or 1/2 R sum_j s_j^2 x_j^2.

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <string>

#include "attnreg/regression.hpp"
#include "losses/losses.hpp"
#include "objective/regression_objective.hpp"
#include "support/reference.hpp"

namespace attnreg::test_ridge {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::eps;
using reference::Layout;
using reference::Problem;

constexpr double kRidge = 0.03;

/// Small logits, so that every loss is finite; with `hostile` columns, which are centred (of losses that do not see the
/// level) and scaled.
Problem problem_of(std::string_view loss, double weight, bool hostile = false, Index rows = 1500) {
  Problem problem = reference::random_problem(rows, 6, 0.3, weight, 3);
  problem.loss = loss;
  if (!hostile) return problem;
  problem.A.col(1).array() += 40;
  problem.A.col(3) *= 0x1p-14;
  return problem;
}

/// r_j of the caller's x.
VectorXd ridge_of(const Problem& problem, bool scaled) {
  if (!scaled) return VectorXd::Constant(problem.A.cols(), kRidge);
  RowMajorMatrix A = problem.A;
  if (make_loss(problem.loss)->is_shift_invariant()) A.rowwise() -= problem.A.colwise().mean();
  return kRidge * A.colwise().squaredNorm().transpose();
}

struct Expected {
  double value;
  VectorXd gradient;
  MatrixXd hessian;
};

Expected expected_at(const Problem& problem, const VectorXd& r, const VectorXd& x) {
  const auto found = reference::evaluate(problem, x);
  return {static_cast<double>(found.value) + 0.5 * r.dot(x.cwiseAbs2()),
          reference::to_double(found.gradient) + r.cwiseProduct(x),
          found.hessian.cast<double>() + MatrixXd(r.asDiagonal())};
}

RegressionResult solved(const Problem& problem, RegressionOptions options, Layout layout = Layout::random) {
  const auto data = reference::distribute(Communicator(MPI_COMM_WORLD), problem, layout);
  options.loss = problem.loss;
  return solve_regression(data.A, data.b, data.w, options);
}

bool is_good(const RegressionResult& result) {
  return result.summary.termination == Termination::converged ||
         result.summary.termination == Termination::converged_rounding;
}

TEST(Ridge, IsInTheValueTheDerivativesAndTheStepsOfEveryLoss) {
  for (const auto loss : loss_names())
    for (const bool hostile : {false, true})
      for (const bool scaled : {false, true}) {
        SCOPED_TRACE(std::string(loss) + (hostile ? ", hostile" : "") + (scaled ? ", scaled" : ""));
        const Problem problem = problem_of(loss, 1e-3, hostile);
        const auto data = reference::distribute(Communicator(MPI_COMM_WORLD), problem, Layout::random);
        auto columns = std::make_shared<ScaledColumns>(data.A, make_loss(loss)->is_shift_invariant());
        columns->add_ridge(kRidge, scaled);
        RegressionObjective objective(columns, data.b, data.w, make_loss(loss));
        const VectorXd to_callers = columns->factor(), r = ridge_of(problem, scaled);
        VectorXd x = 0.3 * reference::random_vector(6, 21), s = 0.3 * reference::random_vector(6, 22);
        x = x.cwiseQuotient(columns->scale()) * 5, s = s.cwiseQuotient(columns->scale()) * 5;  // any units
        const Expected expected = expected_at(problem, r, x.cwiseProduct(to_callers));
        Point point = objective.evaluate(x);
        // Of 1500 terms, as random sums; entries of the far column are 40 times as large.
        const double tolerance = 1e4 * eps;
        const VectorXd gradient = expected.gradient.cwiseProduct(to_callers);
        const MatrixXd hessian = to_callers.asDiagonal() * expected.hessian * to_callers.asDiagonal();
        const VectorXd sizes = columns->scale();
        const double size = (sizes.cwiseInverse().asDiagonal() * hessian * sizes.cwiseInverse().asDiagonal()).norm();
        EXPECT_NEAR(point.value, expected.value, tolerance * std::abs(expected.value));
        EXPECT_LE(objective.norm(point.gradient - gradient), tolerance * (objective.norm(gradient) + size));
        Direction along{s};
        const VectorXd product = objective.hessian_product(point, along);
        EXPECT_LE(objective.norm(product - hessian * s), tolerance * size * sizes.cwiseProduct(s).norm());
        const Hessian found = objective.hessian(point);
        if (found.communicator.is_root()) {
          EXPECT_LE(
              (sizes.cwiseInverse().asDiagonal() * (found.exact - hessian) * sizes.cwiseInverse().asDiagonal()).norm(),
              tolerance * size);
          EXPECT_GE((found.positive_part - found.exact).diagonal().minCoeff(), -tolerance * hessian.norm());
        }
        Direction direction = objective.direction(s);
        for (const Trial& trial : objective.try_steps(point, direction, std::array{1.0, 0.25})) {
          const Expected there = expected_at(problem, r, (x + trial.t * s).cwiseProduct(to_callers));
          EXPECT_NEAR(trial.change, there.value - expected.value,
                      tolerance * (std::abs(there.value) + std::abs(expected.value)));
        }
        const Point next = objective.step(std::move(point), std::move(direction), {.t = 1});
        EXPECT_NEAR(next.value, expected_at(problem, r, (x + s).cwiseProduct(to_callers)).value,
                    tolerance * std::abs(next.value));
      }
}

TEST(Ridge, EveryMethodEndsAtTheMinimiser) {
  for (const auto method : {Method::newton, Method::newton_cg, Method::surrogate, Method::automatic})
    for (const std::string loss : {"softmax", "cross-entropy"})
      for (const bool hostile : {false, true})
        for (const bool scaled : {false, true}) {
          SCOPED_TRACE(loss + ", " + std::string(method_name(method)) + (hostile ? ", hostile" : "") +
                       (scaled ? ", scaled" : ""));
          RegressionOptions options;
          options.method = method;
          options.ridge = scaled ? 1e-6 : 1e-4;
          options.ridge_scaled = scaled;
          Problem problem = problem_of(loss, 0, hostile);
          const RegressionResult result = solved(problem, options);
          const VectorXd r = ridge_of(problem, scaled) * (options.ridge / kRidge);
          const Expected there = expected_at(problem, r, result.x), zero = expected_at(problem, r, VectorXd::Zero(6));
          EXPECT_TRUE(is_good(result)) << termination_name(result.summary.termination);
          const VectorXd sizes = (problem.A.rowwise() - problem.A.colwise().mean()).colwise().norm();
          EXPECT_LE(there.gradient.cwiseQuotient(sizes).norm(), 1e-8 * zero.gradient.cwiseQuotient(sizes).norm());
          EXPECT_NEAR(result.summary.value, there.value, 1e-12 * zero.value);
          EXPECT_LT(there.value, zero.value);
        }
}

TEST(Ridge, TheOtherLossesEndAtAMinimiser) {
  for (const std::string loss : {"exp", "cosh", "sinh", "rescaled-exp", "rescaled-cosh"})
    for (const bool scaled : {false, true}) {
      SCOPED_TRACE(loss + (scaled ? ", scaled" : ""));
      const Problem problem = problem_of(loss, 0);
      RegressionOptions options;
      options.ridge = kRidge;
      options.ridge_scaled = scaled;
      const RegressionResult result = solved(problem, options);
      EXPECT_TRUE(is_good(result)) << termination_name(result.summary.termination);
      const VectorXd r = ridge_of(problem, scaled);
      const Expected there = expected_at(problem, r, result.x), zero = expected_at(problem, r, VectorXd::Zero(6));
      const VectorXd sizes = problem.A.colwise().norm();
      const double reference = std::max(result.summary.gradient_reference, zero.gradient.cwiseQuotient(sizes).norm());
      EXPECT_LE(there.gradient.cwiseQuotient(sizes).norm(), 1e-7 * reference);
      EXPECT_NEAR(result.summary.value, there.value, 1e-10 * std::abs(zero.value));
      EXPECT_LE(there.value, zero.value * (1 + 1e-12));
    }
}

// b has one row: without a ridge or weights the cross-entropy has no minimiser.
TEST(Ridge, MakesAMinimiserAndCertifiesIt) {
  Problem problem = problem_of("cross-entropy", 0);
  problem.b.setZero();
  problem.b[7] = 1;
  problem.A.row(7) *= 20;  // it is a vertex of the rows' hull
  RegressionOptions options;
  options.certificate = CertificateLevel::full;
  EXPECT_EQ(solved(problem, options).summary.termination, Termination::no_minimiser);
  options.ridge = kRidge;
  const RegressionResult result = solved(problem, options);
  EXPECT_TRUE(is_good(result));
  EXPECT_TRUE(result.certificate.minimiser_exists);
  EXPECT_TRUE(result.certificate.no_minimiser.empty());
  EXPECT_GE(result.certificate.convexity, kRidge * (1 - 1e-10));
  EXPECT_GE(result.certificate.smallest_eigenvalue, kRidge * (1 - 1e-10));
  options.newton.relative_tolerance = 1e-3;
  const RegressionResult rough = solved(problem, options);
  ASSERT_TRUE(rough.certificate.distance_bound && result.certificate.distance_bound);
  EXPECT_LE((rough.x - result.x).norm(), *rough.certificate.distance_bound + *result.certificate.distance_bound);
}

TEST(Ridge, InTheRowSpaceOfAWideMatrixWithColumnsInDifferentUnits) {
  for (const bool scaled : {false, true}) {
    SCOPED_TRACE(scaled ? "scaled" : "plain");
    constexpr Index kColumns = 520;
    Problem problem = reference::random_problem(20, kColumns, 1 / std::sqrt(double{kColumns}), 1e-3, 5);
    for (Index j = 0; j < kColumns; ++j) problem.A.col(j) *= std::scalbn(1.0, static_cast<int>(j % 15) - 7);
    RegressionOptions options;
    options.ridge = 1e-4;
    options.ridge_scaled = scaled;
    options.newton.relative_tolerance = 1e-11;
    const RegressionResult found = solved(problem, options);
    options.certificate = CertificateLevel::full;  // with all columns
    const RegressionResult expected = solved(problem, options);
    EXPECT_TRUE(is_good(found)) << termination_name(found.summary.termination);
    EXPECT_TRUE(is_good(expected)) << termination_name(expected.summary.termination);
    EXPECT_NEAR(found.summary.value, expected.summary.value, 1e-12 * expected.summary.value);
    EXPECT_NEAR(found.summary.gradient_reference, expected.summary.gradient_reference,
                1e-10 * expected.summary.gradient_reference);
    EXPECT_LE((found.x - expected.x).norm(), 1e-6 * expected.x.norm());
  }
}

TEST(Ridge, PathsAndTargetsHaveIt) {
  const Problem problem = problem_of("softmax", 1e-3);
  const Communicator comm(MPI_COMM_WORLD);
  const auto data = reference::distribute(comm, problem, Layout::even);
  RegressionOptions options;
  options.ridge = 1e-4;
  options.newton.relative_tolerance = 1e-11;
  const VectorXd x = solve_regression(data.A, data.b, 1e-3, options).x;
  const auto path = solve_path(data.A, data.b, {1e-2, 1e-3}, options);
  EXPECT_LE((path.back().x - x).norm(), 1e-6 * x.norm());
  MatrixXd B(data.b.size(), 2);
  B << data.b, data.b;
  for (const auto& result : solve_targets(data.A, B, 1e-3, options)) EXPECT_LE((result.x - x).norm(), 1e-6 * x.norm());
  options.ridge = 0;
  EXPECT_GT((solve_regression(data.A, data.b, 1e-3, options).x - x).norm(), 1e-2 * x.norm());
}

// Of evaluations and certificates, in the caller's columns.
TEST(Ridge, EvaluationsAndCertificatesHaveIt) {
  for (const std::string loss : {"softmax", "exp"})
    for (const bool scaled : {false, true}) {
      SCOPED_TRACE(loss + (scaled ? ", scaled" : ""));
      const Problem problem = problem_of(loss, 1e-3, loss == "softmax");
      const auto data = reference::distribute(Communicator(MPI_COMM_WORLD), problem, Layout::random);
      RegressionModel model(loss);
      model.ridge = kRidge;
      model.ridge_scaled = scaled;
      const VectorXd r = ridge_of(problem, scaled), sizes = problem.A.colwise().norm();
      const VectorXd x = reference::random_vector(6, 3).cwiseQuotient(sizes);
      const Expected expected = expected_at(problem, r, x);
      const auto found = evaluate_regression(data.A, data.b, data.w, x, model, true);
      const auto inverse = sizes.cwiseInverse().asDiagonal();
      const double size = (inverse * expected.hessian * inverse).norm();
      EXPECT_NEAR(found.value, expected.value, 1e-12 * expected.value);
      EXPECT_LE((inverse * (found.gradient - expected.gradient)).norm(),
                1e-11 * ((inverse * expected.gradient).norm() + size));
      EXPECT_LE((inverse * (found.hessian - expected.hessian) * inverse).norm(), 1e-10 * size);
      const Certificate certificate = certify_regression(data.A, data.b, data.w, x, model);
      EXPECT_TRUE(certificate.minimiser_exists);
      EXPECT_NEAR(certificate.gradient_norm, expected.gradient.norm(), 1e-9 * expected.gradient.norm());
    }
}

TEST(Ridge, IsANumberThatIsNotNegative) {
  const Problem problem = problem_of("softmax", 1e-3);
  for (const double ridge : {-1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    RegressionOptions options;
    options.ridge = ridge;
    EXPECT_THROW(solved(problem, options), InvalidArgument);
  }
}

}  // namespace attnreg::test_ridge
