// Matrix and one-layer attention regression: the reference vectors, finite differences, planted heads, warnings.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>

#include "attention/attention_objective.hpp"
#include "attnreg/attention_regression.hpp"
#include "support/attention_problems.hpp"
#include "support/dense_algebra.hpp"
#include "support/reference.hpp"
#include "support/vector_file.hpp"

namespace attnreg::test_attention {

using namespace attention_problems;

std::vector<std::string> attention_cases() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(ATTNREG_TEST_DATA "/vectors")) {
    const std::string name = entry.path().stem().string();
    if (name.starts_with("matrix_") || name.starts_with("attention_")) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}
class AttentionVectors : public Attention, public testing::WithParamInterface<std::string> {
 protected:
  const reference::VectorFile known_{GetParam()};

  bool with_values() const { return known_.text("problem") == "attention"; }
  std::string loss() const { return known_.text("problem") == "matrix_rescaled" ? "rescaled-exp" : "softmax"; }
  Whole whole() const {
    Whole result{known_.matrix("A1"), known_.matrix("A2"), known_.matrix("B"), {}, {}};
    if (with_values()) result.values = known_.matrix("A3");
    if (known_.has("W")) result.weights = known_.matrix("W");
    return result;
  }
  AttentionUnknowns at() const {
    return {known_.matrix("X"), with_values() ? known_.matrix("Y") : RowMajorMatrix(0, 0)};
  }
  double number(const char* key) const { return known_.number(key); }
};

INSTANTIATE_TEST_SUITE_P(All, AttentionVectors, testing::ValuesIn(attention_cases()));

TEST(AttentionVectorFiles, AreThere) { EXPECT_EQ(attention_cases().size(), 11u); }

TEST_P(AttentionVectors, ValueGradientAndHessian) {
  const VectorXd gradient = known_.vector("gradient");
  const MatrixXd hessian = known_.matrix("hessian");
  for (const auto layout : reference::layouts) {
    const std::vector all{distributed(comm_, whole(), layout)};
    const auto found = evaluate_attention(comm_, all, loss(), at(), true);
    EXPECT_NEAR(found.value, number("value"), number("tol_value"));
    EXPECT_LE((joined(found.gradient) - gradient).cwiseAbs().maxCoeff(), number("tol_gradient"));
    EXPECT_LE((found.hessian - hessian).cwiseAbs().maxCoeff(), number("tol_hessian"));
  }
}

// The dense model M is the Gauss-Newton matrix for one layer, and H <= M else. Where it is singular, dependent columns
// are held by a ridge, so that M is larger.
TEST_P(AttentionVectors, DenseModel) {
  const std::vector all{distributed(comm_, whole(), reference::Layout::random)};
  const auto shape = check_sequences(comm_, all, loss());
  AttentionPasses passes(comm_, all, shape, loss());
  const AttentionParameters full(shape.d1, shape.d2, 0);
  AttentionObjective objective(passes, full, AttentionMethod::joint, AttentionModel::dense);
  ASSERT_TRUE(objective.refresh_preconditioner(objective.evaluate(joined(at())),
                                               false));  // the same on all ranks, and the last collective
  const MatrixXd M = model_of(objective);
  const MatrixXd expected = known_.matrix(with_values() ? "gauss_newton" : "hessian");
  const VectorXd eigenvalues = reference::eigenvalues(expected);
  const double tolerance = 1e-11 * M.norm();  // ridge, and rounding of M from norms
  EXPECT_GE(smallest_eigenvalue(M - expected), -tolerance);
  const bool definite = eigenvalues[0] > 1e-10 * eigenvalues[eigenvalues.size() - 1];
  if (definite && with_values()) {
    EXPECT_LE((M - expected).norm(), tolerance);
  }
}

TEST_P(AttentionVectors, BestY) {
  if (!with_values() || !known_.has("y_star")) return;
  const std::vector all{distributed(comm_, whole(), reference::Layout::random)};
  const auto shape = check_sequences(comm_, all, loss());
  AttentionPasses passes(comm_, all, shape, loss());
  const AttentionParameters full(shape.d1, shape.d2, 0);
  AttentionObjective objective(passes, full, AttentionMethod::varpro, AttentionModel::dense);
  const Point point = objective.evaluate(flat(at().X));
  const auto known = known_.part("y_star");
  const RowMajorMatrix Y = known.matrix("Y");
  EXPECT_NEAR(point.value, known.number("value"), number("tol_value"));
  // cond^2 of the normal equations, less what the correction gains
  const double condition = known.number("cond_KtK");
  EXPECT_LE((objective.state_of(point).at.Y - Y).norm(), 64 * reference::eps * condition * (1 + Y.norm()));
}

struct Problem {
  std::string name;
  Shape shape;
  std::string loss = "softmax";
  AttentionMethod method = AttentionMethod::joint;
  Index rank = 0;
};

class AttentionDerivatives : public Attention, public testing::WithParamInterface<Problem> {};

INSTANTIATE_TEST_SUITE_P(
    All, AttentionDerivatives,
    testing::Values(Problem{"normalised", {9, 7, 3, 2}}, Problem{"rescaled", {9, 7, 3, 2}, "rescaled-exp"},
                    Problem{"cross_entropy", {9, 7, 3, 2}, "cross-entropy"}, Problem{"exp", {9, 7, 3, 2}, "exp"},
                    Problem{"cosh", {9, 7, 3, 2}, "cosh"}, Problem{"sinh", {9, 7, 3, 2}, "sinh"},
                    Problem{"rescaled_cosh", {9, 7, 3, 2}, "rescaled-cosh"},
                    Problem{"rescaled_sinh", {9, 7, 3, 2}, "rescaled-sinh"},
                    Problem{"low_rank_cosh", {9, 7, 3, 4}, "cosh", {}, 2},
                    Problem{"low_rank", {9, 7, 3, 4}, "softmax", {}, 2}, Problem{"joint", {9, 7, 3, 2, 3, 2}},
                    Problem{"eliminated", {9, 7, 3, 2, 3, 2}, "softmax", AttentionMethod::varpro},
                    Problem{"low_rank_joint", {9, 7, 3, 2, 2, 1}, "softmax", {}, 1},
                    Problem{"low_rank_eliminated", {9, 7, 3, 4, 2, 1}, "softmax", AttentionMethod::varpro, 2}),
    [](const auto& test) { return test.param.name; });

// Against differences of the objective's own values, which the vectors pin down: along a line, L(x + t s) - L(x) by its
// difference form, by values, and by Taylor's formula; gradients along s against Hessian products.
TEST_P(AttentionDerivatives, AgreeWithDifferences) {
  const Problem& problem = GetParam();
  const Planted planted = plant(problem.shape, 2, 1.5, 2, 5);
  const auto all = sequences(planted);
  const auto shape = check_sequences(comm_, all, problem.loss);
  AttentionPasses passes(comm_, all, shape, problem.loss);
  const AttentionParameters parameters(shape.d1, shape.d2, problem.rank);
  AttentionObjective objective(passes, parameters, problem.method, AttentionModel::kronecker);
  const VectorXd x = 0.5 * reference::random_vector(objective.dimension(), 77);
  Direction direction = objective.direction(reference::random_vector(objective.dimension(), 78));
  const VectorXd& s = direction.s;
  const double h = 1e-4;

  const Point point = objective.evaluate(x);
  const double value = point.value;
  const VectorXd &gradient = point.gradient, product = objective.hessian_product(point, direction);
  const auto trials = objective.try_steps(point, direction, std::array{0.5, 1e-7});
  const double far = objective.evaluate(x + 0.5 * s).value - value;
  const VectorXd above = objective.evaluate(x + h * s).gradient, below = objective.evaluate(x - h * s).gradient;
  const VectorXd difference = (above - below) / (2 * h);

  EXPECT_NEAR(trials[0].change, far, 1e-13 * (std::abs(value) + std::abs(far)));
  // Differences of values would have an error of eps / 1e-7 here.
  EXPECT_NEAR(trials[1].change / 1e-7, gradient.dot(s) + 0.5e-7 * s.dot(product), 1e-9 * gradient.norm() * s.norm());
  EXPECT_LE((difference - product).norm(), 1e-6 * product.norm());  // h^2 and eps / h
}

struct Solve {
  std::string name;
  AttentionMethod method;
  AttentionModel model;
  Index rank;
  Shape shape;
};

class AttentionPlanted : public Attention, public testing::WithParamInterface<Solve> {};

INSTANTIATE_TEST_SUITE_P(
    All, AttentionPlanted,
    testing::Values(
        Solve{"dense", AttentionMethod::varpro, AttentionModel::dense, 0, {}},
        Solve{"kronecker", AttentionMethod::varpro, AttentionModel::kronecker, 0, {}},
        Solve{"low_rank_dense", AttentionMethod::varpro, AttentionModel::dense, 2, {}},
        Solve{"low_rank_kronecker", AttentionMethod::varpro, AttentionModel::kronecker, 2, {}},
        Solve{"varpro", AttentionMethod::varpro, AttentionModel::dense, 0, {40, 24, 4, 3, 3, 2}},
        Solve{"joint", AttentionMethod::joint, AttentionModel::dense, 0, {40, 24, 4, 3, 3, 2}},
        Solve{"varpro_kronecker", AttentionMethod::varpro, AttentionModel::kronecker, 0, {40, 24, 4, 3, 3, 2}},
        Solve{"joint_kronecker", AttentionMethod::joint, AttentionModel::kronecker, 0, {40, 24, 4, 3, 3, 2}},
        Solve{"low_rank_varpro", AttentionMethod::varpro, AttentionModel::dense, 2, {40, 24, 4, 3, 3, 2}},
        Solve{"low_rank_joint", AttentionMethod::joint, AttentionModel::dense, 2, {40, 24, 4, 3, 3, 2}}),
    [](const auto& test) { return test.param.name; });

TEST_P(AttentionPlanted, IsRecovered) {
  const Solve& solve = GetParam();
  const Planted planted = plant(solve.shape, 2, 1.0, 3, 11);
  AttentionOptions options;
  options.method = solve.method;
  options.model = solve.model;
  options.rank = solve.rank;
  options.newton.relative_tolerance = 1e-10;
  const auto result = solve_attention(comm_, sequences(planted), options);
  EXPECT_TRUE(result.summary.termination == Termination::converged ||
              result.summary.termination == Termination::converged_rounding)
      << termination_name(result.summary.termination);
  EXPECT_LE(result.error, 1e-7);  // residuals are |g| over singular values of the Jacobian, some 1e-2 here
  EXPECT_LE((result.unknowns.X - planted.unknowns.X).norm(), 1e-6 * planted.unknowns.X.norm());
  EXPECT_LE((result.unknowns.Y - planted.unknowns.Y).norm(), 1e-6 * planted.unknowns.Y.norm());
  EXPECT_EQ(result.P.cols(), solve.rank);
  if (solve.rank > 0) {
    EXPECT_LE((result.P * result.Q.transpose() - result.unknowns.X).norm(), 1e-14 * result.unknowns.X.norm());
  }
}

// Two sequences are the same as one with the rows of both where they have the keys in common.
TEST_F(Attention, SequencesAreSums) {
  Planted planted = plant({}, 2, 1.0, 2, 3);
  planted.sequences[1].keys = planted.sequences[0].keys;
  Whole both = planted.sequences[0];
  for (auto member : {&Whole::queries, &Whole::target}) {
    const RowMajorMatrix first = planted.sequences[0].*member, second = planted.sequences[1].*member;
    (both.*member).resize(first.rows() + second.rows(), first.cols());
    both.*member << first, second;
  }
  const AttentionUnknowns at{reference::random_matrix(4, 3, 9), RowMajorMatrix(0, 0)};
  const auto apart = evaluate_attention(comm_, sequences(planted), "softmax", at, false);
  const auto together =
      evaluate_attention(comm_, {distributed(comm_, both, reference::Layout::even)}, "softmax", at, false);
  EXPECT_NEAR(apart.value, together.value, 100 * reference::eps * together.value);
  EXPECT_LE((apart.gradient.X - together.gradient.X).norm(), 1000 * reference::eps * together.gradient.X.norm());
}

TEST_F(Attention, OverflowIsInfinityNotNaN) {
  Whole whole{RowMajorMatrix::Constant(3, 1, 800),
              RowMajorMatrix::Identity(2, 2).leftCols(1),
              RowMajorMatrix::Constant(3, 2, 0.5),
              {},
              {}};
  const std::vector all{distributed(comm_, whole, reference::Layout::even)};
  const AttentionUnknowns at{RowMajorMatrix::Ones(1, 1), RowMajorMatrix(0, 0)};
  const auto rescaled = evaluate_attention(comm_, all, "rescaled-exp", at, false);
  EXPECT_EQ(rescaled.value, std::numeric_limits<double>::infinity());

  // A step that overflows is refused, and a start that does is a breakdown with a finite X.
  AttentionOptions options;
  options.loss = "rescaled-exp";
  options.start = Start::given;
  options.x0 = at;
  const auto broken = solve_attention(comm_, all, options);
  EXPECT_EQ(broken.summary.termination, Termination::breakdown);
  options.start = Start::zero;
  options.newton.max_iterations = 30;
  const auto solved = solve_attention(comm_, all, options);
  EXPECT_TRUE(std::isfinite(solved.summary.value));
  EXPECT_TRUE(solved.unknowns.X.allFinite());

  const auto normalised = evaluate_attention(comm_, all, "softmax", at, false);
  EXPECT_DOUBLE_EQ(normalised.value, 0.75);  // F = (1, 0): 3 rows with 1/2 (1/4 + 1/4)
}

TEST_F(Attention, Warnings) {
  const auto warnings = [&](Whole whole, const std::string& loss) {
    AttentionOptions options;
    options.loss = loss;
    options.newton.max_iterations = 0;
    return solve_attention(comm_, {distributed(comm_, whole, reference::Layout::even)}, options).warnings;
  };
  const auto says = [](const std::vector<std::string>& lines, const std::string& text) {
    return std::any_of(lines.begin(), lines.end(), [&](const auto& line) { return line.find(text) != line.npos; });
  };
  const Whole good = plant({}, 2, 1.0, 1, 3).sequences[0];
  EXPECT_TRUE(warnings(good, "softmax").empty());
  EXPECT_TRUE(says(warnings(good, "rescaled-exp"), "infimum 0"));
  EXPECT_FALSE(says(warnings(good, "rescaled-exp"), "no solution"));

  Whole weighted = good;
  weighted.weights = RowMajorMatrix::Constant(40, 24, 1e-3);
  EXPECT_TRUE(warnings(weighted, "rescaled-exp").empty());

  Whole off = good;
  off.target *= 1.5;
  EXPECT_TRUE(says(warnings(off, "rescaled-exp"), "no solution"));
  EXPECT_TRUE(says(warnings(off, "softmax"), "no distributions"));

  Whole biased = good;
  biased.keys.col(0).setOnes();
  EXPECT_TRUE(says(warnings(biased, "softmax"), "ones vector"));
}

TEST_F(Attention, WrongArgumentsFailOnAllRanks) {
  const Whole good = plant({40, 24, 4, 3, 2, 2}, 2, 1.0, 1, 3).sequences[0];
  const auto fails = [&](const std::vector<AttentionSequence>& all, const AttentionOptions& options) {
    bool thrown = false;
    try {
      solve_attention(comm_, all, options);
    } catch (const InvalidArgument& error) {
      thrown = error.scope() == Error::Scope::all_ranks;
    }
    return comm_.sum(thrown ? 1.0 : 0.0) == comm_.size();
  };
  const auto sequence = [&] { return distributed(comm_, good, reference::Layout::even); };
  EXPECT_TRUE(fails({}, {}));
  AttentionSequence wrong = sequence();
  if (comm_.is_root()) wrong.target(0, 0) = std::numeric_limits<double>::quiet_NaN();  // on one rank
  EXPECT_TRUE(fails({wrong}, {}));
  wrong = sequence();
  wrong.weights = RowMajorMatrix::Zero(wrong.target.rows(), 24);
  EXPECT_TRUE(fails({wrong}, {}));
  wrong = sequence();
  wrong.values = RowMajorMatrix::Zero(23, 2);
  EXPECT_TRUE(fails({wrong}, {}));
  wrong = sequence();
  wrong.values.reset();
  EXPECT_TRUE(fails({sequence(), wrong}, {}));
  AttentionOptions options;
  options.loss = "rescaled-exp";
  EXPECT_TRUE(fails({sequence()}, options));
  options = {};
  options.rank = 4;
  EXPECT_TRUE(fails({sequence()}, options));
  options = {};
  options.start = Start::cross_entropy;
  EXPECT_TRUE(fails({sequence()}, options));
  options.start = Start::given;
  options.x0.X = RowMajorMatrix::Zero(3, 4);
  EXPECT_TRUE(fails({sequence()}, options));
}

TEST_F(Attention, RandomStartsKeepTheLowestThatConverges) {
  const Planted planted = plant({40, 24, 4, 3, 3, 2}, 2, 1.0, 1, 3);
  AttentionOptions options;
  options.random_starts = 4;
  const auto result = solve_attention(comm_, sequences(planted), options);
  int starts = 0;
  for (const auto& minimum : result.minima) starts += minimum.starts;
  ASSERT_GT(starts, 1);
  EXPECT_LE(starts, 5);
  EXPECT_NEAR(result.summary.value, result.minima.front().value, 1e-6 * result.minima.back().value);
  const auto again = evaluate_attention(comm_, sequences(planted), "softmax", result.unknowns, false);
  EXPECT_NEAR(again.value, result.summary.value, 1e-12 * result.summary.value + 1e-25);
}

// X stays where it is when no iteration is made, so that L of each start is known; none of them is a minimum.
TEST_F(Attention, RandomStartsKeepTheLowestIfNoneConverges) {
  const Planted planted = plant({40, 24, 4, 3, 3, 2}, 2, 1.0, 1, 3);
  std::vector<double> values;
  AttentionOptions options;
  options.random_starts = 4;
  options.newton.max_iterations = 0;
  options.newton.on_iteration = [&](const IterationRecord& record) { values.push_back(record.value); };
  const auto result = solve_attention(comm_, sequences(planted), options);
  ASSERT_EQ(values.size(), 5u);
  const auto lowest = std::min_element(values.begin(), values.end());
  EXPECT_EQ(result.start, lowest == values.begin() ? Start::zero : Start::random);
  ASSERT_FALSE(result.minima.empty());
  EXPECT_EQ(result.minima.front().termination, Termination::iteration_limit);
  EXPECT_EQ(result.summary.value, *lowest);
  EXPECT_NE(values[1], values[2]);
  const auto again = evaluate_attention(comm_, sequences(planted), "softmax", result.unknowns, false);
  EXPECT_NEAR(again.value, *lowest, 1e-12 * *lowest);
}

TEST_F(Attention, StopsAtLimits) {
  const Planted planted = plant({}, 2, 1.0, 1, 3);
  AttentionOptions options;
  options.start = Start::zero;
  options.newton.max_iterations = 1;
  EXPECT_EQ(solve_attention(comm_, sequences(planted), options).summary.termination, Termination::iteration_limit);
  options.newton.max_iterations = 100;
  options.newton.time_limit_seconds = 1e-9;
  EXPECT_EQ(solve_attention(comm_, sequences(planted), options).summary.termination, Termination::time_limit);
}

}  // namespace attnreg::test_attention
