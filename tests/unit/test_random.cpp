#include "numbers/random.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <span>
#include <vector>

namespace attnreg::test_random {

using Words = std::array<std::uint32_t, 4>;

// Each statistical check below fails for a random seed with probability at most 1e-9; the seeds are fixed.
constexpr double log_failure = 20.8;  // > ln(1e9)

/// Laurent and Massart 2000, Lemma 1: a chi-square number with k degrees of freedom exceeds the first, or falls below
/// the second, with probability at most exp(-x) each.
double chi_square_upper(double k, double x) { return k + 2 * std::sqrt(k * x) + 2 * x; }
double chi_square_lower(double k, double x) { return k - 2 * std::sqrt(k * x); }

TEST(Philox, KnownAnswers) {
  // kat_vectors of Random123 1.14, the lines "philox4x32 10".
  EXPECT_EQ(philox4x32_10({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32_10({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomStream, CounterHoldsIndexDrawIteration) {
  const std::uint64_t seed = 0x0123456789abcdef;
  const auto hash = philox4x32_10({0x89abcdef, 0x01234567, 3, 0}, {0x243f6a88, 0x85a308d3});
  const RandomStream stream(seed, Purpose::problem_noise, 9);
  EXPECT_EQ(stream.bits(0x7000000005, 11), philox4x32_10({5, 0x70, 11, 9}, {hash[0], hash[1]}));
}

TEST(RandomStream, EveryArgumentMatters) {
  std::set<Words> seen;
  int streams = 0;
  for (const std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 32})
    for (const auto purpose : {Purpose::problem_rows, Purpose::problem_solution, Purpose::problem_weights})
      for (const std::uint32_t iteration : {0u, 1u})
        for (const std::int64_t index : {std::int64_t{0}, std::int64_t{1}, std::int64_t{1} << 32})
          for (const std::uint32_t draw : {0u, 1u}) {
            seen.insert(RandomStream(seed, purpose, iteration).bits(index, draw));
            ++streams;
          }
  EXPECT_EQ(static_cast<int>(seen.size()), streams);
}

// Whatever the kind of vectors, the length and the place in the counters, also where their upper half changes.
TEST(RandomStream, ManyUniformsAreThoseOfEach) {
  const RandomStream stream(7, Purpose::sample_poisson, 5);
  for (const std::int64_t first :
       {std::int64_t{0}, std::int64_t{3}, (std::int64_t{1} << 32) - 11, std::int64_t{1} << 45})
    for (std::size_t count = 0; count < 40; ++count) {
      std::vector<double> values(count + 1, -1);
      stream.uniforms(first, std::span(values).first(count));
      for (std::size_t k = 0; k < count; ++k)
        ASSERT_EQ(stream.uniform(first + static_cast<std::int64_t>(k)), values[k]) << first << ' ' << k;
      ASSERT_EQ(-1, values[count]);
    }
}

TEST(RandomStream, UniformHasEqualBins) {
  constexpr int bins = 256, numbers = 1 << 20;
  const RandomStream stream(1, Purpose::problem_rows);
  std::vector<double> leading(bins), trailing(bins);
  double least = 1, largest = 0;
  for (int i = 0; i < numbers; ++i) {
    const double u = stream.uniform(i);
    least = std::min(least, u);
    largest = std::max(largest, u);
    leading[static_cast<std::size_t>(u * bins)] += 1;
    trailing[static_cast<std::uint64_t>(std::ldexp(u, 52)) % bins] += 1;
  }
  EXPECT_GT(least, 0);
  EXPECT_LT(largest, 1);
  for (const auto& counts : {leading, trailing}) {
    double chi_square = 0;
    for (const double count : counts) chi_square += (count - numbers / bins) * (count - numbers / bins);
    chi_square /= numbers / bins;
    EXPECT_LT(chi_square, chi_square_upper(bins - 1, log_failure));
    EXPECT_GT(chi_square, chi_square_lower(bins - 1, log_failure));
  }
}

TEST(RandomStream, NormalsHaveTheNormalDistribution) {
  constexpr int indices = 1 << 15, per_index = 8;
  constexpr double n = double{indices} * per_index;
  const RandomStream stream(2, Purpose::problem_rows);
  std::vector<double> values(indices * per_index);
  for (int i = 0; i < indices; ++i)
    stream.normals(i, std::span<double>(values).subspan(static_cast<std::size_t>(i * per_index), per_index));

  double sum = 0, squares = 0, products = 0;
  for (std::size_t k = 0; k < values.size(); ++k) {
    sum += values[k];
    squares += values[k] * values[k];
    if (k % 2 == 0) products += values[k] * values[k + 1];  // the two of one Box-Muller pair
  }
  EXPECT_LT(std::abs(sum) / n, std::sqrt(2 * (log_failure + std::log(2)) / n));
  EXPECT_LT(squares, chi_square_upper(n, log_failure));
  EXPECT_GT(squares, chi_square_lower(n, log_failure));
  // E exp(s x y) = (1 - s^2)^(-1/2) <= exp(s^2) for s^2 <= 1/2, so |sum of m products| > t has probability at most
  // 2 exp(-t^2 / (4 m)).
  EXPECT_LT(std::abs(products), std::sqrt(4 * (n / 2) * (log_failure + std::log(2))));

  // Dvoretzky, Kiefer, Wolfowitz, Massart: sup |F_n - F| > e has probability at most 2 exp(-2 n e^2).
  std::sort(values.begin(), values.end());
  double distance = 0;
  for (std::size_t k = 0; k < values.size(); ++k) {
    const double exact = 0.5 * std::erfc(-values[k] / std::sqrt(2.0)), rank = static_cast<double>(k);
    distance = std::max({distance, exact - rank / n, (rank + 1) / n - exact});
  }
  EXPECT_LT(distance, std::sqrt((log_failure + std::log(2)) / (2 * n)));
}

TEST(RandomStream, NormalsDoNotDependOnTheLengthOfTheSpan) {
  const RandomStream stream(3, Purpose::problem_rows);
  std::array<double, 9> all;
  stream.normals(17, all);
  for (std::size_t length = 0; length <= all.size(); ++length) {
    std::vector<double> some(length);
    stream.normals(17, some);
    EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin())) << length;
  }
}

}  // namespace attnreg::test_random
