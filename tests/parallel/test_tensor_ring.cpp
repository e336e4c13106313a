// Tensors in files, and their fit by alternating least squares, beside the formula tr(U_a V_b W_c).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "experiments/tensor_ring.hpp"
#include "files/tensor_file.hpp"
#include "support/npy_bytes.hpp"
#include "support/reference.hpp"
#include "support/refusal.hpp"
#include "support/temporary_directory.hpp"

namespace attnreg::test_tensor_ring {

using namespace experiments;
using testing::HasSubstr;
using Sides = std::array<Index, 3>;
using Spread = CycleRank::Spread;

/// The whole tensor, element (a, b, c) at (a n2 + b) n3 + c, by the definition.
std::vector<double> tensor_of(const std::array<MatrixXd, 3>& factors, Index k) {
  std::vector<double> entries;
  for (Index a = 0; a < factors[0].cols(); ++a)
    for (Index b = 0; b < factors[1].cols(); ++b)
      for (Index c = 0; c < factors[2].cols(); ++c) {
        double sum = 0;
        for (Index i = 0; i < k; ++i)
          for (Index j = 0; j < k; ++j)
            for (Index l = 0; l < k; ++l)
              sum += factors[0](i + k * j, a) * factors[1](j + k * l, b) * factors[2](l + k * i, c);
        entries.push_back(sum);
      }
  return entries;
}

std::array<MatrixXd, 3> random_factors(const Sides& sides, Index k, std::uint64_t seed) {
  return {reference::random_matrix(k * k, sides[0], seed), reference::random_matrix(k * k, sides[1], seed + 1),
          reference::random_matrix(k * k, sides[2], seed + 2)};
}

double distance(const std::vector<double>& one, const std::vector<double>& other) {
  double sum = 0;
  for (std::size_t k = 0; k < one.size(); ++k) sum += (one[k] - other[k]) * (one[k] - other[k]);
  return std::sqrt(sum);
}

double norm(const std::vector<double>& values) { return distance(values, std::vector<double>(values.size(), 0)); }

class TensorTest : public testing::Test {
 protected:
  ~TensorTest() override { comm_.barrier(); }

  SlicedTensor sliced(const std::vector<double>& entries, const Sides& sides) const {
    SlicedTensor tensor{{sides[0], sides[1], sides[2]}, RowPartition::in_blocks(sides[0], 1, comm_.size()), {}};
    const Index columns = sides[1] * sides[2];
    const RowMajorMatrix all = Eigen::Map<const RowMajorMatrix>(entries.data(), sides[0], columns);
    tensor.entries = all.middleRows(tensor.slices.begin(comm_.rank()), tensor.slices.rows_local(comm_.rank()));
    return tensor;
  }

  /// Collective. Rank 0 writes the file; the path.
  std::string write(const std::string& name, const std::string& bytes) const {
    if (comm_.is_root()) directory_.write(name, bytes);
    comm_.barrier();
    return directory_.path(name);
  }

  const Communicator comm_{MPI_COMM_WORLD};
  const test::TemporaryDirectory directory_ = test::TemporaryDirectory::shared(comm_);
};

/// Numbers that tell their place.
std::vector<double> numbered(std::size_t count) {
  std::vector<double> values(count);
  for (std::size_t k = 0; k < count; ++k) values[k] = static_cast<double>(k) - 7;
  return values;
}

TEST_F(TensorTest, IsReadBySlicesInEitherOrder) {
  const Sides sides{3, 4, 5};
  const std::vector<double> values = numbered(60);
  std::vector<double> fortran;
  for (std::size_t c = 0; c < 5; ++c)
    for (std::size_t b = 0; b < 4; ++b)
      for (std::size_t a = 0; a < 3; ++a) fortran.push_back(values[(a * 4 + b) * 5 + c]);
  const std::vector<float> floats(values.begin(), values.end());
  const std::string files[] = {
      write("C.npy", test::npy_bytes(test::npy_dictionary("<f8", false, "(3, 4, 5)"), test::scalar_bytes(values))),
      write("F.npy", test::npy_bytes(test::npy_dictionary("<f8", true, "(3, 4, 5)"), test::scalar_bytes(fortran))),
      write("f4.npy",
            test::npy_bytes(test::npy_dictionary(">f4", false, "(3, 4, 5)"), test::scalar_bytes(floats, true))),
      write("part.npy",
            test::npy_bytes(test::npy_dictionary("<f8", false, "(1, 3, 4, 5)"), test::scalar_bytes(values))) +
          "[0]"};
  const SlicedTensor expected = sliced(values, sides);
  for (const auto& file : files) {
    const SlicedTensor tensor = load_tensor(comm_, file);
    EXPECT_EQ(tensor.sides, expected.sides) << file;
    EXPECT_EQ(tensor.slices.rows_global(), 3);
    EXPECT_EQ(tensor.entries, expected.entries) << file;
  }
}

TEST_F(TensorTest, OtherFilesAreRefused) {
  const auto refused = [&](const std::string& shape, std::vector<double> values) {
    const std::string file =
        write("T.npy", test::npy_bytes(test::npy_dictionary("<f8", false, shape), test::scalar_bytes(values)));
    const std::string message = refusal([&] { load_tensor(comm_, file); });
    comm_.barrier();
    return message;
  };
  EXPECT_THAT(refused("(3, 20)", numbered(60)), HasSubstr("found shape (3, 20), expected a tensor (n1, n2, n3)"));
  EXPECT_THAT(refused("(3, 0, 5)", {}), HasSubstr("without a side of 0"));
  std::vector<double> values = numbered(60);
  values[43] = values[50] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(refused("(3, 4, 5)", values), HasSubstr("element (2, 0, 3) is nan; 2 values are not finite"));
  EXPECT_THAT(refusal([&] { load_tensor(comm_, directory_.path("none.npy")); }), HasSubstr("none.npy"));
}

TEST_F(TensorTest, ASweepSolvesTheNormalEquations) {
  const Index k = 2;
  for (const Sides sides : {Sides{6, 5, 4}, Sides{2, 3, 9}}) {
    const auto entries = [&] {
      std::vector<double> all = tensor_of(random_factors(sides, 3, 5), 3);  // of rank 3: it does not fit
      const double size = norm(all);
      for (double& entry : all) entry /= size;
      return all;
    }();
    const SlicedTensor tensor = sliced(entries, sides);
    const TensorSlices slices{sides, static_cast<Index>(tensor.slices.begin(comm_.rank())), tensor.entries.rows(),
                              tensor.entries.data()};
    TensorRing ring(comm_, slices, {.rank = k, .seed = 3}, 0);
    for (int sweep = 0; sweep < 3; ++sweep) ring.sweep();
    const auto& factors = ring.factors();
    const std::vector<double> fit = tensor_of(factors, k);
    const double left = distance(entries, fit);
    EXPECT_NEAR(ring.residual(), left, 1e-14);
    EXPECT_GT(left, 0.01);
    // W was renewed last: what is left is orthogonal to what its entries can change, here entry (l, i) of W_c.
    for (Index c = 0; c < sides[2]; ++c)
      for (Index i = 0; i < k; ++i)
        for (Index l = 0; l < k; ++l) {
          double product = 0, size = 0;
          for (Index a = 0; a < sides[0]; ++a)
            for (Index b = 0; b < sides[1]; ++b) {
              double change = 0;
              for (Index j = 0; j < k; ++j) change += factors[0](i + k * j, a) * factors[1](j + k * l, b);
              const auto place = static_cast<std::size_t>((a * sides[1] + b) * sides[2] + c);
              product += change * (entries[place] - fit[place]);
              size += change * change;
            }
          EXPECT_LE(std::abs(product), 1e-12 * std::sqrt(size));
        }
  }
}

TEST_F(TensorTest, DrawnEquationsDoNearlyAsWell) {
  const SlicedTensor made = made_tensor(comm_, {.size = 12, .noise = 0.1, .seed = 2});
  RowMajorMatrix entries = made.entries / std::sqrt(comm_.sum(made.entries.squaredNorm()));
  const TensorSlices slices{
      {12, 12, 12}, static_cast<Index>(made.slices.begin(comm_.rank())), entries.rows(), entries.data()};
  double best = 1, best_drawn = 1;
  for (int start = 0; start < 4; ++start) {
    TensorRing all(comm_, slices, {.seed = 4}, start), drawn(comm_, slices, {.sampled_rows = 4000, .seed = 4}, start);
    for (int sweep = 0; sweep < 40; ++sweep) {
      const double exact = all.sweep(), estimate = drawn.sweep();
      if (sweep == 0) {
        EXPECT_NEAR(estimate / exact, 1, 0.1) << start;  // standard deviations of some percent
      }
    }
    best = std::min(best, all.residual());
    best_drawn = std::min(best_drawn, drawn.residual());
    const double left = drawn.residual();
    EXPECT_NEAR(drawn.sweep() / left, 1, 0.1) << start;
  }
  // 4000 draws for 4 unknowns add 0.05 % to the residual.
  EXPECT_NEAR(best, 0.096, 0.004);
  EXPECT_NEAR(best_drawn / best, 1, 0.005);
}

std::vector<double> residuals(const Table& table) {
  std::vector<double> all;
  for (std::size_t k = 0; k < table.rows.size(); ++k) all.push_back(table.at(k, "residual"));
  std::ranges::sort(all);
  return all;
}

TEST_F(TensorTest, TheRankIsFoundFromSomeStarts) {
  const auto fit = [&](double noise, std::int64_t sampled_rows) {
    return residuals(cycle_rank(comm_, made_tensor(comm_, {.noise = noise}), {.sampled_rows = sampled_rows}).table);
  };
  EXPECT_LT(fit(0, 0)[0], 1e-13);
  EXPECT_LT(fit(0, 40)[0], 1e-12);  // where the fit is exact, so is that of some equations
  const auto noisy = fit(0.01, 0);
  // The fit takes up some of the noise: 144 parameters of 1728 numbers, so 0.01 (1 - 144 / 1728)^{1/2} = 0.0096.
  EXPECT_NEAR(noisy[0], 0.0096, 0.0004);
  const auto sampled = fit(0.01, 40);
  EXPECT_GE(sampled[0], noisy[0]);
  EXPECT_LT(sampled[0], 0.013);  // 0.0106 measured before
}

TEST_F(TensorTest, SlicesAndStartsGiveTheSameOnAnyNumberOfRanks) {
  const Sides sides{2, 7, 5};  // fewer slices than ranks
  const Index k = 2;
  std::vector<double> entries = tensor_of(random_factors(sides, k, 11), k);
  for (double& entry : entries) entry *= 1e150;
  const Communicator self(MPI_COMM_SELF);
  for (const std::int64_t drawn : {0, 60}) {
    const CycleRank options{.rank = k, .sampled_rows = drawn, .starts = 4, .sweeps = 150, .seed = 7};
    const auto with = [&](const Communicator& communicator, Spread spread) {
      CycleRank own = options;
      own.spread = spread;
      SlicedTensor tensor = sliced(entries, sides);
      if (communicator.size() == 1) {
        tensor.slices = RowPartition::in_blocks(sides[0], 1, 1);
        tensor.entries = Eigen::Map<const RowMajorMatrix>(entries.data(), sides[0], sides[1] * sides[2]);
      }
      return cycle_rank(communicator, std::move(tensor), own);
    };
    const CycleRankFit alone = with(self, Spread::slices);
    for (const Spread spread : {Spread::slices, Spread::starts, Spread::by_memory}) {
      const CycleRankFit fit = with(comm_, spread);
      for (std::size_t start = 0; start < 4; ++start) {
        const double expected = alone.table.at(start, "residual"), found = fit.table.at(start, "residual");
        // Rounding grows along an iteration, but ends in the same minimum.
        EXPECT_NEAR(found, expected, 1e-6 * expected + 1e-12) << start;
      }
      EXPECT_LE(distance(tensor_of(fit.factors, k), entries) / norm(entries), 1e-12);
      std::vector<double> all;
      for (const MatrixXd& factor : fit.factors)
        all.insert(all.end(), factor.reshaped().begin(), factor.reshaped().end());
      EXPECT_TRUE(comm_.is_replicated(all));
    }
  }
}

TEST_F(TensorTest, WhatCannotBeFittedIsRefused) {
  const std::vector<double> zeros(27, 0), ones(27, 1);
  EXPECT_THAT(refusal([&] {
                cycle_rank(comm_, sliced(zeros, {3, 3, 3}), {});
              }),
              HasSubstr("all entries of the tensor are 0"));
  EXPECT_THAT(refusal([&] {
                cycle_rank(comm_, sliced(ones, {3, 3, 3}), {.rank = 4});
              }),
              HasSubstr("has 9 equations for the 16 unknowns"));
  EXPECT_THAT(refusal([&] { cycle_rank(comm_, sliced(ones, {3, 3, 3}), {.starts = 0}); }), HasSubstr("starts"));
  EXPECT_THAT(refusal([&] { made_tensor(comm_, {.noise = -1}); }), HasSubstr("noise"));
  // One number has rank 1.
  const CycleRankFit fit = cycle_rank(comm_, sliced({-3.0}, {1, 1, 1}), {.rank = 1});
  EXPECT_NEAR(fit.factors[0](0, 0) * fit.factors[1](0, 0) * fit.factors[2](0, 0), -3, 1e-14);
}

}  // namespace attnreg::test_tensor_ring
