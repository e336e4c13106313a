#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <functional>
#include <limits>

#include "attnreg/regression.hpp"
#include "support/reference.hpp"

namespace attnreg::test_regression {

using Eigen::VectorXd;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr Index kRows = 2000, kColumns = 8;

class Regression : public testing::Test {
 protected:
  const Communicator comm_{MPI_COMM_WORLD};
  reference::Problem problem_ = reference::random_problem(kRows, kColumns, 1, 1e-3, 1);

  reference::Distributed distributed(reference::Holding holding = reference::Holding::float64) const {
    return reference::distribute(comm_, problem_, reference::Layout::random, holding);
  }
  RegressionResult solve(const RegressionOptions& options = start(Start::zero)) const {
    const auto data = distributed();
    return solve_regression(data.A, data.b, data.w, options);
  }
  VectorXd all_rows(const VectorXd& local) const { return reference::gather(comm_, local); }
  bool last() const { return comm_.rank() == comm_.size() - 1; }

  static RegressionOptions start(Start where) {
    RegressionOptions options;
    options.start = where;
    return options;
  }
};

TEST_F(Regression, EvaluatesAndCertifiesAnyPoint) {
  const auto data = distributed();
  const VectorXd x = reference::random_vector(kColumns, 3);
  const auto expected = reference::evaluate(problem_, x);
  const auto found = evaluate_regression(data.A, data.b, data.w, x, "softmax", true);
  const auto expected_value = static_cast<double>(expected.value);
  EXPECT_NEAR(expected_value, found.value, 1e-12 * expected_value);
  EXPECT_NEAR(std::log(expected_value), found.log_value, 1e-12);
  const VectorXd g = reference::to_double(expected.gradient);
  EXPECT_LE((found.gradient - g).norm(), 1e-11 * g.norm());
  const Eigen::MatrixXd& H = found.hessian;
  ASSERT_EQ(kColumns, H.rows());
  const double step = 1e-6;  // of central differences: step^2 and eps / step
  for (Index j = 0; j < kColumns; ++j) {
    const VectorXd e = step * VectorXd::Unit(kColumns, j);
    const VectorXd ahead = reference::to_double(reference::evaluate(problem_, x + e).gradient),
                   behind = reference::to_double(reference::evaluate(problem_, x - e).gradient);
    EXPECT_LE((H.col(j) - (ahead - behind) / (2 * step)).norm(), 1e-6 * H.norm());
  }
  EXPECT_TRUE(comm_.is_replicated({H.data(), static_cast<std::size_t>(H.size())}));
  EXPECT_EQ(0, evaluate_regression(data.A, data.b, data.w, x).hessian.size());

  const auto minimum = solve();
  EXPECT_LE((minimum.gradient - evaluate_regression(data.A, data.b, data.w, minimum.x).gradient).norm(),
            1e-9 * g.norm());
  const Certificate certificate = certify_regression(data.A, data.b, data.w, minimum.x);
  EXPECT_EQ(StationaryKind::local_minimum, certificate.kind);
  EXPECT_LE(certificate.relative_gradient, 1e-9);
  EXPECT_TRUE(certificate.distance_bound);
  EXPECT_GT(certify_regression(data.A, data.b, data.w, x, "softmax", CertificateLevel::gradient).relative_gradient,
            1e-9);
  EXPECT_THROW(evaluate_regression(data.A, data.b, data.w, VectorXd::Zero(kColumns + 1)), InvalidArgument);
  EXPECT_THROW(certify_regression(data.A, data.b, data.w, VectorXd::Constant(kColumns, kNaN)), InvalidArgument);
}

TEST_F(Regression, FindsAMinimumFromAnyStart) {
  auto given = start(Start::given);
  given.x0 = reference::random_vector(kColumns, 5);
  auto entropy = start(Start::cross_entropy);
  entropy.method = Method::newton_cg;
  for (const auto& options : {start(Start::zero), entropy, given}) {
    const auto result = solve(options);
    const VectorXd f = all_rows(result.fitted);
    const auto there = reference::evaluate(problem_, result.x);
    const auto zero = reference::evaluate(problem_, VectorXd::Zero(kColumns));
    const VectorXd spread = (problem_.A.rowwise() - problem_.A.colwise().mean()).colwise().norm();
    const auto size = [&](const auto& g) { return reference::to_double(g).cwiseQuotient(spread).norm(); };
    const double at_zero = size(zero.gradient);
    EXPECT_EQ(result.summary.termination, Termination::converged);
    EXPECT_LE(size(there.gradient), 1.1e-10 * at_zero);  // its rounding is below 1e-11 |g(0)|
    EXPECT_NEAR(result.summary.gradient_norm, static_cast<double>(there.gradient.norm()),
                1e-11 * static_cast<double>(zero.gradient.norm()));
    EXPECT_NEAR(result.summary.gradient_reference, at_zero, 1e-12 * at_zero);  // |g(0)|_s whatever the start
    EXPECT_NEAR(result.summary.value, static_cast<double>(there.value), 1e-12 * result.summary.value);
    EXPECT_LE((f - reference::to_double(there.f)).cwiseAbs().maxCoeff(), 1e-14);
    EXPECT_THAT(result.warnings, IsEmpty());
    EXPECT_EQ(result.start_iterations > 0, options.start == Start::cross_entropy);
    const int reads_of_step = result.method == Method::surrogate ? 1 : 2;  // at least
    EXPECT_GT(result.summary.reads_of_a, reads_of_step * (result.summary.iterations + result.start_iterations));
    EXPECT_GT(result.summary.collectives, 0);
  }
}

TEST_F(Regression, GivesTheSameXOnAllRanksAndForAnyDistribution) {
  const auto result = solve();
  const bool replicated = comm_.is_replicated(reference::span_of(result.x));
  const Communicator self(MPI_COMM_SELF);
  const auto data = reference::distribute(self, problem_);
  const auto alone = solve_regression(data.A, data.b, data.w, start(Start::zero));
  EXPECT_TRUE(replicated);
  EXPECT_LE((result.x - alone.x).norm(), 1e-9 * alone.x.norm());
  EXPECT_NEAR(result.summary.value, alone.summary.value, 1e-13 * alone.summary.value);
}

TEST_F(Regression, WithTwoThreadsToo) {
  const int threads = omp_get_max_threads();
  std::vector<RegressionResult> results;
  for (const int count : {1, 2}) {
    omp_set_num_threads(count);
    results.push_back(solve());
    const auto again = solve();
    EXPECT_TRUE(again.x == results.back().x);
  }
  omp_set_num_threads(threads);
  EXPECT_LE((results[0].x - results[1].x).norm(), 1e-9 * results[0].x.norm());
  EXPECT_EQ(results[0].summary.iterations, results[1].summary.iterations);
}

TEST_F(Regression, RowsOfFewerBitsSolveTheRoundedProblem) {
  problem_.A = reference::rounded_for_all(problem_.A);
  for (const auto method : {Method::newton, Method::newton_cg, Method::surrogate, Method::sketched_newton}) {
    VectorXd expected;
    for (const auto holding : reference::dense_holdings) {
      const auto data = distributed(holding);
      auto options = start(Start::zero);
      options.method = method;
      const auto result = solve_regression(data.A, data.b, data.w, options);
      if (expected.size() == 0) expected = result.x;
      // Relative gradient 1e-10; newton makes the same steps.
      EXPECT_LE((result.x - expected).norm(), (method == Method::newton ? 1e-12 : 1e-8) * expected.norm())
          << static_cast<int>(holding) << method_name(method);
    }
  }
}

TEST_F(Regression, SparseRowsSolveTheSameProblem) {
  for (Index k = 0; k < problem_.A.size(); k += 2) problem_.A.data()[k] = 0;
  const auto expected = solve();
  for (const auto method : {Method::newton, Method::newton_cg}) {
    const auto data = distributed(reference::Holding::sparse64);
    auto options = start(Start::zero);
    options.method = method;
    const auto result = solve_regression(data.A, data.b, data.w, options);
    EXPECT_LE((result.x - expected.x).norm(), 1e-9 * expected.x.norm());
  }
}

TEST_F(Regression, CrossEntropyReproducesARealisableTarget) {
  const VectorXd x = reference::random_vector(kColumns, 3);
  problem_.b = reference::softmax(problem_.A, x);
  problem_.w.setZero();
  auto options = start(Start::zero);
  options.loss = "cross-entropy";
  const auto result = solve(options);
  const VectorXd f = all_rows(result.fitted);
  EXPECT_LE((result.x - x).norm(), 1e-8 * x.norm());  // relative gradient 1e-10, condition of the Hessian below 100
  EXPECT_LE((f - problem_.b).lpNorm<1>(), 1e-8);
  EXPECT_LE(result.fit.total_variation, 1e-8);
  EXPECT_NEAR(result.fit.r_squared, 1, 1e-12);
}

TEST_F(Regression, CrossEntropyDoesNotDependOnTheScaleOfB) {
  problem_.w.setZero();
  auto options = start(Start::zero);
  options.loss = "cross-entropy";
  const auto unit = solve(options);
  problem_.b *= 50;
  const auto scaled = solve(options);
  EXPECT_LE((scaled.x - unit.x).norm(), 1e-8 * unit.x.norm());
  EXPECT_THAT(scaled.warnings, ElementsAre(HasSubstr("sums to 50")));
}

TEST_F(Regression, FitQualityIsWhatItsFormulasSay) {
  const auto result = solve();
  const VectorXd f = all_rows(result.fitted), &b = problem_.b;
  const double spread = (b.array() - b.mean()).matrix().squaredNorm();
  constexpr double kTolerance = 1e-11;  // sums of 2000 terms
  EXPECT_NEAR(result.fit.total_variation, 0.5 * (f - b).lpNorm<1>(), kTolerance);
  EXPECT_NEAR(result.fit.kullback_leibler, (b.array() * (b.array() / f.array()).log()).sum(), kTolerance);
  EXPECT_NEAR(result.fit.r_squared, 1 - (f - b).squaredNorm() / spread, kTolerance);
  EXPECT_NEAR(result.fit.support_fitted, 1 / f.squaredNorm(), kTolerance * result.fit.support_fitted);
  EXPECT_NEAR(result.fit.support_target, b.sum() * b.sum() / b.squaredNorm(), kTolerance * result.fit.support_target);
}

TEST_F(Regression, FitQualityOfOddTargets) {
  problem_.b.setConstant(1.0 / kRows);
  const auto constant = solve();
  problem_.b = VectorXd::Unit(kRows, 17);  // zeros among b: 0 ln 0 = 0
  const auto one_hot = solve();
  problem_.b[17] = -1;
  const auto negative = solve();
  EXPECT_TRUE(std::isnan(constant.fit.r_squared));
  EXPECT_NEAR(constant.fit.support_target, kRows, 1e-9 * kRows);
  EXPECT_NEAR(constant.fit.support_fitted, kRows, 1e-9 * kRows);
  const VectorXd f = all_rows(one_hot.fitted);
  EXPECT_NEAR(one_hot.fit.kullback_leibler, -std::log(f[17]), 1e-11);
  EXPECT_EQ(one_hot.fit.support_target, 1);
  EXPECT_TRUE(std::isnan(negative.fit.kullback_leibler));
}

TEST_F(Regression, WarnsOfTargetsThatCannotBeMatched) {
  problem_.b *= 2;
  const auto sum = solve();
  problem_.b *= 0.5;
  problem_.b[0] += problem_.b[1] + 1e-3;
  problem_.b[1] = -1e-3;
  const auto negative = solve();
  problem_.b = -problem_.b.cwiseAbs();
  const auto nothing_positive = solve(start(Start::cross_entropy));
  EXPECT_THAT(sum.warnings, ElementsAre(HasSubstr("sums to 2,")));
  EXPECT_THAT(negative.warnings, ElementsAre(HasSubstr("1 values of b are negative")));
  EXPECT_THAT(nothing_positive.notes, testing::Contains(HasSubstr("no value of b is positive")));
  EXPECT_EQ(nothing_positive.start_iterations, 0);
  EXPECT_TRUE(nothing_positive.x.allFinite());
}

TEST_F(Regression, TellsOfEveryIterationOnEveryRank) {
  int records = 0, start_records = 0;
  double reads = -1;
  bool rising = true;
  auto options = start(Start::cross_entropy);
  options.method = Method::newton_cg;
  options.on_start_iteration = [&](const IterationRecord&) { ++start_records; };
  options.newton.on_iteration = [&](const IterationRecord& record) {
    rising = rising && record.reads_of_a > reads;
    reads = record.reads_of_a;
    ++records;
  };
  const auto result = solve(options);
  EXPECT_EQ(records, result.summary.iterations + 1);
  EXPECT_EQ(start_records, result.start_iterations + 1);
  EXPECT_TRUE(rising);
}

TEST_F(Regression, PredictIsTheSoftmaxOfTheLogits) {
  const auto data = distributed();
  const VectorXd x = reference::random_vector(kColumns, 4);
  const VectorXd f = all_rows(predict(data.A, x)), far = all_rows(predict(data.A, 1e4 * x));
  EXPECT_LE((f - reference::softmax(problem_.A, x)).cwiseAbs().maxCoeff(), 1e-14);
  EXPECT_TRUE(far.allFinite());
  EXPECT_NEAR(far.sum(), 1, 1e-12);
}

/// Whether solve_regression throws InvalidArgument with scope all_ranks, and says `words`.
void expect_rejected(const reference::Distributed& data, const RegressionOptions& options, const char* words) {
  try {
    solve_regression(data.A, data.b, data.w, options);
    ADD_FAILURE() << "accepted: " << words;
  } catch (const InvalidArgument& error) {
    EXPECT_EQ(error.scope(), Error::Scope::all_ranks);
    EXPECT_THAT(error.what(), HasSubstr(words));
  }
}

TEST_F(Regression, RejectsWrongDataOfOneRankOnAllRanks) {
  const auto spoil = [&](const char* words, const std::function<void(reference::Distributed&)>& change) {
    auto data = reference::distribute(comm_, problem_, reference::Layout::even);
    if (last()) change(data);
    expect_rejected(data, {}, words);
  };
  spoil("b has", [](auto& data) { data.b.conservativeResize(data.b.size() - 1); });
  spoil("w has", [](auto& data) { data.w = VectorXd::Zero(data.w.size() + 1); });
  spoil("b is nan at row ", [](auto& data) { data.b[3] = kNaN; });
  spoil("w is inf at row ", [](auto& data) { data.w[0] = std::numeric_limits<double>::infinity(); });
}

TEST_F(Regression, RejectsWrongOptions) {
  const auto data = distributed();
  RegressionOptions unknown;
  unknown.loss = "hinge";
  expect_rejected(data, unknown, "hinge");

  auto given = start(Start::given);
  expect_rejected(data, given, "x0 has 0 values");
  given.x0 = VectorXd::Zero(kColumns + 1);
  expect_rejected(data, given, "x0 has 9 values");
  given.x0 = VectorXd::Constant(kColumns, kNaN);
  expect_rejected(data, given, "x0 is nan at column 0");
  if (comm_.size() > 1) {
    given.x0 = VectorXd::Constant(kColumns, comm_.rank());
    expect_rejected(data, given, "same on all ranks");
    given.x0 = VectorXd::Zero(kColumns - (last() ? 1 : 0));
    expect_rejected(data, given, "same on all ranks");
  }

  problem_.b = -problem_.b;
  RegressionOptions cross_entropy;
  cross_entropy.loss = "cross-entropy";
  expect_rejected(distributed(), cross_entropy, "positive sum");
}

}  // namespace attnreg::test_regression
