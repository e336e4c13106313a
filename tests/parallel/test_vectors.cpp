// The high-precision reference vectors, each within its own tolerance, however the rows are spread over the ranks.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <limits>

#include "attnreg/solver.hpp"
#include "losses/losses.hpp"
#include "objective/regression_objective.hpp"
#include "ranks/span_of.hpp"
#include "regression/start_point.hpp"
#include "support/reference.hpp"
#include "support/vector_file.hpp"

namespace attnreg::test_vectors {

using Eigen::MatrixXd;
using Eigen::VectorXd;

/// The cases of one vector x; matrix and attention regression have tests of their own.
std::vector<std::string> vector_cases() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(ATTNREG_TEST_DATA "/vectors")) {
    const std::string name = entry.path().stem().string();
    if (!name.starts_with("matrix_") && !name.starts_with("attention_") && name != "index") names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

class Vectors : public testing::TestWithParam<std::string> {
 protected:
  const reference::VectorFile known_{GetParam()};
  const reference::Problem problem_ = known_.problem();
  const VectorXd x_ = known_.vector("x");
  const Communicator comm_{MPI_COMM_WORLD};

  double number(const char* key) const { return known_.number(key); }
};

INSTANTIATE_TEST_SUITE_P(Family, Vectors, testing::ValuesIn(vector_cases()));

TEST(VectorFiles, AreThere) { EXPECT_EQ(vector_cases().size(), 47u); }

TEST_P(Vectors, ValueGradientAndHessian) {
  const bool overflow = known_.flag("overflow");
  const auto expected = [&](const char* key) { return known_.matrix(key); };
  const std::vector holdings = {reference::Holding::float64, reference::Holding::sparse64};
  for (const auto layout : reference::layouts)
    for (const auto holding : holdings) {
      const auto data = reference::distribute(comm_, problem_, layout, holding);
      RegressionObjective objective(data.A, data.b, data.w, make_loss(problem_.loss));
      const Point point = objective.evaluate(x_);
      SCOPED_TRACE("layout " + std::to_string(static_cast<int>(layout)));
      const double log_value = objective.log_value(point);
      if (known_.has("log_value")) {
        const double tolerance = overflow ? 1e-9 : 1e-9 + 2 * number("tol_value") / number("value");
        EXPECT_NEAR(log_value, number("log_value"), tolerance);
      }
      if (overflow) {
        EXPECT_EQ(point.value, std::numeric_limits<double>::infinity());
        continue;
      }
      const auto hessian = objective.hessian(point);
      MatrixXd products(x_.size(), x_.size());
      for (Index j = 0; j < products.cols(); ++j) {
        Direction unit{VectorXd::Unit(products.cols(), j)};
        products.col(j) = objective.hessian_product(point, unit);
      }

      EXPECT_NEAR(point.value, number("value"), number("tol_value"));
      EXPECT_LE((point.gradient - known_.vector("gradient")).cwiseAbs().maxCoeff(), number("tol_gradient"));
      EXPECT_LE((products - expected("hessian")).cwiseAbs().maxCoeff(), number("tol_hessian"));
      if (!comm_.is_root()) continue;
      EXPECT_LE((hessian.exact - expected("hessian")).cwiseAbs().maxCoeff(), number("tol_hessian"));
    }
}

TEST_P(Vectors, OneReadGivesTheSame) {  // at the same point again, where the reference is known
  if (known_.flag("overflow")) return;
  const auto data = reference::distribute(comm_, problem_, reference::Layout::random);
  RegressionObjective objective(data.A, data.b, data.w, make_loss(problem_.loss));
  Point point = objective.evaluate(x_);
  const double reads = data.A.reads();
  point = objective.refreshed(std::move(point));
  EXPECT_EQ(data.A.reads() - reads, 1);
  EXPECT_NEAR(point.value, number("value"), number("tol_value"));
  EXPECT_LE((point.gradient - known_.vector("gradient")).cwiseAbs().maxCoeff(), number("tol_gradient"));
}

TEST_P(Vectors, Reference) {  // the dense transcription that other tests rely on
  if (known_.flag("overflow")) return;
  const auto out = reference::evaluate(problem_, x_);
  EXPECT_NEAR(static_cast<double>(out.value), number("value"), number("tol_value"));
  EXPECT_LE((reference::to_double(out.gradient) - known_.vector("gradient")).cwiseAbs().maxCoeff(),
            number("tol_gradient"));
  EXPECT_LE((out.hessian.cast<double>() - known_.matrix("hessian")).cwiseAbs().maxCoeff(), number("tol_hessian"));
  EXPECT_LE((out.gauss_newton.cast<double>() - known_.matrix("gauss_newton")).cwiseAbs().maxCoeff(),
            number("tol_hessian"));
}

/// Minimises from x0, or, where x = 0 is stationary and the minimisers come in pairs, from near the known one.
TEST_P(Vectors, Minimiser) {
  if (!known_.has("minimizer")) return;
  const auto minimizer = known_.part("minimizer");
  const VectorXd expected = minimizer.vector("x");
  const bool nearby = minimizer.text("kind") == "local_pair" || problem_.loss.ends_with("sinh");
  const VectorXd x0 = nearby ? VectorXd(expected.array() + 1e-3) : VectorXd(VectorXd::Zero(expected.size()));
  for (const auto layout : reference::layouts)
    for (const Method method : {Method::newton, Method::newton_cg}) {
      const auto data = reference::distribute(comm_, problem_, layout);
      RegressionObjective objective(data.A, data.b, data.w, make_loss(problem_.loss));
      NewtonOptions options;
      options.relative_tolerance = 1e-12;
      Point point = objective.evaluate(x0);
      const auto summary = minimise(method, objective, point, options);
      const double floor = objective.gradient_floor(point, objective.norm(point.gradient));
      EXPECT_TRUE(summary.termination == Termination::converged ||
                  summary.termination == Termination::converged_rounding)
          << termination_name(summary.termination);
      // H (x - x*) = g near x*, and g is known up to its rounding; 2 for what H changes on the way.
      const double distance = 2 * (summary.gradient_norm + floor) / minimizer.number("hessian_eig_min");
      EXPECT_LE((point.x - expected).norm(), distance + 4 * reference::eps * expected.norm());
      EXPECT_LE(distance, 1e-7);  // or the comparison means little
      EXPECT_NEAR(point.value, minimizer.number("value"), 1e-12 * (1 + std::abs(point.value)));
    }
}

}  // namespace attnreg::test_vectors
