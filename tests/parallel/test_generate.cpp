#include "problems/problem_generator.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "generated_files.hpp"
#include "numbers/exact_sum.hpp"
#include "numbers/random.hpp"

namespace attnreg::test_generate {

TEST(ExactSum, DoesNotDependOnTheDistribution) {
  const Communicator world(MPI_COMM_WORLD);
  constexpr int count = 2000;
  const RandomStream values(1, Purpose::problem_rows), owners(1, Purpose::problem_noise);
  ExactSum serial(1, count, count);
  std::vector<double> all(count);
  for (int i = 0; i < count; ++i) {
    all[static_cast<std::size_t>(i)] = (values.uniform(i) - 0.5) * std::exp2(-60 * values.uniform(i, 1));
    serial.add(0, all[static_cast<std::size_t>(i)]);
  }
  for (std::uint32_t split = 0; split < 5; ++split) {
    ExactSum parallel(1, count, count);
    for (int i = 0; i < count; ++i)
      if (static_cast<int>(owners.uniform(i, split) * world.size()) == world.rank())
        parallel.add(0, all[static_cast<std::size_t>(i)]);
    parallel.reduce(world);
    EXPECT_EQ(parallel.values()[0], serial.values()[0]);
  }
  const Eigen::Map<const Eigen::VectorXd> terms(all.data(), world.rank() == world.size() - 1 ? count : 0);
  const double from_one_rank = exact_sum(world, terms, count);
  EXPECT_NEAR(from_one_rank, serial.values()[0], 1e-14 * std::abs(from_one_rank));
}

/// Collective. Generates with all ranks, into `parallel`, and with one, and compares all bytes and facts.
void expect_same_problem(const Communicator& world, const ProblemOptions& options, const TestDirectory& parallel) {
  const auto facts = fact_values(generate(world, options, parallel));
  const bool replicated = world.is_replicated(facts);
  if (world.is_root()) {
    const Communicator self(MPI_COMM_SELF);
    const TestDirectory serial(self);
    const auto serial_facts = fact_values(generate(self, options, serial));
    EXPECT_EQ(facts, serial_facts);
    for (const auto* name : {"/A.npy", "/b.npy", "/w.npy", "/x_true.npy"}) {
      const auto bytes = file_bytes(parallel.path() + name);
      EXPECT_FALSE(bytes.empty()) << name;
      EXPECT_TRUE(bytes == file_bytes(serial.path() + name))
          << name << " " << preset_name(options.preset) << " n " << options.rows << " d " << options.columns;
    }
  }
  EXPECT_TRUE(replicated);
  for (const double fact : facts) EXPECT_TRUE(std::isfinite(fact)) << fact;
}

TEST(Generate, SameBytesOnAnyNumberOfRanks) {
  const Communicator world(MPI_COMM_WORLD);
  for (const auto preset : all_presets)
    for (const auto type : {Storage::float64, Storage::float32}) {
      auto options = problem(preset, 5000, 37);
      options.type = type;
      const TestDirectory directory(world);
      expect_same_problem(world, options, directory);
    }
}

TEST(Generate, SameBytesByZipfsLaw) {
  const Communicator world(MPI_COMM_WORLD);
  for (const std::int64_t rows : {1, 5000}) {
    auto options = problem(Preset::misfit, rows, 3);
    options.zipf = true;
    const TestDirectory directory(world);
    expect_same_problem(world, options, directory);
  }
}

TEST(Generate, DegenerateSizes) {
  const Communicator world(MPI_COMM_WORLD);
  struct Size {
    std::int64_t rows, columns;
  };
  for (const auto preset : all_presets)
    for (const auto size : {Size{1, 1}, {1, 5}, {3, 1}, {2, 40}, {9, 8}, {1025, 3}}) {
      const TestDirectory directory(world);
      expect_same_problem(world, problem(preset, size.rows, size.columns), directory);
      const auto files = read_files(directory.path());
      EXPECT_EQ(files.A.rows(), size.rows);
      EXPECT_EQ(files.A.cols(), size.columns);
      EXPECT_TRUE(files.A.allFinite() && files.b.allFinite() && files.w.allFinite() && files.x_true.allFinite());
      EXPECT_NEAR(files.b.sum(), 1, 1e-12) << preset_name(preset) << " " << size.rows << " " << size.columns;
      EXPECT_GE(files.b.minCoeff(), 0);
      EXPECT_GT(files.w.minCoeff(), 0);
    }
}

TEST(Generate, RowsDependOnSeedAndIndexOnly) {
  const Communicator world(MPI_COMM_WORLD);
  const TestDirectory directory(world);
  auto options = problem(Preset::practical, 2100, 5);
  options.seed = 99;
  generate(world, options, directory);
  const auto A = read_files(directory.path()).A;
  const RandomStream stream(99, Purpose::problem_rows);
  for (Eigen::Index i = 0; i < A.rows(); ++i) {
    Eigen::VectorXd row(5);
    stream.normals(i, {row.data(), 5});
    EXPECT_LE((A.row(i).transpose() - row / std::sqrt(5.0)).norm(), 1e-15 * row.norm()) << i;
  }
}

TEST(Generate, Float32RoundsTheRowsAndNothingElse) {
  const Communicator world(MPI_COMM_WORLD);
  const TestDirectory wide(world), narrow(world);
  auto options = problem(Preset::illcond, 1500, 6);
  generate(world, options, wide);
  options.type = Storage::float32;
  generate(world, options, narrow);
  const auto exact = read_files(wide.path()), rounded = read_files(narrow.path());
  EXPECT_EQ(rounded.types, (std::vector{Storage::float32, Storage::float64, Storage::float64, Storage::float64}));
  EXPECT_EQ(rounded.A, RowMajorMatrix(exact.A.cast<float>().cast<double>()));
  EXPECT_EQ(rounded.x_true, exact.x_true);
  EXPECT_EQ(rounded.w, exact.w);
  EXPECT_NE(rounded.b, exact.b);
}

TEST(Generate, RefusesOptionsOutOfRange) {
  const Communicator world(MPI_COMM_WORLD);
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  const std::vector<std::function<void(ProblemOptions&)>> mistakes{
      [](auto& options) { options.rows = 0; },
      [](auto& options) { options.rows = (std::int64_t{1} << 40) + 1; },
      [](auto& options) { options.columns = 0; },
      [](auto& options) { options.columns = 1'000'001; },
      [](auto& options) { options.spread = 0; },
      [=](auto& options) { options.spread = nan; },
      [](auto& options) { options.weight_scale = -1; },
      [=](auto& options) { options.weight_scale = infinity; },
      [](auto& options) { options.decay = 0.5; },
      [=](auto& options) { options.decay = infinity; },
      [](auto& options) { options.neff = 0.5; },
      [=](auto& options) { options.neff = nan; },
      [](auto& options) { options.logit_noise = -0.1; },
      [=](auto& options) { options.logit_noise = infinity; },
      [](auto& options) { options.zipf = true; },  // of practical
      [](auto& options) { options.x_power = 1.5; },
      [](auto& options) { options.x_power = -0.1; },
  };
  for (std::size_t k = 0; k < mistakes.size(); ++k) {
    auto options = problem(Preset::practical, 10, 2);
    mistakes[k](options);
    bool thrown = false;
    try {
      generate_problem(world, options, "nowhere");
    } catch (const InvalidArgument& error) {
      thrown = error.scope() == Error::Scope::all_ranks;
    }
    EXPECT_TRUE(thrown) << k;
  }
}

TEST(Generate, SaysOnAllRanksThatItCannotWrite) {
  const Communicator world(MPI_COMM_WORLD);
  const TestDirectory directory(world);
  bool thrown = false;
  try {
    generate_problem(world, problem(Preset::easy, 10, 2), directory.path() + "/missing");
  } catch (const OutputError& error) {
    thrown = error.scope() == Error::Scope::all_ranks;
  }
  EXPECT_TRUE(thrown);
}

TEST(Generate, PresetNames) {
  for (const auto preset : all_presets) EXPECT_EQ(preset_by_name(preset_name(preset)), preset);
  EXPECT_EQ(preset_by_name(preset_name(Preset::sparse)), Preset::sparse);
  EXPECT_EQ(preset_names().size(), std::size(all_presets) + 1);
  EXPECT_THROW(preset_by_name("dense"), InvalidArgument);
}

}  // namespace attnreg::test_generate
