// Attention regression with every loss of the family, whose rows are vector regressions.

#include <gtest/gtest.h>

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <array>
#include <cmath>

#include "attention/attention_objective.hpp"
#include "attnreg/attention_regression.hpp"
#include "support/attention_problems.hpp"
#include "support/reference.hpp"

namespace attnreg::test_attention_family {

using namespace attention_problems;

/// Every loss of the family.
class AttentionFamily : public Attention, public testing::WithParamInterface<std::string_view> {
 protected:
  const std::string loss_{GetParam()};

  /// One query [1], so that Z is (A2 x)^T: the vector regression of the columns of `problem`.
  Whole one_row(const reference::Problem& problem) const {
    return {RowMajorMatrix::Ones(1, 1), problem.A, problem.b.transpose(), {}, problem.w.transpose()};
  }
  reference::Problem vector_problem() const {
    return {reference::random_matrix(60, 4, 1), reference::random_vector(60, 2).cwiseAbs() / 40,
            VectorXd::Constant(60, 1e-2), loss_};
  }
};

INSTANTIATE_TEST_SUITE_P(All, AttentionFamily, testing::ValuesIn(loss_names()), [](const auto& test) {
  std::string name(test.param);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST_P(AttentionFamily, OneRowIsAVectorRegression) {
  const auto problem = vector_problem();
  const VectorXd x = 0.5 * reference::random_vector(4, 5);
  const auto expected = reference::evaluate(problem, x);
  const RowMajorMatrix X = x.transpose();
  for (const auto layout : reference::layouts) {
    const std::vector all{distributed(comm_, one_row(problem), layout)};
    const auto found = evaluate_attention(comm_, all, loss_, {X, RowMajorMatrix(0, 0)}, true);
    // Sums of 60 terms whose exponents are below 10.
    EXPECT_NEAR(found.value, static_cast<double>(expected.value), 1e-13 * static_cast<double>(expected.value));
    EXPECT_LE((flat(found.gradient.X) - reference::to_double(expected.gradient)).norm(),
              1e-12 * static_cast<double>(expected.gradient.norm()));
    EXPECT_LE((found.hessian - expected.hessian.cast<double>()).norm(),
              1e-12 * static_cast<double>(expected.hessian.norm()));

    AttentionPasses passes(comm_, all, check_sequences(comm_, all, loss_), loss_);
    const AttentionParameters full(1, 4, 0);
    AttentionObjective objective(passes, full, AttentionMethod::joint, AttentionModel::dense);
    ASSERT_TRUE(objective.refresh_preconditioner(objective.evaluate(x), false));
    const MatrixXd M = model_of(objective);
    EXPECT_GE(smallest_eigenvalue(M - expected.hessian.cast<double>()), -1e-11 * M.norm());
    EXPECT_GT(smallest_eigenvalue(M), 0);
  }
}

TEST_P(AttentionFamily, SolvesOneRowLikeAVectorRegression) {
  const auto problem = vector_problem();
  const auto data = reference::distribute(comm_, problem, reference::Layout::even);
  RegressionOptions regression;
  regression.loss = loss_;
  regression.method = Method::newton_cg;
  regression.start = Start::given;
  regression.x0 = 0.3 * reference::random_vector(4, 6);
  const auto expected = solve_regression(data.A, data.b, data.w, regression);
  AttentionOptions options;
  options.loss = loss_;
  options.start = Start::given;
  options.x0.X = expected.x.transpose() * 1.01;
  const auto found = solve_attention(comm_, {distributed(comm_, one_row(problem), reference::Layout::even)}, options);
  EXPECT_EQ(found.summary.termination, Termination::converged) << termination_name(found.summary.termination);
  EXPECT_NEAR(found.summary.value, expected.summary.value, 1e-9 * expected.summary.value + 1e-25);  // 0 for some
  EXPECT_LE((flat(found.unknowns.X) - expected.x).norm(), 1e-6 * (1e-3 + expected.x.norm()));
}

TEST_F(Attention, StartsOfLossesThatAreStationaryAtZero) {
  const auto solve = [&](const std::string& loss) {
    AttentionOptions options;
    options.loss = loss;
    return solve_attention(comm_, sequences(plant({}, 2, 1.0, 1, 3)), options);
  };
  const auto says = [](const std::vector<std::string>& lines, const std::string& text) {
    return std::any_of(lines.begin(), lines.end(), [&](const auto& line) { return line.find(text) != line.npos; });
  };
  const auto cosh = solve("cosh");
  EXPECT_EQ(cosh.start, Start::random);
  EXPECT_TRUE(says(cosh.notes, "X = 0 is stationary for the loss cosh"));
  EXPECT_TRUE(says(cosh.notes, "-X is a minimiser as good as X"));
  EXPECT_TRUE(says(cosh.warnings, "numbers of B are below 1: cosh(A1 X A2^T) is not"));
  const auto sinh = solve("rescaled-sinh");
  EXPECT_EQ(sinh.start, Start::random);
  EXPECT_TRUE(says(sinh.warnings, "X = 0 is a global minimiser of this loss"));
  EXPECT_EQ(solve("exp").start, Start::zero);
  EXPECT_EQ(solve("softmax").start, Start::cross_entropy);
}
}  // namespace attnreg::test_attention_family
