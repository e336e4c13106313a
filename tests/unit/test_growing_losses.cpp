// exp, cosh and sinh regression, plain and rescaled, as row-local mathematics: A = I, w = 0.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "losses/losses.hpp"
#include "support/reference.hpp"

namespace attnreg::test_growing_losses {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::eps;
using reference::span_of;

std::span<double> span(VectorXd& v) { return {v.data(), static_cast<std::size_t>(v.size())}; }

struct Derivatives {
  explicit Derivatives(Index n) : q(n), f(n), delta(n), positive(n), coupling(n), self(n) {
    coupling.setZero(), self.setZero();
  }
  VectorXd q, f, delta, positive, coupling, self;

  MatrixXd hessian(const VectorXd& diagonal) const {
    MatrixXd B = diagonal.asDiagonal();
    return B - coupling * f.transpose() - f * coupling.transpose() + self.sum() * f * f.transpose();
  }
};

struct Rows {
  std::unique_ptr<Loss> loss;
  VectorXd z, b;

  LossRows all() const { return {span_of(z), span_of(b)}; }
  LossPoint point_at(double reference) const {
    LossSums sums{};
    loss->add_value(all(), reference, sums);
    return loss->value(sums, reference);
  }
  LossPoint point() const { return point_at(point_at(0).reference); }
  Derivatives differentiate(const LossPoint& at) const {
    Derivatives out(z.size());
    const bool coupled = loss->form() == HessianForm::coupled;
    loss->differentiate(
        all(), at,
        {span(out.q), span(out.f), span(out.delta), span(out.positive),
         coupled ? span(out.coupling) : std::span<double>(), coupled ? span(out.self) : std::span<double>()});
    return out;
  }
  double change(const VectorXd& y, double t) const {
    const LossPoint here = point();
    LossSums sums{};
    loss->add_change(all(), span_of(y), t, here, sums);
    return loss->change(sums, here).value;
  }
  reference::Evaluation expected_at(const VectorXd& at) const {
    return reference::evaluate(
        {RowMajorMatrix::Identity(z.size(), z.size()), b, VectorXd::Zero(z.size()), std::string(loss->name())}, at);
  }
};

class GrowingLosses : public testing::TestWithParam<const char*> {
 protected:
  /// Logits of both signs up to about 5, b with a negative entry and a sum that is not 1.
  static Rows rows(Index n = 300) {
    Rows result{make_loss(GetParam()), 1.5 * reference::random_vector(n, 1), reference::random_vector(n, 2).cwiseAbs()};
    result.b *= 1.1 / result.b.sum();
    result.b[0] = -0.1;
    return result;
  }
  /// u has an error of a few eps (1 + |z|); sums have n terms, whose roundings add up as random ones.
  static double roundings(const Rows& r) { return 8 * (1 + r.z.cwiseAbs().maxCoeff()); }
};

INSTANTIATE_TEST_SUITE_P(Named, GrowingLosses,
                         testing::Values("exp", "cosh", "sinh", "rescaled-exp", "rescaled-cosh", "rescaled-sinh"));

TEST_P(GrowingLosses, AgreeWithTheReference) {
  const Rows r = rows();
  const auto expected = r.expected_at(r.z);
  const LossPoint at = r.point();
  const Derivatives out = r.differentiate(at);
  const MatrixXd hessian = expected.hessian.cast<double>(), gauss_newton = expected.gauss_newton.cast<double>();
  // The terms of q and of B are at most those of B at its largest, times what sums over rows make of b.
  const double tolerance = roundings(r) * eps * (gauss_newton.cwiseAbs().maxCoeff() + hessian.cwiseAbs().maxCoeff());
  EXPECT_EQ(r.loss->name(), GetParam());
  EXPECT_NEAR(at.value, static_cast<double>(expected.value), roundings(r) * eps * at.value);
  EXPECT_EQ(at.offset, 0);
  EXPECT_LE((out.q - reference::to_double(expected.gradient)).cwiseAbs().maxCoeff(), tolerance);
  EXPECT_LE((out.hessian(out.delta) - hessian).cwiseAbs().maxCoeff(), tolerance);
  VectorXd fitted(r.z.size());
  r.loss->fit(r.all(), at, span(fitted));
  const VectorXd f = reference::to_double(expected.f);
  EXPECT_LE((fitted - f).cwiseAbs().maxCoeff(), roundings(r) * 10 * eps * f.cwiseAbs().maxCoeff());
  EXPECT_NEAR(at.self, r.loss->form() == HessianForm::coupled ? r.b.squaredNorm() : 0, 10 * eps * at.self);
}

TEST_P(GrowingLosses, PositiveFormsAreAboveTheHessianAndSemidefinite) {
  const Rows r = rows();
  const Derivatives out = r.differentiate(r.point());
  EXPECT_GE((out.positive - out.delta).minCoeff(), 0);
  EXPECT_GE(out.positive.minCoeff(), 0);
  for (Index i = 0; i < r.z.size(); ++i)  // of [positive, -m; -m, k]
    EXPECT_GE(out.positive[i] * out.self[i] * (1 + 4 * eps), out.coupling[i] * out.coupling[i]);
}

TEST_P(GrowingLosses, OneReadServesAtAReferenceThatIsOff) {
  const Rows r = rows();
  const LossPoint here = r.point();
  const Derivatives out = r.differentiate(here);
  const double reference = 0.9 * here.reference + 0.1;
  const auto k = static_cast<std::size_t>(r.loss->columns());
  LossSums sums{};
  r.loss->add_value(r.all(), reference, sums);
  RowMajorMatrix U = RowMajorMatrix::Zero(r.z.size(), 4);
  r.loss->fill_columns(r.all(), reference, {U.data(), static_cast<std::size_t>(U.size())}, 4);
  const auto combination = r.loss->combine(sums, reference);
  const LossPoint there = r.loss->value(sums, reference);
  const auto combined = [&](const auto& factors) {
    VectorXd sum = VectorXd::Zero(r.z.size());
    for (std::size_t c = 0; c < k; ++c) sum += factors[c] * U.col(static_cast<Index>(c));
    return sum;
  };
  const double scale = std::abs(reference) * r.b.cwiseAbs().maxCoeff() + out.f.cwiseAbs().maxCoeff() +
                       r.z.array().abs().exp().maxCoeff();
  EXPECT_NEAR(there.value, here.value, roundings(r) * eps * (here.value + scale * scale));
  EXPECT_EQ(there.reference, here.reference);
  EXPECT_LE((combined(combination.gradient) - out.q).cwiseAbs().maxCoeff(), roundings(r) * eps * scale * scale);
  if (r.loss->form() == HessianForm::diagonal) return;
  EXPECT_LE((combined(combination.centre) - out.f).cwiseAbs().maxCoeff(), 4 * eps * scale);
  EXPECT_LE((combined(combination.coupling) - out.coupling).cwiseAbs().maxCoeff(), 4 * eps * scale);
}

TEST_P(GrowingLosses, ChangeIsAccurateForAnyLengthOfStep) {
  const Rows r = rows();
  const VectorXd y = reference::random_vector(r.z.size(), 6);  // up to 3: on both sides of 1 for t = 1
  const auto here = r.expected_at(r.z);
  const Derivatives out = r.differentiate(r.point());
  for (const double t : {5.0, 1.0, 0.1, 1e-3, 1e-7, 1e-9, 1e-12, 1e-30}) {
    const reference::Vector step = static_cast<long double>(t) * y.cast<long double>();
    reference::Problem moved{RowMajorMatrix(r.z.size(), 2), r.b, VectorXd::Zero(r.z.size()), GetParam()};
    moved.A << r.z, y;  // z + t y exactly
    const long double expected = t <= 1e-7 ? here.gradient.dot(step) + step.dot(here.hessian * step) / 2
                                           : reference::evaluate(moved, Eigen::Vector2d(1, t)).value - here.value;
    // |q t y|, the terms of second order, and for long steps those of the new value; 1e-14 as in test_losses
    const VectorXd ty = (t * y).cwiseAbs(), squares = out.positive + r.z.array().abs().exp().square().matrix();
    double terms = out.q.cwiseAbs().dot(ty) + squares.dot(ty.cwiseAbs2());
    if (t > 0.1) terms += static_cast<double>(reference::evaluate(moved, Eigen::Vector2d(1, t)).value + here.value);
    EXPECT_NEAR(r.change(y, t), static_cast<double>(expected), (roundings(r) * eps + 1e-14) * terms) << "t = " << t;
  }
}

TEST_P(GrowingLosses, ChangeTellsTheNextReference) {
  Rows r = rows();
  const VectorXd y = reference::random_vector(r.z.size(), 6);
  const LossPoint here = r.point();
  LossSums sums{};
  r.loss->add_change(r.all(), span_of(y), 0.7, here, sums);
  const double expected = here.reference + r.loss->change(sums, here).reference_shift;
  r.z += 0.7 * y;
  EXPECT_NEAR(r.point().reference, expected, roundings(r) * eps * r.z.array().abs().exp().sum());
}

TEST_P(GrowingLosses, LogValueOutlivesTheOverflow) {
  Rows r = rows(20);
  r.z[3] = 500;
  r.z[4] = -499;
  EXPECT_EQ(r.point().value, std::numeric_limits<double>::infinity());
  const double exponent = r.loss->largest_exponent_of(r.all());
  EXPECT_EQ(exponent, 500);
  LossSums sums{};
  r.loss->add_scaled_value(r.all(), exponent, sums);
  const auto expected = static_cast<double>(std::log(r.expected_at(r.z).value));  // long double goes to exp(11000)
  EXPECT_NEAR(r.loss->log_value(sums, exponent), expected, 1e-9);
}

TEST_P(GrowingLosses, LargeChangesDoNotSpoilSmallOnes) {
  Rows r = rows(20);
  r.z[0] = -200;
  VectorXd y = VectorXd::Zero(20);
  y[0] = 200;  // from exp(200) down to 1 where u is even or odd
  const auto expected = static_cast<double>(r.expected_at(r.z + y).value - r.expected_at(r.z).value);
  EXPECT_NEAR(r.change(y, 1), expected, 1e-12 * std::abs(expected));
}

TEST(SinhLoss, KeepsItsRelativeAccuracyNextToZero) {
  const VectorXd z = VectorXd::Constant(1, 1e-12), b = VectorXd::Zero(1);
  VectorXd fitted(1);
  make_loss("sinh")->fit({span_of(z), span_of(b)}, {}, span(fitted));
  EXPECT_NEAR(fitted[0], 1e-12, 2 * eps * 1e-12);
}

TEST(LossTraits, SayWhatTheMinimisersAreLike) {
  std::vector<std::string_view> even, trivial, distributions;
  for (const auto name : loss_names()) {
    const auto loss = make_loss(name);
    if (loss->is_even()) even.push_back(name);
    if (loss->vanishes_at_zero()) trivial.push_back(name);
    if (loss->fits_distribution()) distributions.push_back(name);
  }
  EXPECT_THAT(even, testing::ElementsAre("cosh", "rescaled-cosh"));
  EXPECT_THAT(trivial, testing::ElementsAre("rescaled-sinh"));
  EXPECT_THAT(distributions, testing::ElementsAre("softmax", "cross-entropy", "rescaled-exp", "rescaled-cosh"));
}

}  // namespace attnreg::test_growing_losses
