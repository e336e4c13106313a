// The high-precision reference vectors, each within its own tolerance, however the rows are spread over the ranks.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "attnreg/newton.hpp"
#include "regression_objective.hpp"
#include "support/reference.hpp"

namespace attnreg {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

std::vector<std::string> softmax_cases() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(ATTNREG_TEST_DATA "/vectors"))
    if (entry.path().filename().string().starts_with("softmax_")) names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  return names;
}

class Vectors : public testing::TestWithParam<std::string> {
 protected:
  const reference::Case known_ = reference::read_case(ATTNREG_TEST_DATA "/vectors/" + GetParam() + ".json");
  const Communicator comm_{MPI_COMM_WORLD};

  double number(const char* key) const { return known_.json[key].get<double>(); }
};

INSTANTIATE_TEST_SUITE_P(Softmax, Vectors, testing::ValuesIn(softmax_cases()));

TEST(VectorFiles, AreThere) { EXPECT_GE(softmax_cases().size(), 10u); }

TEST_P(Vectors, ValueGradientAndHessian) {
  const MatrixXd expected_hessian = reference::matrix_of(known_.json["hessian"]);
  const VectorXd expected_gradient = reference::vector_of(known_.json["gradient"]);
  for (const auto layout : reference::layouts)
    for (const auto holding : {reference::Holding::float64, reference::Holding::view}) {
      const auto data = reference::distribute(comm_, known_.problem, layout, holding);
      RegressionObjective objective(data.A, data.b, data.w, make_loss("softmax"));
      objective.move_to(known_.x);
      const auto hessian = objective.hessian();
      MatrixXd products(known_.x.size(), known_.x.size());
      for (Index j = 0; j < products.cols(); ++j)
        products.col(j) = objective.hessian_product(VectorXd::Unit(products.cols(), j));

      SCOPED_TRACE("layout " + std::to_string(static_cast<int>(layout)));
      EXPECT_NEAR(objective.value(), number("value"), number("tol_value"));
      EXPECT_LE((objective.gradient() - expected_gradient).cwiseAbs().maxCoeff(), number("tol_gradient"));
      EXPECT_LE((products - expected_hessian).cwiseAbs().maxCoeff(), number("tol_hessian"));
      if (comm_.is_root())
        EXPECT_LE((hessian.exact - expected_hessian).cwiseAbs().maxCoeff(), number("tol_hessian"));
      else
        EXPECT_EQ(hessian.exact.size(), 0);
    }
}

TEST_P(Vectors, Reference) {  // the dense transcription that other tests rely on
  const auto out = reference::evaluate(known_.problem, known_.x);
  EXPECT_NEAR(static_cast<double>(out.value), number("value"), number("tol_value"));
  EXPECT_LE((reference::to_double(out.gradient) - reference::vector_of(known_.json["gradient"])).cwiseAbs().maxCoeff(),
            number("tol_gradient"));
  EXPECT_LE((out.hessian.cast<double>() - reference::matrix_of(known_.json["hessian"])).cwiseAbs().maxCoeff(),
            number("tol_hessian"));
}

TEST_P(Vectors, Minimiser) {
  if (!known_.json.contains("minimizer") || known_.json["minimizer"]["kind"] == "local_pair") return;
  const auto& minimizer = known_.json["minimizer"];
  const VectorXd expected = reference::vector_of(minimizer["x"]);
  for (const auto layout : reference::layouts) {
    const auto data = reference::distribute(comm_, known_.problem, layout);
    RegressionObjective objective(data.A, data.b, data.w, make_loss("softmax"));
    NewtonOptions options;
    options.relative_tolerance = 1e-12;
    const auto summary = newton(objective, VectorXd::Zero(expected.size()), options);
    const double floor = objective.gradient_floor();
    EXPECT_TRUE(summary.termination == Termination::converged || summary.termination == Termination::converged_rounding)
        << termination_name(summary.termination);
    // H (x - x*) = g near x*, and g is known up to its rounding; 2 for what H changes on the way.
    const double distance = 2 * (summary.gradient_norm + floor) / minimizer["hessian_eig_min"].get<double>();
    EXPECT_LE((objective.x() - expected).norm(), distance + 4 * reference::eps * expected.norm());
    EXPECT_LE(distance, 1e-7);  // or the comparison means little
    EXPECT_NEAR(objective.value(), minimizer["value"].get<double>(), 1e-12);
  }
}

}  // namespace
}  // namespace attnreg
