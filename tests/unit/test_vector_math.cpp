#include "numbers/vector_math.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "support/vector_targets.hpp"

namespace attnreg::test_vector_math {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

class VectorMath : public testing::TestWithParam<VectorTarget> {
 protected:
  SelectVectorTarget select_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Targets, VectorMath, testing::ValuesIn(vector_targets()), vector_target_name);

std::vector<double> exp(const std::vector<double>& x) {
  std::vector<double> y(x.size());
  kernels::exp(x, y);
  return y;
}

std::vector<double> log(const std::vector<double>& x) {
  std::vector<double> y(x.size());
  kernels::log(x, y);
  return y;
}

std::vector<double> expm1(const std::vector<double>& x) {
  std::vector<double> y(x.size());
  kernels::expm1(x, y);
  return y;
}

/// Evenly spread random numbers in [low, high] and the neighbourhoods of all multiples of ln(2) / 2 in it, where the
/// reduction of the argument turns over.
std::vector<double> arguments(double low, double high) {
  std::mt19937_64 engine(1);
  std::uniform_real_distribution<double> uniform(low, high);
  std::vector<double> x(50000);
  for (double& value : x) value = uniform(engine);
  for (double k = std::ceil(2 * low / std::log(2)); k * std::log(2) / 2 <= high; ++k)
    for (const double move : {-1e-9, -1e-15, 0.0, 1e-15, 1e-9}) {
      const double value = k * std::log(2) / 2 * (1 + move);
      if (value >= low && value <= high) x.push_back(value);
    }
  return x;
}

/// +- 2^e (1 + u) for all e in [low, high].
std::vector<double> magnitudes(int low, int high) {
  std::mt19937_64 engine(2);
  std::uniform_real_distribution<double> uniform(1, 2);
  std::vector<double> x;
  for (int e = low; e <= high; ++e)
    for (int k = 0; k < 50; ++k) x.push_back((k % 2 == 0 ? 1 : -1) * std::ldexp(uniform(engine), e));
  return x;
}

/// |y - exact| in units of the last place of exact, those of the subnormal numbers included.
double ulps(double y, long double exact) {
  const double rounded = std::abs(static_cast<double>(exact));
  const long double unit = std::nextafter(rounded, kInfinity) - rounded;
  return static_cast<double>(std::abs(y - exact) / unit);
}

template <class Exact>
double largest_error(const std::vector<double>& x, const std::vector<double>& y, Exact exact) {
  double largest = 0;
  for (std::size_t i = 0; i < x.size(); ++i) largest = std::max(largest, ulps(y[i], exact(x[i])));
  return largest;
}

const auto exact_exp = [](long double x) { return std::exp(x); };
const auto exact_expm1 = [](long double x) { return std::expm1(x); };

// The documented bounds; the exact values have 11 bits more.
TEST_P(VectorMath, LogIsWithinFourUlp) {
  std::vector<double> x = magnitudes(-1020, 1023);
  for (double& value : x) value = std::abs(value);
  for (const double near : {1 - 1e-12, 1 - 0x1p-53, 1 + 0x1p-52, 1 + 1e-9, 0.9, 1.1}) x.push_back(near);
  const std::vector<double> y = log(x);
  for (std::size_t k = 0; k < x.size(); ++k) {
    const long double exact = std::log(static_cast<long double>(x[k]));
    const double ulp = std::nextafter(std::abs(y[k]), kInfinity) - std::abs(y[k]);
    EXPECT_LE(std::abs(static_cast<double>(y[k] - exact)), 4 * ulp) << x[k];
  }
  EXPECT_EQ(log({1})[0], 0);
}

TEST_P(VectorMath, ExponentialsAreWithinOneUlp) {
  for (const auto& x : {arguments(-745, 709), arguments(-1, 1), arguments(-745, -708), magnitudes(-60, 8)})
    EXPECT_LT(largest_error(x, exp(x), exact_exp), 1);
}

TEST_P(VectorMath, Expm1IsWithinTwoUlps) {
  for (const auto& x : {arguments(-300, 300), arguments(-2, 2), arguments(0.3, 0.4), magnitudes(-1000, 7)})
    EXPECT_LT(largest_error(x, expm1(x), exact_expm1), 2);
}

TEST_P(VectorMath, SpecialValues) {
  const std::vector<double> x{0.0, -0.0, -kInfinity, kInfinity, -746, -1e300, 710, 1e300, kNaN};
  const auto e = exp(x), m = expm1(x);
  for (const std::size_t zero : {0, 1}) {
    EXPECT_EQ(e[zero], 1);
    EXPECT_EQ(m[zero], 0);
  }
  for (const std::size_t low : {2, 4, 5}) {
    EXPECT_EQ(e[low], 0);
    EXPECT_EQ(m[low], -1);
  }
  for (const std::size_t high : {3, 6, 7}) {
    EXPECT_EQ(e[high], kInfinity);
    EXPECT_EQ(m[high], kInfinity);
  }
  EXPECT_TRUE(std::isnan(e[8]) && std::isnan(m[8]));
  const double denormal = std::numeric_limits<double>::denorm_min();
  EXPECT_EQ(expm1({denormal, -denormal, 5e-324, 1e-310}), (std::vector<double>{denormal, -denormal, 5e-324, 1e-310}));
}

TEST_P(VectorMath, AnElementDoesNotDependOnItsPlace) {
  const auto x = arguments(-30, 30);
  const auto e = exp(x), m = expm1(x);
  for (std::size_t first = 0; first < 20; ++first)
    for (std::size_t count = 0; count < 20; ++count) {
      const auto from = static_cast<std::ptrdiff_t>(first), to = static_cast<std::ptrdiff_t>(first + count);
      const std::vector<double> piece(x.begin() + from, x.begin() + to);
      EXPECT_EQ(exp(piece), std::vector<double>(e.begin() + from, e.begin() + to));
      EXPECT_EQ(expm1(piece), std::vector<double>(m.begin() + from, m.begin() + to));
    }
}

TEST_P(VectorMath, WorksInPlaceAndNowhereElse) {
  const auto x = arguments(-3, 3);
  auto y = x;
  const std::span<double> inner(y.data() + 1, 21);
  kernels::exp(inner, inner);
  EXPECT_EQ(y[0], x[0]);
  EXPECT_EQ(y[22], x[22]);
  const auto e = exp(x);
  EXPECT_TRUE(std::equal(inner.begin(), inner.end(), e.begin() + 1));
}

}  // namespace attnreg::test_vector_math
