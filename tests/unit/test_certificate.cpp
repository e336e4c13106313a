// What a certificate claims against precise minimisers.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "attnreg/solver.hpp"
#include "certificate/certify.hpp"
#include "certificate_reference.hpp"
#include "newton/minimise.hpp"

namespace attnreg::test_certificate {

using namespace reference;
using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

Certificate full_certificate(Instance& instance, const VectorXd& x) {
  Point point = instance.objective->evaluate(x);
  return certify(*instance.objective, point, {.level = CertificateLevel::full});
}

/// A minimiser, as precise as double can say it.
VectorXd minimiser(const CertifiedProblem& problem, Instance& instance, const VectorXd& x0) {
  NewtonOptions options;
  options.relative_tolerance = 1e-12;
  Point point = instance.objective->evaluate(x0);
  newton(*instance.objective, point, options);
  return problem.polish(point.x.cast<Real>()).cast<double>();
}

/// Counts of the claims about points at known distances from a minimiser.
struct Claims {
  int made = 0, near = 0, made_near = 0;
  double tightest = 0;  ///< largest |x - x*| / bound
};

// A claim is checked against where Newton's method in extended precision goes from the point: the bound says that this
// is within reach and unique.
void check_distances(const std::string& loss, unsigned seed, int problems, Claims& claims) {
  ProblemSource source(seed);
  for (int k = 0; k < problems; ++k) {
    const CertifiedProblem problem = source.next(loss, 1e-2, 1);
    Instance instance(problem);
    const VectorXd best = minimiser(problem, instance, 0.1 * source.normals(problem.A.cols()));
    const double distance = k % 10 == 0 ? 0 : source.log_uniform(1e-13, 10);
    const VectorXd x = best + distance * source.normals(best.size()).normalized();
    const Certificate certificate = full_certificate(instance, x);
    const bool near = distance < 1e-6 && certificate.smallest_eigenvalue > 1e-3 * certificate.largest_eigenvalue;
    claims.near += near;
    if (!certificate.distance_bound) {
      EXPECT_TRUE(certificate.distance_reason.starts_with("not available: ")) << certificate.distance_reason;
      continue;
    }
    ++claims.made;
    claims.made_near += near;
    const bool global = certificate.distance_reason.starts_with("global");
    const RealVector end = problem.polish(global ? best.cast<Real>() : RealVector(x.cast<Real>()));
    const double actual = static_cast<double>((end - x.cast<Real>()).norm());
    EXPECT_LE(actual, *certificate.distance_bound)
        << loss << ", problem " << k << ", distance " << distance << ": " << certificate.distance_reason;
    if (distance > 1e-10) claims.tightest = std::max(claims.tightest, actual / *certificate.distance_bound);
  }
}

TEST(Certificate, BoundsTheDistanceToTheMinimiserForSoftmax) {
  Claims claims;
  check_distances("softmax", 1, 600, claims);
  EXPECT_EQ(claims.made_near, claims.near);
  EXPECT_GT(claims.near, 50);
  EXPECT_GT(claims.tightest, 0.9);
  RecordProperty("made", claims.made);
}

TEST(Certificate, BoundsTheDistanceToTheMinimiserForCrossEntropy) {
  Claims claims;
  check_distances("cross-entropy", 2, 300, claims);
  EXPECT_EQ(claims.made, 300);  // it is strongly convex: there is always a bound
  EXPECT_GT(claims.tightest, 0.9);
}

// Far from a minimum, where the Hessian is indefinite or changes too fast, nothing local may be claimed.
TEST(Certificate, ClaimsNothingFarAway) {
  ProblemSource source(4);
  int claims = 0;
  for (int k = 0; k < 200; ++k) {
    const CertifiedProblem problem = source.next("softmax", 1e-3, 1e-2);
    Instance instance(problem);
    const VectorXd x = 3 * source.normals(problem.A.cols());
    const Certificate certificate = full_certificate(instance, x);
    if (!certificate.distance_bound) continue;
    ++claims;
    const RealVector end = problem.polish(x.cast<Real>());
    EXPECT_LE(static_cast<double>((end - x.cast<Real>()).norm()), *certificate.distance_bound) << "problem " << k;
  }
  EXPECT_LT(claims, 100);
}

TEST(Certificate, TellsMinimaFromSaddles) {
  ProblemSource source(5);
  int minima = 0, saddles = 0;
  for (int k = 0; k < 200; ++k) {
    const CertifiedProblem problem = source.next("softmax", 1e-4, 1e-2);
    Instance instance(problem);
    const VectorXd x =
        k % 2 == 0 ? VectorXd::Zero(problem.A.cols()) : minimiser(problem, instance, VectorXd::Zero(problem.A.cols()));
    const Certificate certificate = full_certificate(instance, x);
    const Eigen::SelfAdjointEigenSolver<RealMatrix> eigen(problem.hessian(x.cast<Real>()));
    const double smallest = static_cast<double>(eigen.eigenvalues()[0]);
    EXPECT_NEAR(certificate.smallest_eigenvalue, smallest, certificate.eigenvalue_rounding) << "problem " << k;
    EXPECT_NEAR(certificate.largest_eigenvalue, static_cast<double>(eigen.eigenvalues().maxCoeff()),
                certificate.eigenvalue_rounding);
    if (certificate.kind == StationaryKind::saddle) {
      EXPECT_LT(smallest, 0);
      EXPECT_FALSE(certificate.distance_bound.has_value());
      EXPECT_TRUE(std::isnan(certificate.newton_decrement));
      ++saddles;
    } else if (certificate.kind == StationaryKind::local_minimum) {
      EXPECT_GT(smallest, 0);
      EXPECT_TRUE(std::isfinite(certificate.newton_decrement));
      ++minima;
    }
  }
  EXPECT_GT(saddles, 20);
  EXPECT_GT(minima, 100);
}

// Where u(z) = b and u'(z) is nearly 0 the curvature of a row is a small difference: that of cosh at z = 0, b = 1.
TEST(Certificate, RoundingCoversRowsOfCancellingCurvature) {
  ProblemSource source(9);
  for (int k = 0; k < 800; ++k) {
    const char* const losses[] = {"cosh", "rescaled-cosh", "sinh", "exp", "rescaled-exp", "rescaled-sinh"};
    CertifiedProblem problem = source.next_growing(losses[k % 3 == 0 ? k % 6 : k % 2], 1e-3, 1);
    problem.w.setZero();
    const double size = source.log_uniform(1e-10, 1);
    const VectorXd x = size * source.normals(problem.A.cols());
    RealVector u, v;
    problem.grow(problem.A.cast<Real>() * x.cast<Real>(), u, v);
    problem.b = u.cast<double>();
    if (problem.is_rescaled()) problem.b = (u / u.sum()).cast<double>();
    if (problem.is_rescaled() && !(std::abs(u.sum()) > 1e-3)) continue;
    Instance instance(problem);
    const Certificate certificate = full_certificate(instance, x);
    const Eigen::SelfAdjointEigenSolver<RealMatrix> eigen(problem.hessian(x.cast<Real>()));
    const double smallest = static_cast<double>(eigen.eigenvalues()[0]);
    EXPECT_NEAR(certificate.smallest_eigenvalue, smallest, certificate.eigenvalue_rounding)
        << problem.loss << ", problem " << k;
    EXPECT_FALSE(certificate.kind == StationaryKind::saddle && smallest >= 0) << problem.loss << ", problem " << k;
    EXPECT_FALSE(certificate.kind == StationaryKind::local_minimum && smallest <= 0) << problem.loss << ", " << k;
  }
}

TEST(Certificate, SingularHessiansAreDegenerateWithoutNaN) {
  ProblemSource source(6);
  CertifiedProblem problem{"softmax", RowMajorMatrix(20, 3), VectorXd::Constant(20, 0.05), VectorXd::Zero(20)};
  for (Index i = 0; i < 20; ++i) problem.A.row(i) << source.normal(), 1, source.normal();
  problem.b = problem.fitted(RealVector::Ones(3)).cast<double>();
  Instance instance(problem);
  const Certificate ones = full_certificate(instance, VectorXd::Ones(3));
  EXPECT_EQ(ones.kind, StationaryKind::degenerate);
  EXPECT_FALSE(ones.distance_bound.has_value());
  EXPECT_TRUE(ones.distance_reason.starts_with("not available: the Hessian at x is not positive definite"));
  EXPECT_TRUE(std::isfinite(ones.smallest_eigenvalue) && std::isfinite(ones.gradient_floor));

  problem.A.setZero();
  Instance nothing(problem);
  const Certificate zero = full_certificate(nothing, VectorXd::Zero(3));
  EXPECT_EQ(zero.kind, StationaryKind::degenerate);
  EXPECT_EQ(zero.gradient_norm, 0);
  EXPECT_FALSE(zero.distance_bound.has_value());
}

TEST(Certificate, PapersRegimeIsCertifiedGlobally) {
  ProblemSource source(7);
  for (int k = 0; k < 50; ++k) {
    CertifiedProblem problem = source.next("softmax", 1, 1);
    problem.b /= std::max(1.0, problem.b.lpNorm<1>());
    problem.A /= problem.A.norm();
    problem.w.setConstant(11);
    Instance instance(problem);
    const VectorXd x0 = VectorXd::Constant(problem.A.cols(), 1e-3);
    const VectorXd best = minimiser(problem, instance, x0);
    Point point = instance.objective->evaluate(best);
    const Certificate certificate = certify(*instance.objective, point, {.level = CertificateLevel::full, .x0 = best});
    if (certificate.kind == StationaryKind::degenerate) continue;
    EXPECT_GT(certificate.convexity, 0);
    EXPECT_LE(certificate.convexity, certificate.smallest_eigenvalue);
    ASSERT_EQ(certificate.assumptions.size(), 11U);
    for (const Assumption& row : certificate.assumptions) {
      if (row.name == "good start (papers)") continue;  // n^1.5 exp(30 R^2) makes it a matter of rounding even here
      EXPECT_TRUE(row.holds) << row.name << ": " << row.statement << ", " << row.value << ", " << row.required;
    }
  }
}

TEST(Certificate, LevelsCostWhatTheySay) {
  ProblemSource source(8);
  const CertifiedProblem problem = source.next("softmax", 0.1, 0.1);
  Instance instance(problem);
  const VectorXd x = VectorXd::Ones(problem.A.cols());
  auto& objective = *instance.objective;
  Point point = objective.evaluate(x);
  EXPECT_EQ(certify(objective, point, {.level = CertificateLevel::none}).reads, 0);
  const Certificate fresh = certify(objective, point, {.gradient_reference = 2});
  EXPECT_EQ(fresh.reads, 0);
  EXPECT_DOUBLE_EQ(fresh.gradient_norm, point.gradient.norm());  // in the caller's units and back
  EXPECT_DOUBLE_EQ(fresh.relative_gradient, fresh.gradient_norm / 2);
  EXPECT_EQ(fresh.kind, StationaryKind::unknown);

  point = objective.step(std::move(point), objective.direction(x), {.t = 0.5});
  EXPECT_EQ(certify(objective, point, {}).reads, 1);
  const Certificate full = certify(objective, point, {.level = CertificateLevel::full});
  EXPECT_LE(full.reads, 8);
  const Certificate refused = certify(objective, point, {.level = CertificateLevel::full, .largest_dimension = 0});
  EXPECT_EQ(refused.reads, 0);
  EXPECT_EQ(refused.kind, StationaryKind::unknown);
  EXPECT_NE(refused.distance_reason.find("above the limit"), std::string::npos);
}

}  // namespace attnreg::test_certificate
