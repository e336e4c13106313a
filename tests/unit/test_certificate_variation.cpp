// Theorem 2 of docs/certificate.md against Hessians by the definition.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "algebra/dense_factors.hpp"
#include "certificate/hessian_variation.hpp"
#include "certificate_reference.hpp"

namespace attnreg::test_certificate_variation {

using namespace reference;
using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

/// N with (N N^T)^-1 = H, or the positive part where H is not definite; a floor keeps it invertible.
MatrixXd metric(const Hessian& hessian) {
  for (const MatrixXd* matrix : {&hessian.exact, &hessian.positive_part}) {
    const SymmetricEigen eigen = symmetric_eigen(*matrix, true);
    const double largest = eigen.values.maxCoeff();
    if (eigen.values[0] > 1e-9 * largest || matrix == &hessian.positive_part)
      return eigen.vectors * eigen.values.cwiseMax(1e-9 * largest).cwiseSqrt().cwiseInverse().asDiagonal();
  }
  return {};
}

/// |N^T (H(x + N p) - H(x)) N|, and the direction in which it is reached.
struct Variation {
  double size;
  VectorXd direction;
};
Variation variation(const CertifiedProblem& problem, const VectorXd& x, const RealMatrix& H_x, const MatrixXd& N,
                    const VectorXd& p) {
  const RealMatrix n = N.cast<Real>();
  const RealVector y = x.cast<Real>() + n * p.cast<Real>();
  const RealMatrix change = n.transpose() * (problem.hessian(y) - H_x) * n;
  const Eigen::SelfAdjointEigenSolver<RealMatrix> eigen(change);
  Index k = 0;
  const Real size = eigen.eigenvalues().cwiseAbs().maxCoeff(&k);
  return {static_cast<double>(size), eigen.eigenvectors().col(k).cast<double>()};
}

/// The largest variation found on the sphere of the radius: random directions, rows of A, and the power method for
/// symmetric trilinear forms.
double largest_variation(const CertifiedProblem& problem, const VectorXd& x, const MatrixXd& N, double radius,
                         ProblemSource& source) {
  const Index d = x.size(), n = problem.A.rows();
  VectorXd centre = problem.A.transpose() * problem.fitted(x.cast<Real>()).cast<double>();
  if (problem.grows()) centre.setZero();
  const RealMatrix H_x = problem.hessian(x.cast<Real>());
  double largest = 0;
  for (int trial = 0; trial < 6; ++trial) {
    VectorXd p = source.normals(d);
    const Index row = source.integer(0, static_cast<int>(n) - 1);
    if (trial % 3 == 0) p = N.transpose() * (problem.A.row(row).transpose() - centre);
    for (int k = 0; k < 3 && p.norm() > 0; ++k) {
      const VectorXd step = radius * p.normalized();
      const Variation back = variation(problem, x, H_x, N, -step), forth = variation(problem, x, H_x, N, step);
      largest = std::max({largest, back.size, forth.size});
      p = forth.direction;
    }
  }
  return largest;
}

PointRows point_rows(const CertifiedProblem& problem, const RegressionObjective& objective, const Point& point) {
  const VectorXd error = VectorXd::Constant(problem.b.size(), 1e-15);
  const RegressionState& state = objective.state_of(point);
  return {objective.fitted(point), problem.b, objective.curvatures(point).delta, error, state.z, state.loss};
}

/// Counts of |H(y) - H(x)| against its bound.
struct Tightness {
  double worst = 0, sum = 0;
  int small_balls = 0;
};

Tightness check_bound(const std::string& loss, unsigned seed, int problems) {
  ProblemSource source(seed);
  Tightness tightness;
  for (int k = 0; k < problems; ++k) {
    const bool grows = loss != "softmax" && loss != "cross-entropy";
    const CertifiedProblem problem = grows ? source.next_growing(loss, 1e-3, 1) : source.next(loss, 1e-3, 1);
    Instance instance(problem);
    const VectorXd x = source.log_uniform(0.01, 3) * source.normals(problem.A.cols());
    RegressionObjective& objective = *instance.objective;
    const Point point = objective.evaluate(x);
    const Hessian hessian = objective.hessian(point);
    const MatrixXd N = metric(hessian);
    const PointRows rows = point_rows(problem, objective, point);
    const RegressionState& state = objective.state_of(point);
    const auto made = hessian_variation(instance.A, rows, loss_bounds(loss), {state.centre, state.coupled_centre, N});
    const HessianVariation& variation = *made;
    if (variation.row_distance() == 0) continue;
    const double t = source.log_uniform(1e-6, 1), radius = t / variation.row_distance();
    const double bound = variation.bound(radius) * radius, actual = largest_variation(problem, x, N, radius, source);
    // The reference is a difference of Hessians in extended precision, each from n^2 terms.
    const double doubt = 1e-17 * N.squaredNorm() * hessian.positive_part.norm();
    EXPECT_LE(actual, bound + doubt) << loss << ", problem " << k << ", t " << t;
    if (doubt > 1e-3 * bound) continue;
    tightness.worst = std::max(tightness.worst, actual / bound);
    if (t > 1e-2) continue;
    tightness.sum += actual / bound;
    ++tightness.small_balls;
  }
  return tightness;
}

TEST(HessianVariation, BoundsTheHessianInTheBallForSoftmax) {
  const Tightness tightness = check_bound("softmax", 1, 600);
  EXPECT_GT(tightness.sum / tightness.small_balls, 0.2);
  RecordProperty("worst", std::to_string(tightness.worst));
  RecordProperty("mean", std::to_string(tightness.sum / tightness.small_balls));
  RecordProperty("count", tightness.small_balls);
}

TEST(HessianVariation, BoundsTheHessianInTheBallForCrossEntropy) {
  const Tightness tightness = check_bound("cross-entropy", 2, 300);
  EXPECT_GT(tightness.sum / tightness.small_balls, 0.3);
  RecordProperty("worst", std::to_string(tightness.worst));
  RecordProperty("mean", std::to_string(tightness.sum / tightness.small_balls));
}

class GrowingVariation : public testing::TestWithParam<const char*> {};

TEST_P(GrowingVariation, BoundsTheHessianInTheBall) {
  const Tightness tightness = check_bound(GetParam(), 4, 200);
  EXPECT_GT(tightness.worst, 0.5);
  EXPECT_GT(tightness.sum / tightness.small_balls, 0.03);
  RecordProperty("worst", std::to_string(tightness.worst));
  RecordProperty("mean", std::to_string(tightness.sum / tightness.small_balls));
}

INSTANTIATE_TEST_SUITE_P(Losses, GrowingVariation,
                         testing::Values("exp", "cosh", "sinh", "rescaled-exp", "rescaled-cosh", "rescaled-sinh"));

TEST(HessianVariation, RefusesABallInWhichSoftmaxMayBeAnything) {
  ProblemSource source(3);
  const CertifiedProblem problem = source.next("softmax", 0.1, 1);
  Instance instance(problem);
  RegressionObjective& objective = *instance.objective;
  const Point point = objective.evaluate(VectorXd::Zero(problem.A.cols()));
  const MatrixXd N = MatrixXd::Identity(problem.A.cols(), problem.A.cols());
  const PointRows rows = point_rows(problem, objective, point);
  const RegressionState& state = objective.state_of(point);
  const auto made =
      hessian_variation(instance.A, rows, loss_bounds("softmax"), {state.centre, state.coupled_centre, N});
  const HessianVariation& variation = *made;
  const double reads = instance.A.reads();
  EXPECT_TRUE(std::isinf(variation.bound(31 / variation.row_distance())));
  EXPECT_TRUE(std::isinf(variation.bound(std::numeric_limits<double>::quiet_NaN())));
  EXPECT_EQ(instance.A.reads(), reads);
  EXPECT_TRUE(std::isfinite(variation.bound(0)));
}

}  // namespace attnreg::test_certificate_variation
