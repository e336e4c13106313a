#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "attnreg/error.hpp"
#include "losses/losses.hpp"
#include "support/reference.hpp"

namespace attnreg::test_losses {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::eps;
using reference::span_of;

/// phi(z) as the losses see it; the reference's problem with A = I and w = 0.
struct Rows {
  VectorXd z, b;
  std::unique_ptr<Loss> loss;

  LossRows all() const { return {span_of(z), span_of(b)}; }

  LossPoint point_at(double at) const {
    LossSums sums{};
    loss->add_value(all(), at, sums);
    return loss->value(sums, at);
  }
  /// As the objective does it: twice, unless the first reference was right.
  LossPoint point() const {
    const LossPoint rough = point_at(loss->shift(all()));
    return rough.offset > 0 ? point_at(rough.reference) : rough;
  }
  LossChange change(const VectorXd& y, double t) const {
    const LossPoint here = point();
    LossSums sums{};
    loss->add_change(all(), span_of(y), t, here, sums);
    return loss->change(sums, here);
  }
  reference::Evaluation expected() const { return expected_at(z); }
  reference::Evaluation expected_at(const VectorXd& at) const {
    return reference::evaluate(
        {RowMajorMatrix::Identity(z.size(), z.size()), b, VectorXd::Zero(z.size()), std::string(loss->name())}, at);
  }
};

struct Derivatives {
  VectorXd q, f, delta;
};

Derivatives differentiate(const Rows& rows, const LossPoint& point) {
  Derivatives out;
  for (VectorXd* v : {&out.q, &out.f, &out.delta}) *v = VectorXd::Zero(rows.z.size());
  const auto span = [](VectorXd& v) { return std::span<double>(v.data(), static_cast<std::size_t>(v.size())); };
  rows.loss->differentiate(rows.all(), point, {span(out.q), span(out.f), span(out.delta)});
  return out;
}

class Losses : public testing::TestWithParam<const char*> {
 protected:
  /// Logits of spread 3 around 0, b with |b|_1 <= 1.2 and a negative entry.
  Rows rows(Index n = 30) const {
    Rows result{3 * reference::random_vector(n, 1), reference::random_vector(n, 2).cwiseAbs(), make_loss(GetParam())};
    result.b /= result.b.sum();
    result.b[0] = -0.1;
    return result;
  }
};

INSTANTIATE_TEST_SUITE_P(Named, Losses, testing::Values("softmax", "cross-entropy"));

// The exponent z_i - reference carries an error of eps (|z_i| + |reference|): so many eps for f, q and delta, relative
// to their terms. 8 more for the sums and products.
double roundings(const Rows& rows) { return 8 + 4 * rows.z.cwiseAbs().maxCoeff(); }

TEST_P(Losses, AgreeWithTheReference) {
  const Rows r = rows();
  const auto expected = r.expected();
  const LossPoint point = r.point();
  const Derivatives out = differentiate(r, point);
  const MatrixXd P = MatrixXd::Identity(30, 30) - VectorXd::Ones(30) * out.f.transpose();
  const double tolerance = roundings(r) * eps;
  EXPECT_EQ(r.loss->name(), GetParam());
  EXPECT_NEAR(point.value, static_cast<double>(expected.value), tolerance * (1 + std::abs(point.value)));
  EXPECT_LE((out.f - reference::to_double(expected.f)).cwiseAbs().maxCoeff(), tolerance);
  EXPECT_LE((out.q - reference::to_double(expected.gradient)).cwiseAbs().maxCoeff(), tolerance);
  EXPECT_LE((P.transpose() * out.delta.asDiagonal() * P - expected.hessian.cast<double>()).cwiseAbs().maxCoeff(),
            tolerance);
}

TEST_P(Losses, BlocksOfRowsAddUp) {
  const Rows r = rows();
  const VectorXd y = reference::random_vector(30, 4);
  const LossPoint point = r.point();
  LossSums whole{}, parts{}, whole_change{}, part_changes{};
  r.loss->add_value(r.all(), point.reference, whole);
  r.loss->add_change(r.all(), span_of(y), 0.1, point, whole_change);
  for (std::size_t first = 0, size = 0; first < 30; first += size) {
    size = std::min<std::size_t>(first % 7 + 1, 30 - first);
    const LossRows block{span_of(r.z).subspan(first, size), span_of(r.b).subspan(first, size)};
    r.loss->add_value(block, point.reference, parts);
    r.loss->add_change(block, span_of(y).subspan(first, size), 0.1, point, part_changes);
  }
  r.loss->add_value({}, point.reference, parts);  // an empty rank
  for (std::size_t k = 0; k < whole.size(); ++k) {
    EXPECT_NEAR(parts[k], whole[k], 30 * eps * (1 + std::abs(whole[k])));
    EXPECT_NEAR(part_changes[k], whole_change[k], 30 * eps);
  }
  EXPECT_EQ(r.loss->shift({}), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(r.loss->shift(r.all()), r.z.maxCoeff());
}

TEST_P(Losses, OffsetSaysHowFarTheReferenceWas) {
  const Rows r = rows();
  const double right = r.point().reference;
  EXPECT_NEAR(r.point_at(right - 0.5).offset, 0.5, roundings(r) * eps);
  EXPECT_LE(r.point().offset, roundings(r) * eps);
  EXPECT_NEAR(r.point_at(right + 0.25).reference, right, roundings(r) * eps);
}

// f'' and f''' of the values along a line are at most 1 for |b|_1 <= 1.2 and |y| <= 1: truncation h^2 / 6.
TEST_P(Losses, FirstDerivativeIsTheSlopeOfTheValue) {
  Rows r = rows();
  const VectorXd z = r.z, y = reference::random_vector(30, 5).normalized();
  const double slope = differentiate(r, r.point()).q.dot(y);
  constexpr double h = 6e-6;  // eps^(1/3): truncation and rounding are alike
  r.z = z + h * y;
  const double ahead = r.point().value;
  r.z = z - h * y;
  EXPECT_NEAR((ahead - r.point().value) / (2 * h), slope, h * h / 6 + roundings(r) * eps * (1 + std::abs(ahead)) / h);
}

TEST_P(Losses, SecondDerivativeIsTheSlopeOfTheFirst) {
  Rows r = rows();
  const VectorXd z = r.z, y = reference::random_vector(30, 5).normalized();
  const Derivatives here = differentiate(r, r.point());
  const VectorXd centred = here.delta.cwiseProduct((y.array() - here.f.dot(y)).matrix());
  const VectorXd By = centred - here.f * centred.sum();
  constexpr double h = 6e-6;
  r.z = z + h * y;
  const VectorXd ahead = differentiate(r, r.point()).q;
  r.z = z - h * y;
  const VectorXd behind = differentiate(r, r.point()).q;
  EXPECT_LE(((ahead - behind) / (2 * h) - By).cwiseAbs().maxCoeff(), h * h / 6 + roundings(r) * eps / h);
}

TEST_P(Losses, DoNotSeeAShiftOfTheLogits) {
  Rows r = rows();
  r.z = (r.z * 1024).array().round() / 1024;  // z + c is exact
  const LossPoint here = r.point();
  const Derivatives expected = differentiate(r, here);
  for (const double c : {-700.0, 1.0, 1000.0, 1e6}) {
    Rows moved{r.z.array() + c, r.b, make_loss(GetParam())};
    const LossPoint there = moved.point();
    const Derivatives out = differentiate(moved, there);
    // The sums correct the rounding of the reference in the value; the rows of q see it.
    const double tolerance = roundings(moved) * eps;
    EXPECT_NEAR(there.value, here.value, std::string(GetParam()) == "softmax" ? roundings(r) * eps : tolerance);
    EXPECT_NEAR(there.reference, here.reference + c, tolerance);
    EXPECT_LE((out.q - expected.q).cwiseAbs().maxCoeff(), tolerance);
    EXPECT_LE((out.delta - expected.delta).cwiseAbs().maxCoeff(), tolerance);
  }
}

TEST_P(Losses, LogitsOf800DoNotOverflow) {
  Rows r{VectorXd(4), VectorXd(4), make_loss(GetParam())};
  r.z << 800, -800, 799, 0;
  r.b << 0.5, 0.25, 0.125, 0.125;
  const auto expected = r.expected();
  const LossPoint point = r.point();
  const double tolerance = roundings(r) * eps * (1 + static_cast<double>(std::abs(expected.value)));
  EXPECT_NEAR(point.value, static_cast<double>(expected.value), tolerance);
  EXPECT_LE((differentiate(r, point).q - reference::to_double(expected.gradient)).cwiseAbs().maxCoeff(), tolerance);
}

// At a nearly perfect fit L is 1e-20 or less. f - b has an error of eps |z - reference| f.
TEST(SoftmaxLoss, KeepsItsRelativeAccuracyNearAPerfectFit) {
  Rows r{2 * reference::random_vector(50, 7), VectorXd(), make_loss("softmax")};
  const VectorXd f = reference::softmax(RowMajorMatrix::Identity(50, 50), r.z);
  r.b = f.array() * (1 + 1e-10 * reference::random_vector(50, 8).array());
  const auto expected = r.expected();
  const LossPoint point = r.point();
  const VectorXd q = differentiate(r, point).q;
  const double of_f = roundings(r) * eps, c_f = (f - r.b).cwiseAbs().dot(f);
  EXPECT_LT(point.value, 1e-20);
  EXPECT_NEAR(point.value, static_cast<double>(expected.value), of_f * c_f);
  EXPECT_LE((q - reference::to_double(expected.gradient)).norm(), of_f * f.squaredNorm());
}

/// phi(z + t y) - phi(z): the difference of long doubles for large t; two terms of Taylor's series for t <= 1e-7, where
/// that difference would lose digits and the third term is below t^2.
long double expected_change(const Rows& r, const VectorXd& y, double t) {
  const auto here = r.expected();
  const reference::Vector step = static_cast<long double>(t) * y.cast<long double>();
  if (std::abs(t) <= 1e-7) return here.gradient.dot(step) + step.dot(here.hessian * step) / 2;
  const auto n = r.z.size();
  reference::Problem moved{RowMajorMatrix(n, 2), r.b, VectorXd::Zero(n),
                           std::string(r.loss->name())};  // z + t y exactly
  moved.A << r.z, y;
  return reference::evaluate(moved, Eigen::Vector2d(1, t)).value - here.value;
}

/// The terms that a change is made of: |q_i t y_i| and those of second order.
double change_scale(const Rows& r, const VectorXd& y, double t) {
  const Derivatives here = differentiate(r, r.point());
  const auto ty = (t * y).cwiseAbs();
  return here.q.cwiseAbs().dot(ty) + (here.delta.cwiseAbs() + here.f.cwiseAbs2()).dot(ty.cwiseAbs2());
}

TEST_P(Losses, ChangeIsAccurateForAnyLengthOfStep) {
  const Rows r = rows();
  const VectorXd y = reference::random_vector(30, 6);
  for (const double t : {1.0, 0.1, 1e-3, 1e-7, 1e-9, 1e-12, 1e-15, 1e-30}) {
    // 1e-14: the reference itself for 1e-3 (long double eps / t) and t^2 of Taylor's series
    const double tolerance = (roundings(r) * eps + 1e-14) * change_scale(r, y, t);
    EXPECT_NEAR(r.change(y, t).value, static_cast<double>(expected_change(r, y, t)), tolerance) << "t = " << t;
  }
}

TEST_P(Losses, ChangeIsAccurateOnBothSidesOfTheSeriesOfTheLogarithm) {
  const Rows r = rows();
  const VectorXd y = 1 + 0.1 * reference::random_vector(30, 6).array();  // S = <f, exp(t y) - 1> is about t
  for (const double t : {-0.025, -0.021, -0.02, -0.019, -0.015, 0.015, 0.019, 0.02, 0.021, 0.025})
    EXPECT_NEAR(r.change(y, t).value, static_cast<double>(expected_change(r, y, t)),
                roundings(r) * eps * change_scale(r, y, t))
        << "t = " << t;
}

TEST_P(Losses, ChangeTellsTheNextReference) {
  Rows r = rows();
  const VectorXd y = reference::random_vector(30, 6);
  const double expected = r.point().reference + r.change(y, 0.7).reference_shift;
  r.z += 0.7 * y;
  EXPECT_NEAR(r.point().reference, expected, roundings(r) * eps);
}

TEST_P(Losses, ChangeIsAccurateUpToTheLargestExponent) {
  const Rows r = rows();
  VectorXd y = reference::random_vector(30, 6);
  y.array() -= differentiate(r, r.point()).f.dot(y);
  y *= Loss::largest_exponent / y.cwiseAbs().maxCoeff();
  for (const double t : {1.0, -1.0, 0.3, -0.3}) {
    const auto expected = static_cast<double>(expected_change(r, y, t));
    EXPECT_NEAR(r.change(y, t).value, expected, roundings(r) * eps * Loss::largest_exponent) << "t = " << t;
  }
}

TEST(MakeLoss, ListsTheNamesItKnows) {
  EXPECT_THAT(loss_names(), testing::ElementsAre("softmax", "cross-entropy", "exp", "cosh", "sinh", "rescaled-exp",
                                                 "rescaled-cosh", "rescaled-sinh"));
  for (const auto name : loss_names()) EXPECT_EQ(make_loss(name)->name(), name);
  try {
    make_loss("sotfmax");
    ADD_FAILURE() << "an unknown name was accepted";
  } catch (const InvalidArgument& error) {
    EXPECT_THAT(error.what(), testing::AllOf(testing::HasSubstr("sotfmax"), testing::HasSubstr("softmax"),
                                             testing::HasSubstr("cross-entropy")));
    EXPECT_EQ(error.scope(), Error::Scope::all_ranks);
  }
}

// All f_i are wrong by the error of <exp(z), 1>: it must not grow with the rows.
TEST(Normalisers, OfManyEqualRowsKeepTheirDigits) {
  for (const Index n : {7, 1000, 1023}) {
    const VectorXd z = VectorXd::Constant(n, 0.1), b = VectorXd::Constant(n, 1 / static_cast<double>(n));
    for (const auto* name : {"softmax", "cross-entropy", "rescaled-exp"}) {
      LossSums sums{};
      make_loss(name)->add_value({span_of(z), span_of(b)}, 0, sums);
      EXPECT_NEAR(sums[0] / (static_cast<double>(n) * std::exp(0.1)), 1, 3 * eps) << name << ", " << n << " rows";
    }
  }
}

}  // namespace attnreg::test_losses
