// The certificate of attention regressions against dense Hessians, on any number of ranks.

#include <gtest/gtest.h>

#include <Eigen/Eigenvalues>
#include <cmath>
#include <string>
#include <vector>

#include "attention/attention_gauge.hpp"
#include "attention/certify_attention.hpp"
#include "support/attention_problems.hpp"

namespace attnreg::test_attention_certificate {

using namespace attention_problems;

/// A problem as the certificate sees it.
struct Examined {
  AttentionCertificate certificate;
  Eigen::MatrixXd hessian;  ///< by products with unit vectors
  Index left;               ///< dimension without the gauge
};

struct Setting {
  std::string loss = "softmax";
  Index rank = 0;
  AttentionMethod method = AttentionMethod::joint;
  int most_products = 300;
};

class AttentionCertificates : public testing::Test {
 protected:
  const Communicator comm_{MPI_COMM_WORLD};

  std::vector<AttentionSequence> spread(const Planted& planted) const {
    std::vector<AttentionSequence> sequences;
    for (const Whole& whole : planted.sequences)
      sequences.push_back(distributed(comm_, whole, reference::Layout::random));
    return sequences;
  }

  Examined examine(const std::vector<AttentionSequence>& sequences, const AttentionUnknowns& at,
                   const Setting& setting) const {
    const AttentionShape shape = check_sequences(comm_, sequences, setting.loss);
    AttentionPasses passes(comm_, sequences, shape, setting.loss);
    const AttentionParameters parameters(shape.d1, shape.d2, setting.rank);
    AttentionObjective objective(passes, parameters, setting.method, AttentionModel::kronecker);
    const Point point = objective.evaluate(objective.unknowns(parameters.nearest(comm_, at.X), at.Y));
    AttentionCertificateOptions options{CertificateLevel::full, 1};
    options.most_products = setting.most_products;
    Examined examined{certify_attention(objective, passes, sequences, parameters, point, options), {}, 0};
    const Index D = objective.dimension();
    const AttentionGauge gauge(passes, sequences, parameters, point.x.head(parameters.size()), D > parameters.size());
    examined.left = gauge.dimension();
    examined.hessian.resize(D, D);
    for (Index j = 0; j < D; ++j) {
      Direction unit{VectorXd::Unit(D, j)};
      examined.hessian.col(j) = objective.hessian_product(point, unit);
    }
    return examined;
  }

  /// Of the minimum that was planted the null space of H is the gauge, no more and no less.
  void expect_gauge_is_null_space(const Examined& examined) const {
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(examined.hessian);
    const VectorXd values = eigen.eigenvalues();
    const double largest = values.cwiseAbs().maxCoeff();
    EXPECT_EQ((values.array().abs() > 1e-9 * largest).count(), examined.left);
    const double least = (values.array().abs() > 1e-9 * largest).select(values, largest).minCoeff();
    const AttentionCertificate& c = examined.certificate;
    EXPECT_EQ(c.free_directions, values.size() - examined.left);
    EXPECT_NEAR(c.smallest_eigenvalue, least, c.residual + c.eigenvalue_rounding);
    EXPECT_LE(c.largest_eigenvalue, largest * (1 + 1e-12));
    EXPECT_EQ(c.kind, StationaryKind::local_minimum) << c.reason;
    EXPECT_LT(c.eigenvalue_rounding, 1e-6 * largest);
  }
};

TEST_F(AttentionCertificates, NullSpacesAreKnown) {
  for (const Index rank : {0, 2})
    for (const bool dependent : {false, true}) {
      Planted planted = plant({}, 2, 2, 2, 5);
      for (Whole& whole : planted.sequences) {
        if (dependent) {
          whole.queries.col(1) = whole.queries.col(0);
          whole.keys.col(2) = RowMajorMatrix::Ones(whole.keys.rows(), 1);  // a shift
        }
        whole.target = softmax_rows(whole.queries * planted.unknowns.X * whole.keys.transpose());
      }
      const Examined examined = examine(spread(planted), planted.unknowns, {.rank = rank});
      expect_gauge_is_null_space(examined);
      EXPECT_EQ(examined.certificate.null_directions.empty(), rank == 0 && !dependent);
      EXPECT_TRUE(examined.certificate.is_complete);
    }
}

TEST_F(AttentionCertificates, WeightsSeeTheShift) {
  Planted planted = plant({}, 3, 1, 1, 6);
  Whole& whole = planted.sequences[0];
  whole.keys.col(2).setOnes();
  whole.weights = RowMajorMatrix::Constant(whole.target.rows(), whole.target.cols(), 0.1);
  const Examined examined = examine(spread(planted), planted.unknowns, {});
  EXPECT_EQ(examined.certificate.free_directions, 0);
}

TEST_F(AttentionCertificates, OfValuesInBothMethods) {
  const Planted planted = plant({30, 20, 3, 3, 4, 2}, 3, 1, 1, 7);
  for (const auto method : {AttentionMethod::joint, AttentionMethod::varpro}) {
    const Examined examined = examine(spread(planted), planted.unknowns, {.method = method});
    expect_gauge_is_null_space(examined);
  }
}

// X = 0 is stationary for cosh, with curvature of either sign.
TEST_F(AttentionCertificates, SaddlesAreSeen) {
  Planted planted = plant({}, 2, 2, 1, 8);
  Whole& whole = planted.sequences[0];
  whole.target = (whole.queries * planted.unknowns.X * whole.keys.transpose()).array().cosh();
  const AttentionUnknowns zero{RowMajorMatrix::Zero(4, 3), RowMajorMatrix()};
  const Examined examined = examine(spread(planted), zero, {.loss = "cosh"});
  EXPECT_EQ(examined.certificate.kind, StationaryKind::saddle);
  EXPECT_LE(examined.certificate.gradient_norm, examined.certificate.gradient_floor);
  const Examined there = examine(spread(planted), planted.unknowns, {.loss = "cosh"});
  expect_gauge_is_null_space(there);
}

TEST_F(AttentionCertificates, FewProductsGiveABoundOrNothing) {
  const Planted planted = plant({60, 40, 14, 12}, 14, 2, 1, 9);
  const Examined whole = examine(spread(planted), planted.unknowns, {});
  expect_gauge_is_null_space(whole);
  EXPECT_LE(whole.certificate.products, 168);
  const Examined few = examine(spread(planted), planted.unknowns, {.most_products = 3});
  EXPECT_EQ(few.certificate.kind, StationaryKind::unknown);
  EXPECT_NE(few.certificate.reason.find("not settled"), std::string::npos);
  EXPECT_GE(few.certificate.smallest_eigenvalue, whole.certificate.smallest_eigenvalue);
}

TEST_F(AttentionCertificates, EverySolveHasOne) {
  const Planted planted = plant({}, 2, 2, 1, 10);
  AttentionOptions options;
  options.certificate = CertificateLevel::full;
  const AttentionResult result = solve_attention(comm_, spread(planted), options);
  EXPECT_EQ(result.certificate.kind, StationaryKind::local_minimum);
  EXPECT_LE(result.certificate.relative_gradient, 1e-9);
  options.certificate = CertificateLevel::none;
  EXPECT_EQ(solve_attention(comm_, spread(planted), options).certificate.products, 0);
}

}  // namespace attnreg::test_attention_certificate
