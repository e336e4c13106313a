// The audit of a solve: it changes nothing, finds nothing in honest runs, and finds what is wrong at the rate that it
// promises. Flips of bits in the program itself: tests/system/test_audit.py.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "attnreg/regression.hpp"
#include "losses/losses.hpp"
#include "objective/regression_objective.hpp"
#include "ranks/hash.hpp"
#include "support/reference.hpp"
#include "support/refusal.hpp"
#include "surrogate/surrogate.hpp"

namespace attnreg::test_audit {

using Eigen::VectorXd;
using reference::Holding;
using reference::Layout;
using testing::HasSubstr;

const Communicator& world() {
  static const Communicator communicator(MPI_COMM_WORLD);
  return communicator;
}

/// Logits about 1, b what the loss gives at some x, with errors.
reference::Problem problem_of(const std::string& loss, Index rows, Index columns, double weight = 1e-2) {
  reference::Problem problem{reference::random_matrix(rows, columns, 1) / std::sqrt(static_cast<double>(columns)),
                             VectorXd::Zero(rows), VectorXd::Constant(rows, weight), loss};
  const VectorXd x = reference::random_vector(columns, 3);
  const auto z = (problem.A * x).array().eval();
  if (loss.ends_with("cosh"))
    problem.b = z.cosh();
  else if (loss.ends_with("sinh"))
    problem.b = z.sinh();
  else
    problem.b = z.exp();
  if (loss != "exp" && loss != "cosh" && loss != "sinh") problem.b /= problem.b.sum();
  problem.b.array() *= 1 + 0.1 * reference::random_vector(rows, 4).array();
  return problem;
}

/// What is thrown on all ranks together, with code 9.
template <class Call>
std::string failure(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.scope() == Error::Scope::all_ranks && error.code() == ExitCode::internal ? error.what()
                                                                                          : "another error";
  }
  return "nothing thrown";
}

std::vector<std::string> names_of_losses() {
  std::vector<std::string> names;
  for (const auto name : loss_names()) names.emplace_back(name);
  return names;
}

class AuditOfLoss : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(All, AuditOfLoss, testing::ValuesIn(names_of_losses()));

TEST_P(AuditOfLoss, ChangesNothingAndFindsNothing) {
  constexpr Index kRows = 900, kColumns = 4;
  const auto problem = problem_of(GetParam(), kRows, kColumns);
  for (const auto& [holding, layout] :
       {std::pair(Holding::float64, Layout::random), std::pair(Holding::sparse32, Layout::all_on_last)})
    for (const auto method : {Method::newton, Method::newton_cg, Method::surrogate}) {
      if (method == Method::surrogate && !has_surrogate(GetParam())) continue;
      const auto data = reference::distribute(world(), problem, layout, holding);
      RegressionOptions options;
      options.loss = GetParam();
      options.method = method;
      options.start = Start::given;
      options.x0 = VectorXd::Constant(kColumns, 0.1);
      options.newton.max_iterations = 8;
      const auto plain = solve_regression(data.A, data.b, data.w, options);
      EXPECT_EQ(plain.audit.evaluations, 0);
      for (const double rate : {1.0, 0.3}) {
        options.audit = rate;
        const auto audited = solve_regression(data.A, data.b, data.w, options);
        EXPECT_EQ(audited.x, plain.x) << "rate " << rate << ", method " << method_name(method);
        EXPECT_EQ(audited.summary.value, plain.summary.value);
        EXPECT_EQ(audited.audit.rate, rate);
        EXPECT_EQ(audited.audit.repeated + audited.audit.misjudged, 0);
        EXPECT_EQ(audited.warnings, plain.warnings);
        EXPECT_GT(audited.audit.evaluations, 1);
        const double share = static_cast<double>(audited.audit.rows) / kRows;
        EXPECT_NEAR(audited.audit.reads, share, 1e-12 * share);
        if (rate == 1) {
          EXPECT_GE(share, static_cast<double>(audited.audit.evaluations));
        }
      }
    }
}

/// Hundreds of evaluations at all kinds of points for each of these, every row made again in each. Tiles of 300 columns
/// have 64 rows, which are added to those of the tile before.
TEST_P(AuditOfLoss, HasNoFalseAlarm) {
  for (const Index columns : {7, 300}) {
    const auto problem = problem_of(GetParam(), columns == 7 ? 70 : 150, columns);
    for (const auto holding : {Holding::float64, Holding::float16, Holding::sparse64}) {
      const auto data = reference::distribute(world(), problem, Layout::even, holding);
      RegressionObjective objective(data.A, data.b, data.w, make_loss(GetParam()));
      objective.begin_audit(1, 1);
      Point point = objective.evaluate(VectorXd::Zero(columns));
      const std::uint64_t steps = columns == 7 ? 60 : 15;
      for (std::uint64_t k = 0; k < steps; ++k) {
        const double size = std::pow(10.0, -static_cast<double>(k % 12));
        Direction direction = objective.direction(size * reference::random_vector(columns, 10 + k));
        Direction p{reference::random_vector(columns, 1000 + k)};
        objective.hessian_product(point, p);
        direction.add(0.1 * size, p);
        point = objective.step(std::move(point), std::move(direction), {.t = k % 3 == 0 ? 0.5 : 1.0});
        if (k % 5 == 0) {
          auto ahead = objective.likely_direction(point, size * reference::random_vector(columns, 2000 + k));
          point = objective.step(std::move(point), std::move(ahead), {.t = 1});
        }
        if (k % 20 == 19) point = objective.evaluate(0.5 * reference::random_vector(columns, k));
      }
      EXPECT_GE(objective.audit()->report().evaluations, static_cast<std::int64_t>(steps));
      EXPECT_EQ(objective.audit()->report().rows % problem.A.rows(), 0);
      EXPECT_THAT(objective.audit()->warnings(), testing::IsEmpty()) << static_cast<int>(holding);
      EXPECT_EQ(objective.audit()->report().misjudged, 0);
    }
  }
}

TEST(Audit, KnowsOffsetsMasksAndCentredColumns) {
  auto problem = problem_of("softmax", 600, 5);
  problem.A.col(1).array() += 1e4;
  VectorXd offset = 0.3 * reference::random_vector(600, 9);
  for (Index i = 0; i < 600; i += 7) offset[i] = -std::numeric_limits<double>::infinity();
  const auto data = reference::distribute(world(), problem, Layout::random);
  RegressionOptions options;
  options.offset = std::make_shared<const VectorXd>(reference::local_part(data.A, offset));
  const auto plain = solve_regression(data.A, data.b, data.w, options);
  options.audit = 1;
  const auto audited = solve_regression(data.A, data.b, data.w, options);
  EXPECT_EQ(audited.x, plain.x);
  EXPECT_EQ(audited.warnings, plain.warnings);
}

/// Half of the rows, whole tiles and ranks of them, have exp(z)^2 next to the smallest numbers that there are.
TEST(Audit, KnowsNumbersThatUnderflow) {
  for (const auto* const loss : {"softmax", "cross-entropy", "exp"}) {
    auto problem = problem_of(loss, 2200, 4);
    for (Index i = 0; i < 2200; ++i) problem.A(i, 0) = i < 1100 ? -1 : 0;
    const auto data = reference::distribute(world(), problem, Layout::even);
    RegressionObjective objective(data.A, data.b, data.w, make_loss(loss));
    objective.begin_audit(1, 1);
    for (const double size : {350.0, 355.0, 360.0, 365.0, 370.0, 372.0, 500.0, 740.0}) {
      VectorXd x = reference::random_vector(4, 5);
      x[0] = size;
      Point point = objective.evaluate(x);
      point = objective.refreshed(std::move(point));
    }
    EXPECT_THAT(objective.audit()->warnings(), testing::IsEmpty()) << loss;
  }
}

TEST(Audit, DrawsTheSameRowsOnAnyNumberOfRanks) {
  const auto problem = problem_of("softmax", 9000, 40);
  std::vector<std::int64_t> rows;
  for (const auto& communicator : {world(), Communicator(MPI_COMM_SELF)}) {
    const auto data = reference::distribute(communicator, problem, Layout::tiled);
    RegressionObjective objective(data.A, data.b, data.w, make_loss("softmax"));
    objective.begin_audit(0.2, 3);
    for (std::uint64_t k = 0; k < 40; ++k) objective.evaluate(reference::random_vector(40, k));
    rows.push_back(objective.audit()->report().rows);
  }
  EXPECT_EQ(rows[0], rows[1]);
  EXPECT_NEAR(static_cast<double>(rows[0]), 0.2 * 40 * 9000, 0.075 * 40 * 9000);  // 5 deviations of 720 draws
}

TEST(Audit, OfSeveralTargetsAndOfBlocks) {
  const auto problem = problem_of("softmax", 800, 5);
  Eigen::MatrixXd B(800, 3);
  for (Index k = 0; k < 3; ++k)
    B.col(k) = reference::softmax(problem.A, reference::random_vector(5, 20 + static_cast<std::uint64_t>(k)));
  std::vector<VectorXd> of_blocks;
  for (const double rate : {0.0, 0.5, 1.0}) {
    RegressionOptions options;
    options.audit = rate;
    const RowMatrix A = reference::distribute(world(), problem.A, Layout::tiled);
    const auto results = solve_targets(A, B.middleRows(A.first_row(), A.rows_local()), 1e-3, options);
    for (const auto& result : results) {
      EXPECT_EQ(result.audit.evaluations > 0, rate > 0);
      EXPECT_EQ(result.audit.repeated + result.audit.misjudged, 0);
    }
    world().in_blocks(5, [&](const Communicator& block) {
      const RowMatrix own = reference::distribute(block, problem.A, Layout::even);
      const VectorXd b = B.col(0).segment(own.first_row(), own.rows_local());
      const auto result = solve_regression(own, b, 1e-3, options);
      EXPECT_EQ(result.audit.repeated + result.audit.misjudged, 0);
      if (block.is_root()) of_blocks.push_back(result.x);
    });
  }
  for (const VectorXd& x : of_blocks) EXPECT_EQ(x, of_blocks.front());
}

/// A matrix in memory of the test's own, in which bits flip.
struct OwnRows {
  reference::Problem problem = problem_of("softmax", 1500, 6);
  RowPartition partition = reference::make_partition(Layout::even, 1500, 6, world().size());
  RowMajorMatrix rows = problem.A.middleRows(partition.begin(world().rank()), partition.rows_local(world().rank()));
  RowMatrix A = RowMatrix::view(world(), partition, rows.data(), 6);
  VectorXd b = reference::local_part(A, problem.b), w = reference::local_part(A, problem.w);

  /// Of one number of the last rank.
  void flip(int bit) {
    if (world().rank() != world().size() - 1) return;
    double& number = rows(rows.rows() - 1, 2);
    number = std::bit_cast<double>(std::bit_cast<std::uint64_t>(number) ^ (std::uint64_t{1} << bit));
  }
};

// A number of A that has changed is found in an evaluation with probability r, so within k of them with 1 - (1 - r)^k.
// A right detector is off by five standard deviations of the 150 trials with probability 6e-7.
TEST(Audit, FindsChangedRowsAtTheRateOfTheTheory) {
  constexpr int kTrials = 150, kEvaluations = 5;
  OwnRows own;
  for (const double rate : {0.1, 0.4}) {
    std::array<int, kEvaluations> found{};
    for (int trial = 0; trial < kTrials; ++trial) {
      RegressionObjective objective(own.A, own.b, own.w, make_loss("softmax"));
      objective.begin_audit(rate, 100 + static_cast<std::uint64_t>(trial));
      own.flip(trial % 64);
      for (std::size_t k = 0; k < kEvaluations; ++k) {
        const auto text = failure([&] { objective.evaluate(VectorXd::Constant(6, 0.1)); });
        if (text == "nothing thrown") continue;
        EXPECT_THAT(text, HasSubstr("of rank " + std::to_string(world().size() - 1) + " have changed in memory"));
        for (; k < kEvaluations; ++k) ++found[k];
      }
      own.flip(trial % 64);
    }
    for (std::size_t k = 0; k < kEvaluations; ++k) {
      const double expected = 1 - std::pow(1 - rate, static_cast<double>(k + 1));
      const double deviation = std::sqrt(expected * (1 - expected) / kTrials);
      EXPECT_NEAR(found[k] / static_cast<double>(kTrials), expected, 5 * deviation) << "rate " << rate << ", k " << k;
    }
  }
}

// By the pass that looks at the columns.
TEST(Audit, HashesAreMadeInAPass) {
  const RowMajorMatrix dense = reference::random_matrix(700, 40, 2);
  for (const Holding holding : reference::holdings) {
    const bool is_sparse = holding == Holding::sparse64 || holding == Holding::sparse32;
    const RowMatrix A = reference::distribute(world(), dense, Layout::tiled, holding);
    const RowPasses& passes = A.passes();
    const auto hashes = passes.tile_hashes();
    EXPECT_EQ(passes.reads(), 1);
    EXPECT_EQ(hashes.size(), passes.tiles().size());
    passes.hash_in_next_pass();
    const ScaledColumns columns(A, true);
    EXPECT_EQ(passes.tile_hashes(), hashes);
    EXPECT_EQ(passes.reads(), is_sparse ? 2 : 1);
    for (std::size_t k = 0; k < hashes.size(); ++k) {
      std::vector<char> packed;
      passes.pack_rows(passes.tiles()[k].first_local, passes.tiles()[k].rows, packed);
      EXPECT_EQ(passes.hash_of_packed(packed, passes.tiles()[k].rows), hashes[k]);
      packed.back() = static_cast<char>(packed.back() ^ 1);
      EXPECT_NE(passes.hash_of_packed(packed, passes.tiles()[k].rows), hashes[k]);
    }
  }
}

TEST(Audit, FindsRowsThatChangeWithinASolve) {
  OwnRows own;
  for (const Method method : {Method::newton, Method::newton_cg, Method::surrogate}) {
    RegressionOptions options;
    options.method = method;
    options.start = Start::zero;
    options.audit = 1;
    bool changed = false;
    options.newton.on_iteration = [&](const IterationRecord&) {
      if (!std::exchange(changed, true)) own.flip(3);
    };
    EXPECT_THAT(failure([&] { solve_regression(own.A, own.b, own.w, options); }), HasSubstr("have changed in memory"));
    own.flip(3);
  }
}

TEST(Audit, HashesFindEveryBitThatFlips) {
  for (const std::size_t size : {1U, 7U, 8U, 63U, 64U, 65U, 200U}) {
    std::vector<char> bytes(size);
    for (std::size_t k = 0; k < size; ++k) bytes[k] = static_cast<char>(37 * k);
    const auto hash = hash_of(bytes);
    for (std::size_t bit = 0; bit < 8 * size; ++bit) {
      const auto flip = [&] { bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8))); };
      flip();
      EXPECT_NE(hash_of(bytes), hash) << size << " bytes, bit " << bit;
      flip();
    }
    EXPECT_EQ(hash_of(bytes), hash);
    EXPECT_NE(hash_of(bytes, 1), hash);
  }
}

TEST(Audit, FindsThatRanksHaveDifferentX) {
  const auto problem = problem_of("softmax", 300, 4);
  const auto data = reference::distribute(world(), problem, Layout::even);
  RegressionObjective objective(data.A, data.b, data.w, make_loss("softmax"));
  objective.begin_audit(0.5, 1);
  VectorXd x = VectorXd::Ones(4);
  if (world().rank() == world().size() - 1) x[3] += 1e-15;
  const auto text = failure([&] { objective.evaluate(x); });
  if (world().size() > 1) {
    EXPECT_THAT(text, HasSubstr("have different x"));
  } else {
    EXPECT_EQ(text, "nothing thrown");
  }
}

TEST(Audit, RefusesRatesThatAreNone) {
  const auto problem = problem_of("softmax", 30, 2);
  const auto data = reference::distribute(world(), problem, Layout::even);
  for (const double rate : {-0.1, 1.5, std::numeric_limits<double>::quiet_NaN()}) {
    RegressionOptions options;
    options.audit = rate;
    EXPECT_THAT(refusal([&] { solve_regression(data.A, data.b, data.w, options); }), HasSubstr("rate of the audit"));
  }
}

}  // namespace attnreg::test_audit
