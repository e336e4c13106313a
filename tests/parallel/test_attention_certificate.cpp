// The certificate of attention regressions against dense Hessians, on any number of ranks.

#include <gtest/gtest.h>

#include <Eigen/Eigenvalues>
#include <algorithm>
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
          whole.keys.col(2).setConstant(0.1);  // a shift, whose mean is rounded
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

/// Sequences with masks, and the same as one sequence for each query.
struct Masked {
  std::vector<AttentionSequence> masked, split;
};

Masked with_masks(const Communicator& comm, const Planted& planted, const std::vector<Table>& tables) {
  Masked all;
  for (std::size_t k = 0; k < tables.size(); ++k) {
    const Whole& whole = planted.sequences[k];
    all.masked.push_back(distributed(comm, whole, reference::Layout::random));
    all.masked[k].mask = mask_of(tables[k], all.masked[k].partition, comm.rank());
    for (Index i = 0; i < tables[k].rows(); ++i)
      all.split.push_back(distributed(comm, part_of(whole, tables[k], i), reference::Layout::random));
  }
  return all;
}

/// Two parts whose queries see keys of their own part only.
Table two_parts(Index n) {
  Table table = causal_table(n, n);
  table.bottomLeftCorner(n - n / 2, n / 2).setZero();
  return table;
}

struct MaskedCase {
  std::string name;
  Index free = 0;     ///< directions that L does not depend on, with rank 0
  std::string named;  ///< in one of the names
  Table table{};      ///< of all sequences
  Index n = 24;       ///< queries, and keys
  std::string loss = "softmax";
  bool dependent = false;  ///< only query 0 has column 1; key column 2 tells the two parts apart
  bool values = false;
};

class MaskedCertificates : public AttentionCertificates, public testing::WithParamInterface<MaskedCase> {};

// X is 4 x 3. No softmax depends on the logit of query 0 of a causal mask, but exp does. Of three causal queries that
// makes 1 + 2 conditions in 12 unknowns: 6 directions have A1 n = 0, 4 - 2 constant A2 v, and one more is hidden. For
// exp it makes 1 + 2 + 3. With `dependent` exp sees X + e_1 y^T in query 0 of two sequences alone: 2 conditions on y.
std::vector<MaskedCase> masked_cases() {
  return {MaskedCase{"causal", 0, "", causal_table(24, 24)},
          MaskedCase{"padded", 0, "", random_table(24, 24, 3)},
          MaskedCase{"parts", 0, "", two_parts(24)},
          MaskedCase{"query_of_one_key", 3, "1 null directions n, A1 n = 0 but for queries that see one key",
                     causal_table(24, 24), 24, "softmax", true},
          MaskedCase{"shift_of_parts", 3 + 4 - 1, "constant over the keys of each query", two_parts(24), 24, "softmax",
                     true},
          MaskedCase{"every_key_counts", 1, "X + D", two_parts(24), 24, "exp", true},
          MaskedCase{"few_queries", 9, "X + D", causal_table(3, 3), 3},
          MaskedCase{"few_queries_of_exp", 6, "X + D", causal_table(3, 3), 3, "exp"},
          MaskedCase{"values", 0, "", causal_table(24, 24), 24, "softmax", false, true}};
}

/// Values go without weights.
std::vector<MaskedCase> cases_for_weights() {
  auto cases = masked_cases();
  std::erase_if(cases, [](const MaskedCase& of) { return of.values; });
  return cases;
}

class WeightedMaskedCertificates : public MaskedCertificates {};

INSTANTIATE_TEST_SUITE_P(All, MaskedCertificates, testing::ValuesIn(masked_cases()),
                         [](const auto& test) { return test.param.name; });
INSTANTIATE_TEST_SUITE_P(All, WeightedMaskedCertificates, testing::ValuesIn(cases_for_weights()),
                         [](const auto& test) { return test.param.name; });

TEST_P(MaskedCertificates, KnowWhatIsHidden) {
  const MaskedCase& of = GetParam();
  Shape shape{of.n, of.n, 4, 3};
  if (of.values) shape = {of.n, of.n, 4, 3, 2, 2};
  Planted planted = plant(shape, 2, 1.5, of.n > 3 ? 2 : 1, 5);
  const std::vector<Table> tables(planted.sequences.size(), of.table);
  for (Whole& whole : planted.sequences) {
    if (of.dependent) {
      whole.queries.col(1).tail(of.n - 1).setZero();
      whole.keys.col(2) = RowMajorMatrix::Constant(of.n, 1, 0.1);
      whole.keys.col(2).tail(of.n - of.n / 2).setConstant(0.3);
    }
    for (Index key = 0; key < of.n; ++key)
      if ((of.table.col(key).array() == 0).all()) whole.keys.row(key).setConstant(1e200);
    whole.target = masked_softmax(whole, planted.unknowns.X, of.table);
    if (of.loss == "exp") whole.target = (whole.queries * planted.unknowns.X * whole.keys.transpose()).array().exp();
    if (of.values) whole.target = whole.target * *whole.values * planted.unknowns.Y;
  }
  const Masked all = with_masks(comm_, planted, tables);
  for (const Index rank : {0, 2}) {
    const Setting setting{of.loss, rank};
    const Examined masked = examine(all.masked, planted.unknowns, setting);
    const AttentionCertificate& c = masked.certificate;
    if (rank == 0) {
      expect_gauge_is_null_space(masked);
      EXPECT_EQ(c.free_directions, of.free);
      const auto& names = c.null_directions;
      EXPECT_TRUE(of.named.empty() ? names.empty() : std::ranges::any_of(names, [&](const std::string& name) {
        return name.find(of.named) != name.npos;
      })) << testing::PrintToString(names);
    } else if (of.n > 3) {
      expect_gauge_is_null_space(masked);
    } else {
      EXPECT_EQ(c.kind, StationaryKind::degenerate);  // hidden D are known of X without a rank only
    }
    const AttentionCertificate split = examine(all.split, planted.unknowns, setting).certificate;
    EXPECT_EQ(c.free_directions, split.free_directions);
    EXPECT_EQ(c.kind, split.kind);
    EXPECT_NEAR(c.smallest_eigenvalue, split.smallest_eigenvalue, c.eigenvalue_rounding + split.eigenvalue_rounding);
    // A few keys of one query are centred where all keys are not: less rounding.
    EXPECT_LE(split.eigenvalue_rounding, (1 + 1e-3) * c.eigenvalue_rounding);
  }
}

// Weights see the shift of a row of logits: no keys are centred, and both sum the same terms.
TEST_P(WeightedMaskedCertificates, RoundAsTheSplitProblem) {
  const MaskedCase& of = GetParam();
  Planted planted = plant({of.n, of.n, 4, 3}, 2, 1.5, of.n > 3 ? 2 : 1, 5);
  const std::vector<Table> tables(planted.sequences.size(), of.table);
  for (Whole& whole : planted.sequences) {
    whole.target = masked_softmax(whole, planted.unknowns.X, of.table);
    whole.weights = RowMajorMatrix::Constant(of.n, of.n, 0.1);
  }
  const Masked all = with_masks(comm_, planted, tables);
  for (const Index rank : {0, 2}) {
    const Setting setting{of.loss, rank};
    const AttentionCertificate masked = examine(all.masked, planted.unknowns, setting).certificate,
                               split = examine(all.split, planted.unknowns, setting).certificate;
    EXPECT_NEAR(masked.eigenvalue_rounding, split.eigenvalue_rounding, 1e-3 * split.eigenvalue_rounding);
    EXPECT_NEAR(masked.smallest_eigenvalue, split.smallest_eigenvalue, masked.eigenvalue_rounding);
  }
}

// The Kronecker product has condition 1e10, its Gram matrix 1e20.
TEST_F(AttentionCertificates, BadlyConditionedDataHideNothing) {
  Planted planted = plant({24, 24, 4, 3}, 2, 1, 2, 5);
  for (Whole& whole : planted.sequences) {
    whole.queries.col(1) = whole.queries.col(0) + 1e-5 * whole.queries.col(1);
    whole.keys.col(2) = whole.keys.col(0) + 1e-5 * whole.keys.col(2);
  }
  const std::vector<Table> tables(2, causal_table(24, 24));
  EXPECT_EQ(examine(with_masks(comm_, planted, tables).masked, planted.unknowns, {}).certificate.free_directions, 0);
}

TEST_F(AttentionCertificates, NothingIsLeftWhereEachQuerySeesOneKey) {
  Planted planted = plant({5, 5, 2, 2}, 2, 1, 1, 5);
  planted.sequences[0].target.setIdentity();
  const Masked all = with_masks(comm_, planted, {Table::Identity(5, 5)});
  const AttentionCertificate c = examine(all.masked, planted.unknowns, {}).certificate;
  EXPECT_EQ(c.free_directions, 4);
  EXPECT_EQ(c.kind, StationaryKind::unknown);
  EXPECT_EQ(c.reason, "no direction is left");
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
