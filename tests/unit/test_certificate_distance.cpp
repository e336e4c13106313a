// |x - x*| <= the certificate's bound, for every loss, against Newton's method in extended precision. The table of
// docs/certificate.md: ATTNREG_DISTANCE_PROBLEMS=2000 unit_tests --gtest_filter='*CertificateDistance*'.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "certificate/certify.hpp"
#include "certificate_reference.hpp"
#include "newton/minimise.hpp"

namespace attnreg::test_certificate_distance {

using namespace reference;
using Eigen::Index;
using Eigen::VectorXd;

int problems_of_a_loss() {
  const char* const text = std::getenv("ATTNREG_DISTANCE_PROBLEMS");
  return text == nullptr ? 150 : std::atoi(text);
}

/// Makes a problem hostile: nearly dependent columns, columns of other scales, large logits, weights of nearly 0,
/// targets of two rows.
void spoil(CertifiedProblem& problem, int kind, ProblemSource& source) {
  const Index n = problem.A.rows(), d = problem.A.cols();
  if (kind == 1 && d > 1)
    problem.A.col(d - 1) = problem.A.col(0) + source.log_uniform(1e-7, 1e-2) * problem.A.col(d - 1);
  if (kind == 2)
    for (Index j = 0; j < d; ++j) problem.A.col(j) *= source.log_uniform(1e-4, 1e4);
  if (kind == 3) problem.A *= problem.grows() ? 3 : 30;
  if (kind == 4) problem.w *= source.log_uniform(1e-9, 1e-2);
  if (kind == 5) {
    const Index row = source.integer(0, static_cast<int>(n) - 1);
    problem.b = VectorXd::Unit(n, row) * 0.3 + VectorXd::Unit(n, (row + 1) % n) * 0.7;
  }
}

struct Ratios {
  int points = 0, claims = 0;
  std::vector<double> far;  ///< bound / distance, where the distance is not a matter of rounding
};

Ratios check(const std::string& loss, unsigned seed, int problems) {
  ProblemSource source(seed);
  Ratios ratios;
  for (int k = 0; k < problems; ++k) {
    const bool grows = loss != "softmax" && loss != "cross-entropy";
    CertifiedProblem problem = grows ? source.next_growing(loss, 1e-2, 1) : source.next(loss, 1e-2, 1);
    spoil(problem, k % 12, source);
    Instance instance(problem);
    NewtonOptions options;
    options.relative_tolerance = 1e-12;
    const double spread = 0.3 / std::max(1e-300, problem.A.norm() / std::sqrt(static_cast<double>(problem.A.rows())));
    Point point = instance.objective->evaluate(spread * source.normals(problem.A.cols()));
    newton(*instance.objective, point, options);
    const double distance = k % 10 == 0 ? 0 : source.log_uniform(1e-13, 1);
    const double size = std::max(spread, point.x.norm());
    const VectorXd x = point.x + distance * size * source.normals(point.x.size()).normalized();
    Point there = instance.objective->evaluate(x);
    const Certificate certificate = certify(*instance.objective, there, {.level = CertificateLevel::full});
    ++ratios.points;
    if (!certificate.distance_bound) continue;
    ++ratios.claims;
    const double bound = *certificate.distance_bound;
    const bool global = certificate.distance_reason.starts_with("global");
    const RealVector end = problem.polish(global ? point.x.cast<Real>() : RealVector(x.cast<Real>()));
    const double actual = static_cast<double>((end - x.cast<Real>()).norm());
    EXPECT_LE(actual, bound) << loss << ", problem " << k << ", " << certificate.distance_reason;
    const double last = static_cast<double>((end - problem.polish(end)).norm());
    EXPECT_LE(last, 1e-3 * bound) << loss << ", problem " << k << ": the reference has not converged";
    if (actual > 1e-8 * size) ratios.far.push_back(bound / actual);
  }
  return ratios;
}

class CertificateDistance : public testing::TestWithParam<const char*> {};

TEST_P(CertificateDistance, IsNeverBelowTheTrueOne) {
  Ratios ratios = check(GetParam(), 11, problems_of_a_loss());
  EXPECT_GT(ratios.claims, ratios.points / 5);
  ASSERT_FALSE(ratios.far.empty());
  std::sort(ratios.far.begin(), ratios.far.end());
  const auto part = [&](double share) {
    return ratios.far[static_cast<std::size_t>(share * static_cast<double>(ratios.far.size()))];
  };
  const double median = part(0.5), largest = ratios.far.back();
  EXPECT_LT(median, 2);
  std::printf("| %s | %d | %d | %zu | %.5f | %.3g | %.2g |\n", GetParam(), ratios.points, ratios.claims,
              ratios.far.size(), median, part(0.9), largest);
}

INSTANTIATE_TEST_SUITE_P(Losses, CertificateDistance,
                         testing::Values("softmax", "cross-entropy", "exp", "cosh", "sinh", "rescaled-exp",
                                         "rescaled-cosh", "rescaled-sinh"));

}  // namespace attnreg::test_certificate_distance
