#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <cmath>
#include <limits>
#include <random>

#include "algebra/dense_factors.hpp"
#include "newton/trust_region.hpp"
#include "support/dense_algebra.hpp"
#include "support/reference.hpp"

namespace attnreg::test_linear_solver {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kSlack = 0.1;    // the accepted distance of |s|_M from the radius, relative
constexpr double kRidge = 2e-13;  // relative to the diagonal of M, what the solver adds to tame singular directions

MatrixXd random_gram(Index d, Index rank, std::uint64_t seed) {
  const MatrixXd B = reference::random_matrix(d, rank, seed);
  return B * B.transpose();
}

/// H = M - N, positive semidefinite M and N of any rank: as the Hessians of this project, H <= M.
struct Model {
  MatrixXd H, M;
  VectorXd g;

  double value(const VectorXd& s) const { return g.dot(s) + 0.5 * s.dot(H * s); }
  double norm(const VectorXd& s) const { return std::sqrt(s.dot(M * s)); }
  TrustRegionStep step(double radius) const { return trust_region_step(H, M, M.diagonal(), g, radius); }
};

Model random_model(Index d, double negative, std::uint64_t seed) {
  Model model{{}, random_gram(d, d + 2, seed), reference::random_vector(d, seed + 1)};
  model.H = model.M - negative * random_gram(d, (d + 1) / 2, seed + 2);
  return model;
}

/// H and g in the basis of generalised eigenvectors, V^T M V = I and V^T H V = diag(curvatures); M definite.
struct Spectrum {
  VectorXd curvatures, g;

  explicit Spectrum(const Model& model) {
    const auto pairs = reference::eigen_pairs(model.H, model.M);
    curvatures = pairs.values;
    g = pairs.vectors.transpose() * model.g;
  }
  /// Sum of g_k^2 / (curvature_k + shift)^power; 0 / 0, the hard case, counts as 0.
  double sum(double shift, int power) const {
    double total = 0;
    for (Index k = 0; k < g.size(); ++k)
      if (g[k] * g[k] > 1e-30 * g.squaredNorm()) total += g[k] * g[k] / std::pow(curvatures[k] + shift, power);
    return total;
  }

  /// The least value of the model in |s|_M <= radius, by duality: for any shift with H + shift M >= 0 it is at least
  /// -1/2 (g^T (H + shift M)^-1 g + shift radius^2), and the best shift attains it.
  double least_value(double radius) const {
    double low = std::max(0.0, -curvatures[0]), high = low + g.norm() / radius + 1;
    for (int k = 0; k < 200; ++k) {
      const double middle = (low + high) / 2;
      (sum(middle, 2) > radius * radius ? low : high) = middle;
    }
    return -0.5 * (sum(high, 1) + high * radius * radius);
  }
};

/// (H + shift M) s = -g up to the rounding of a Cholesky solve, |residual| <= c d eps |H + shift M| |s|, and the ridge.
void expect_stationary(const Model& model, const TrustRegionStep& step) {
  const double d = static_cast<double>(model.g.size());
  const MatrixXd shifted = model.H + step.shift * model.M;
  const double scale = (shifted.norm() + model.M.norm()) * step.s.norm() + model.g.norm();
  EXPECT_LE((shifted * step.s + model.g).norm(), (4 * d * reference::eps + kRidge * (1 + step.shift)) * scale);
}

void expect_positive_semidefinite(const MatrixXd& matrix) {
  const double least = reference::eigenvalues(matrix)[0];
  EXPECT_GE(least, -1e-12 * matrix.norm());  // the ridge and the rounding of the factorization
}

/// No point within (1 - slack) of the radius is better by more than the slack of the hard case. For a quadratic model m
/// with m(0) = 0 and c < 1, the least value within c radius is at most c^2 times the one within the radius.
void expect_nearly_optimal(const Model& model, const TrustRegionStep& step, double radius) {
  const double needed = (1 - kSlack) * (1 - kSlack) * (1 - kSlack);
  EXPECT_LE(model.norm(step.s), (1 + kSlack) * radius * (1 + 1e-9));
  EXPECT_LE(model.value(step.s), needed * Spectrum(model).least_value(radius) * (1 - 1e-9));
}

TEST(Cholesky, SolvesAndReadsTheLowerTriangleOnly) {
  const MatrixXd matrix = random_gram(20, 25, 1);
  MatrixXd lower = matrix.triangularView<Eigen::Lower>();
  lower.triangularView<Eigen::StrictlyUpper>().setConstant(kNaN);
  const VectorXd x = reference::random_vector(20, 2);
  Cholesky cholesky;
  EXPECT_TRUE(cholesky.factor(lower));
  const VectorXd eigenvalues = reference::eigenvalues(matrix);
  const double condition = eigenvalues[19] / eigenvalues[0];
  EXPECT_LE((cholesky.solve(matrix * x) - x).norm(), 20 * reference::eps * condition * x.norm());
}

TEST(Cholesky, RefusesWhatIsNotDefiniteOrNotFinite) {
  Cholesky cholesky;
  EXPECT_FALSE(cholesky.factor(-MatrixXd::Identity(3, 3)));
  EXPECT_FALSE(cholesky.factor(MatrixXd::Zero(3, 3)));
  EXPECT_FALSE(cholesky.factor(MatrixXd::Ones(3, 3) - 2 * MatrixXd::Identity(3, 3)));
  for (const double bad : {kNaN, kInfinity, -kInfinity})
    for (const auto& [row, column] : {std::pair{0, 0}, {2, 1}, {2, 2}}) {
      MatrixXd matrix = MatrixXd::Identity(3, 3);
      matrix(row, column) = bad;
      EXPECT_FALSE(cholesky.factor(matrix)) << bad << " at " << row << ", " << column;
    }
  MatrixXd large = 1e300 * MatrixXd::Identity(2, 2);
  large(1, 0) = 1e300;
  large(1, 1) = 1.5e300;
  EXPECT_TRUE(cholesky.factor(large));
  EXPECT_TRUE(cholesky.factor(MatrixXd::Identity(3, 3)));  // usable after a refusal
}

TEST(TrustRegionStep, IsNewtonsStepWhenThatIsInside) {
  const Model model = random_model(8, 0, 1);
  const VectorXd newton = -reference::solved(model.H, model.g);
  for (const double radius : {kInfinity, 1.2 * model.norm(newton)}) {
    const auto step = model.step(radius);
    EXPECT_TRUE(step.finite);
    EXPECT_FALSE(step.on_boundary);
    EXPECT_EQ(step.shift, 0);
    EXPECT_NEAR(step.length, model.norm(newton), 1e-9 * step.length);
    expect_stationary(model, step);
  }
}

TEST(TrustRegionStep, RandomProblemsMeetTheOptimalityConditions) {
  std::mt19937_64 engine(7);
  std::uniform_real_distribution<double> exponent(-3, 3);
  int inside = 0, boundary = 0, indefinite = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE("problem " + std::to_string(seed));
    const Model model = random_model(1 + static_cast<Index>(seed % 12), std::abs(exponent(engine)) / 3, 10 * seed);
    const double radius = std::pow(10, exponent(engine)) * std::sqrt(model.g.squaredNorm() / model.M.norm());
    const auto step = model.step(radius);
    EXPECT_TRUE(step.finite);
    if (!step.finite) continue;
    EXPECT_GE(step.shift, 0);
    EXPECT_NEAR(step.length, model.norm(step.s), 1e-9 * step.length);
    expect_positive_semidefinite(model.H + step.shift * model.M);
    expect_nearly_optimal(model, step, radius);
    if (step.length < radius) expect_stationary(model, step);  // else possibly the hard case
    const double gap = step.shift > 0 ? std::abs(step.length - radius) : 0;
    EXPECT_LE(gap, kSlack * radius * (1 + 1e-9));
    (step.on_boundary ? boundary : inside) += 1;
    indefinite += Spectrum(model).curvatures[0] < 0 ? 1 : 0;
  }
  EXPECT_GT(inside, 20);  // all kinds of problems were among them
  EXPECT_GT(boundary, 50);
  EXPECT_GT(indefinite, 50);
}

/// g without any part along the direction of least curvature -1; the boundary is out of reach of (H + shift M)^-1 g.
Model hard_case(const MatrixXd& rotation) {
  const VectorXd curvatures = Eigen::Vector4d(-1, 0.5, 1, 2), g = Eigen::Vector4d(0, 0.1, -0.2, 0.3);
  return {rotation * curvatures.asDiagonal() * rotation.transpose(), 2 * MatrixXd::Identity(4, 4), rotation * g};
}

TEST(TrustRegionStep, HardCaseReachesTheBoundary) {
  const MatrixXd random = reference::random_matrix(4, 4, 3);
  const MatrixXd rotation = random.householderQr().householderQ();
  for (const MatrixXd& basis : {rotation, MatrixXd(MatrixXd::Identity(4, 4))}) {  // rounding does not help the latter
    const Model model = hard_case(basis);
    for (const double radius : {1.0, 100.0}) {
      const auto step = model.step(radius);
      EXPECT_TRUE(step.finite && step.on_boundary);
      expect_nearly_optimal(model, step, radius);
    }
  }
}

TEST(TrustRegionStep, LeavesASaddlePoint) {
  Model model = hard_case(MatrixXd::Identity(4, 4));
  model.g.setZero();
  const auto step = model.step(1);
  EXPECT_TRUE(step.finite);
  EXPECT_LE(model.norm(step.s), 1 + kSlack);
  EXPECT_LT(model.value(step.s), -0.1);  // the least value is -1/4: |s|^2 = 1/2 along the first axis
}

TEST(TrustRegionStep, AnIndefiniteHessianWithoutARadiusGetsAScale) {
  const Model model = random_model(6, 1, 4);
  EXPECT_LT(Spectrum(model).curvatures[0], 0);
  const auto step = model.step(kInfinity);
  EXPECT_TRUE(step.finite && step.on_boundary);
  EXPECT_GE(step.shift, 1);
  EXPECT_LT(model.g.dot(step.s), 0);
  expect_positive_semidefinite(model.H + step.shift * model.M);
  expect_stationary(model, step);
}

TEST(TrustRegionStep, DirectionsWithoutCurvatureStayPut) {
  Model model = random_model(6, 0.3, 5);
  for (const Index j : {0, 3}) {  // zero columns of A
    model.H.row(j).setZero();
    model.H.col(j).setZero();
    model.M.row(j).setZero();
    model.M.col(j).setZero();
    model.g[j] = 0;
  }
  for (const double radius : {kInfinity, 0.1}) {
    const auto step = model.step(radius);
    EXPECT_TRUE(step.finite);
    EXPECT_EQ(step.s[0], 0);
    EXPECT_EQ(step.s[3], 0);
    EXPECT_LT(model.value(step.s), 0);
    EXPECT_LT(step.s.norm(), 1e3);
  }
}

TEST(TrustRegionStep, EqualColumnsDoNotBlowUp) {
  const MatrixXd A = reference::random_matrix(9, 3, 6);
  MatrixXd doubled(9, 6);
  doubled << A, A;
  const VectorXd u = reference::random_vector(9, 7);
  const Model model{doubled.transpose() * doubled, doubled.transpose() * doubled, doubled.transpose() * u};
  const auto step = model.step(kInfinity);
  const VectorXd single = -reference::solved(A.transpose() * A, A.transpose() * u);
  EXPECT_TRUE(step.finite);
  // The rounding of g along the null space, d eps, over the ridge: 1e-15 / 1e-13, times the condition of A
  EXPECT_LE((step.s.head(3) + step.s.tail(3) - single).norm(), 1e-10 * single.norm());
  EXPECT_LE(step.s.norm(), 2 * single.norm());
}

TEST(TrustRegionStep, NothingToDoWhereAllIsZero) {
  const Model model{MatrixXd::Zero(3, 3), MatrixXd::Zero(3, 3), VectorXd::Zero(3)};
  const auto step = model.step(kInfinity);
  EXPECT_TRUE(step.finite);
  EXPECT_EQ(step.s.norm(), 0);
}

TEST(TrustRegionStep, SaysWhatIsNotFinite) {
  for (const double bad : {kNaN, kInfinity}) {
    Model in_H = random_model(4, 0, 8), in_M = in_H, in_g = in_H;
    in_H.H(1, 2) = bad;
    in_M.M(3, 3) = bad;
    in_g.g[2] = bad;
    for (const Model* model : {&in_H, &in_M, &in_g})
      for (const double radius : {1.0, kInfinity}) EXPECT_FALSE(model->step(radius).finite);
  }
}

TEST(TrustRegionStep, WorksAtAnyScale) {
  const Model model = random_model(5, 0.5, 9);
  const auto unit = model.step(0.3);
  for (const double scale : {1e-120, 1e-9, 1e9, 1e120}) {
    const Model scaled{scale * model.H, scale * model.M, scale * model.g};
    const auto step = scaled.step(0.3 * std::sqrt(scale));
    EXPECT_TRUE(step.finite);
    EXPECT_LE((step.s - unit.s).norm(), 1e-9 * unit.s.norm()) << "scale " << scale;
  }
}

TEST(TrustRegionStep, TheCollectiveFormIsTheSame) {
  const Communicator self(MPI_COMM_SELF);
  const Model model = random_model(5, 0.5, 9);
  const VectorXd scale = model.M.diagonal();
  const auto expected = model.step(0.3);
  const auto step = trust_region_step(Hessian{self, model.H, model.M, scale}, model.g, 0.3);
  const auto bad = trust_region_step(Hessian{self, kNaN * model.H, model.M, scale}, model.g, 0.3);
  EXPECT_EQ(step.finite, expected.finite);
  EXPECT_TRUE(step.s == expected.s);
  EXPECT_EQ(step.length, expected.length);
  EXPECT_EQ(step.shift, expected.shift);
  EXPECT_EQ(step.on_boundary, expected.on_boundary);
  EXPECT_FALSE(bad.finite);
}

}  // namespace attnreg::test_linear_solver
