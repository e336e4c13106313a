// The distributions of the artificial problems. Seeds are fixed; each bound would fail for a random seed with a
// probability below 1e-9 where nothing else is said.

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "generated_files.hpp"
#include "support/dense_algebra.hpp"

namespace attnreg::test_generate_statistics {

using Eigen::VectorXd;

constexpr std::int64_t n = 5000, d = 12;

/// Relative distance from k that a chi-square number with k degrees of freedom keeps (Laurent and Massart 2000).
double chi_square_spread(double k) {
  const double x = 22;  // 2 exp(-22) < 1e-9
  return 2 * std::sqrt(x / k) + 2 * x / k;
}

VectorXd softmax(const VectorXd& z) {
  const VectorXd e = (z.array() - z.maxCoeff()).exp();
  return e / e.sum();
}

double standard_deviation(const VectorXd& values) {
  return std::sqrt((values.array() - values.mean()).square().mean());
}

/// b = softmax(A x_true) up to rounding: |z| < 100 here, so exponents have an error of some 1e-13.
void expect_targets_fit(const GeneratedFiles& files) {
  const VectorXd f = softmax(files.A * files.x_true);
  EXPECT_LE((files.b - f).cwiseQuotient(f).cwiseAbs().maxCoeff(), 1e-11);
}

/// ln(w_i sqrt(n) / weight_scale) / 0.25 is N(0, 1).
void expect_weights(const GeneratedFiles& files, double scale) {
  const VectorXd normal = (files.w.array() * std::sqrt(double{n}) / scale).log() / 0.25;
  EXPECT_LE(std::abs(normal.mean()), std::sqrt(2 * 21.5 / double{n}));
  EXPECT_NEAR(normal.squaredNorm() / double{n}, 1, chi_square_spread(double{n}));
}

void expect_facts(const ProblemFacts& facts, const GeneratedFiles& files) {
  const VectorXd z = files.A * files.x_true;
  const auto expect_close = [](double found, double expected) { EXPECT_NEAR(found, expected, 1e-11 * expected); };
  expect_close(facts.z_true_std, standard_deviation(z));
  expect_close(facts.z_true_max, z.maxCoeff());
  expect_close(facts.b_max, files.b.maxCoeff());
  expect_close(facts.neff_b, 1 / files.b.squaredNorm());
  expect_close(facts.w_mean, files.w.mean());
  expect_close(facts.loss_at_0, 0.5 * (files.b.array() - 1 / double{n}).square().sum());
  expect_close(facts.reg_at_xtrue, 0.5 * files.w.cwiseProduct(z).squaredNorm());
}

TEST(GenerateStatistics, AllPresets) {
  const Communicator world(MPI_COMM_WORLD);
  for (const auto preset : all_presets) {
    const TestDirectory directory(world);
    const auto facts = generate(world, problem(preset, n, d), directory);
    const auto files = read_files(directory.path());
    SCOPED_TRACE(preset_name(preset));
    EXPECT_NEAR(files.b.sum(), 1, 1e-12);
    expect_facts(facts, files);
    if (preset != Preset::easy) {
      if (preset != Preset::misfit) expect_targets_fit(files);
      expect_weights(files, 1e-3);
    }
    if (preset == Preset::easy || preset == Preset::practical || preset == Preset::misfit) {  // d |A|_F^2 is chi-square
      EXPECT_NEAR(files.A.squaredNorm() / double{n}, 1, chi_square_spread(double{n * d}));
    }
  }
}

TEST(GenerateStatistics, Practical) {
  const Communicator world(MPI_COMM_WORLD);
  const TestDirectory directory(world);
  auto options = problem(Preset::practical, n, d);
  options.spread = 2;
  options.weight_scale = 0.5;
  const auto facts = generate(world, options, directory);
  const auto files = read_files(directory.path());
  expect_weights(files, 0.5);
  const double per_column = files.x_true.squaredNorm() / double{d};
  EXPECT_NEAR(per_column / 4, 1, chi_square_spread(double{d}));
  EXPECT_NEAR(facts.z_true_std * facts.z_true_std / per_column, 1, chi_square_spread(double{n - 1}) + 1 / double{n});
}

TEST(GenerateStatistics, Easy) {
  const Communicator world(MPI_COMM_WORLD);
  const TestDirectory directory(world);
  generate(world, problem(Preset::easy, n, d), directory);
  const auto files = read_files(directory.path());
  const double smallest = reference::singular_values(files.A).minCoeff();
  const double expected = std::sqrt(100 + 1 / (smallest * smallest));
  EXPECT_EQ(files.w.minCoeff(), files.w.maxCoeff());
  EXPECT_NEAR(files.w[0], expected, 1e-14 * expected);
  // b / softmax is proportional to 1 + 0.05 N(0, 1); |.| does nothing at 20 standard deviations.
  const VectorXd ratio = files.b.cwiseQuotient(softmax(files.A * files.x_true));
  const double noise = standard_deviation(ratio) / ratio.mean() / 0.05;
  EXPECT_NEAR(noise * noise, 1, chi_square_spread(double{n - 1}) + 0.01);  // 0.01: the mean of the ratio
}

TEST(GenerateStatistics, IllConditioned) {
  const Communicator world(MPI_COMM_WORLD);
  const TestDirectory directory(world);
  auto options = problem(Preset::illcond, n, d);
  options.decay = 1e3;
  const auto facts = generate(world, options, directory);
  const auto files = read_files(directory.path());
  // Davidson and Szarek: the singular values of G sqrt(d / n) lie within sqrt(d / n) + t of 1, but for a probability of
  // 2 exp(-n t^2 / 2); the k-th of A = G diag(sigma) Q is sigma_k times a number in that range.
  const VectorXd values = reference::singular_values(files.A) * std::sqrt(double{d} / double{n});
  const double width = std::sqrt(double{d} / double{n}) + std::sqrt(2 * 21.5 / double{n});
  for (Eigen::Index k = 0; k < d; ++k)
    EXPECT_NEAR(values[k] * std::pow(1e3, static_cast<double>(k) / double{d - 1}), 1, width) << k;
  // A x_true = G y with |y| = sqrt(d) spread.
  EXPECT_NEAR(facts.z_true_std * facts.z_true_std / 9, 1, chi_square_spread(double{n - 1}) + 1 / double{n});
}

TEST(GenerateStatistics, Coherent) {
  const Communicator world(MPI_COMM_WORLD);
  for (const double neff : {1.5, 200.0, 2000.0, 1e9}) {
    const TestDirectory directory(world);
    auto options = problem(Preset::coherent, n, d);
    options.neff = neff;
    const auto facts = generate(world, options, directory);
    const auto files = read_files(directory.path());
    const double expected = std::min(neff, 0.5 * (double{n} + 1));
    EXPECT_NEAR(1 / files.b.squaredNorm(), expected, 1e-6 * expected);

    const VectorXd norms = files.A.rowwise().squaredNorm();
    std::vector<Eigen::Index> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](auto left, auto right) { return norms[left] > norms[right]; });
    double share = 0;
    for (std::size_t k = 0; k < d / 4; ++k) {
      share += norms[order[k]];
      const double rounding = 16 * double{d} * 0x1p-52 * std::sqrt(norms[order[k]]) * files.x_true.norm();
      EXPECT_LE(std::abs(files.A.row(order[k]).dot(files.x_true)), rounding);
    }
    EXPECT_NEAR(*facts.row_norm2_top_quarter_d_share, share / norms.sum(), 1e-12);
    EXPECT_NEAR(*facts.row_norm2_max_over_mean, norms.maxCoeff() / norms.mean(), 1e-11 * norms.maxCoeff());
  }
}

TEST(GenerateStatistics, Misfit) {
  const Communicator world(MPI_COMM_WORLD);
  for (const double noise : {0.0, 2.0, 4.0}) {
    const TestDirectory directory(world);
    auto options = problem(Preset::misfit, n, d);
    options.logit_noise = noise;
    generate(world, options, directory);
    const auto files = read_files(directory.path());
    if (noise == 0) {
      expect_targets_fit(files);
      continue;
    }
    // ln b is z + noise N(0, 1) up to a constant.
    const VectorXd normal = (files.b.array().log().matrix() - files.A * files.x_true) / noise;
    const double deviation = standard_deviation(normal);
    EXPECT_NEAR(deviation * deviation, 1, chi_square_spread(double{n - 1}) + 1 / double{n});
  }
}

TEST(GenerateStatistics, MisfitByZipfsLaw) {
  const Communicator world(MPI_COMM_WORLD);
  const TestDirectory directory(world);
  auto options = problem(Preset::misfit, n, d);
  options.zipf = true;
  generate(world, options, directory);
  const auto files = read_files(directory.path());
  EXPECT_NEAR(files.b.sum(), 1, 1e-12);
  for (Eigen::Index i = 0; i < n; ++i) EXPECT_NEAR(files.b[i] * static_cast<double>(i + 1), files.b[0], 1e-15);
  EXPECT_EQ(files.w.minCoeff(), 0.1 / double{n});
  EXPECT_EQ(files.w.maxCoeff(), 0.1 / double{n});
  EXPECT_EQ(files.x_true.norm(), 0);
}

TEST(GenerateStatistics, CoherentRowsHaveHeavyTails) {
  const Communicator world(MPI_COMM_WORLD);
  const TestDirectory directory(world);
  generate(world, problem(Preset::coherent, n, 64), directory);
  const VectorXd norms = read_files(directory.path()).A.rowwise().norm();
  // |row| = |t_2| sqrt(chi^2_64 / 64); P(|t_2| > x) = 1 - x / sqrt(2 + x^2). The factor blurs x by less than 10 % on
  // average; Hoeffding: frequencies of n rows keep within sqrt(21.5 / (2 n)) of their probability.
  for (const double x : {1.0, 4.0, 10.0}) {
    const double frequency = static_cast<double>((norms.array() > x).count()) / double{n};
    const auto tail = [](double t) { return 1 - t / std::sqrt(2 + t * t); };
    const double chance = std::sqrt(21.5 / (2 * double{n}));
    EXPECT_GE(frequency, tail(x * 1.1) - chance);
    EXPECT_LE(frequency, tail(x / 1.1) + chance);
  }
}

}  // namespace attnreg::test_generate_statistics
