#include "numbers/exact_sum.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace attnreg::test_exact_sum {

/// Signs alternate at random, magnitudes from 2^-60 to 1.
std::vector<double> wide_terms(int count) {
  std::mt19937_64 engine(4);
  std::uniform_real_distribution<double> mantissa(-1, 1), exponent(-60, 0);
  std::vector<double> terms;
  for (int i = 0; i < count; ++i) terms.push_back(mantissa(engine) * std::exp2(exponent(engine)));
  return terms;
}

double sum_of(const std::vector<double>& terms, double bound, std::int64_t most_terms) {
  ExactSum sum(1, bound, most_terms);
  for (const double term : terms) sum.add(0, term);
  return sum.values()[0];
}

TEST(ExactSum, DoesNotDependOnTheOrder) {
  constexpr int count = 1000;
  auto terms = wide_terms(count);
  const double first = sum_of(terms, count, count);
  std::mt19937_64 engine(5);
  for (int k = 0; k < 50; ++k) {
    std::shuffle(terms.begin(), terms.end(), engine);
    EXPECT_EQ(sum_of(terms, count, count), first);
  }
}

TEST(ExactSum, KeepsItsErrorBound) {
  for (const int count : {1, 2, 3, 64, 65, 1000}) {
    const auto terms = wide_terms(count);
    long double reference = 0, magnitudes = 0;
    for (const double term : terms) {
      reference += term;
      magnitudes += std::abs(term);
    }
    for (const double slack : {1.0, 1e3, 1e6}) {
      const double bound = slack * static_cast<double>(magnitudes) * (1 + 1e-15);
      const ExactSum sum(1, bound, count);
      const long double reference_error = static_cast<long double>(count) * 0x1p-64L * magnitudes;
      const double allowed = sum.absolute_error() + 0x1p-51 * static_cast<double>(std::abs(reference));
      EXPECT_LE(std::abs(sum_of(terms, bound, count) - reference), allowed + reference_error) << count << " " << slack;
    }
  }
}

TEST(ExactSum, OneTermIsExact) {
  for (const double term : {1.0, -1.0 / 3, 0x1.fffffffffffffp+9, 1e-20, 0.0}) EXPECT_EQ(sum_of({term}, 1024, 1), term);
}

TEST(ExactSum, CancelsExactly) {
  auto terms = wide_terms(500);
  for (int i = 0; i < 500; ++i) terms.push_back(-terms[static_cast<std::size_t>(i)]);
  EXPECT_EQ(sum_of(terms, 1000, 1000), 0);
  terms.push_back(0x1p-90);  // far below the rounding of an ordinary sum, above q3 = 2^(10 - 51 - 88)
  EXPECT_EQ(sum_of(terms, 1000, 1001), 0x1p-90);
}

TEST(ExactSum, HoldsAsManyTermsAsItPromises) {
  // Equal terms with which the first, second and third bin come close to their capacity: the bound is met, and nearly
  // half a quantum, q1 = 2^-51 or q2 = 2^-89, is left over each time.
  constexpr int count = 1 << 16;
  for (const double term : {0x1.fffffffffffffp-17, 0x1.fffffffffffffp-53, 0x1.fffffffffffffp-91}) {
    ExactSum sum(1, 1, count);
    for (int i = 0; i < count; ++i) sum.add(0, term);
    EXPECT_LE(std::abs(sum.values()[0] - term * count), sum.absolute_error());
  }
}

TEST(ExactSum, BoundsAtTheEndsOfTheRange) {
  EXPECT_EQ(sum_of({0.0, -0.0}, 0, 2), 0);
  EXPECT_EQ(sum_of({0x1p-800, 0x1p-801}, 0x1.8p-800, 2), 0x1.8p-800);
  EXPECT_EQ(sum_of({0x1p998, 0x1p997}, 0x1.8p998, 2), 0x1.8p998);
  EXPECT_EQ(sum_of({0.5, 0.5}, 1, std::int64_t{1} << 40), 1);
}

TEST(ExactSum, AddsToTheNamedSum) {
  ExactSum sum(3, 10, 2);
  const std::vector<double> terms{1, 2, 3};
  sum.add(terms);
  sum.add(1, 0.5);
  EXPECT_EQ(sum.values(), Eigen::Vector3d(1, 2.5, 3));
}

}  // namespace attnreg::test_exact_sum
