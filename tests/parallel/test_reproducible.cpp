// On blocks x has the bits of one rank, with any number of ranks and threads, and however the blocks are dealt out.

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "attnreg/leverage.hpp"
#include "attnreg/regression.hpp"
#include "newton/journal.hpp"
#include "rows/row_passes.hpp"
#include "support/attention_problems.hpp"
#include "support/reference.hpp"

namespace attnreg::test_reproducible {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::Holding;

constexpr int kBlocks = 8;

const Communicator& world() {
  static const Communicator communicator(MPI_COMM_WORLD);
  return communicator;
}

/// On all blocks alike.
using Solve = std::function<VectorXd(const Communicator&)>;

VectorXd of_block_0(const Communicator& communicator, const std::vector<int>& deal, const Solve& solve) {
  VectorXd x;
  communicator.in_blocks(deal, [&](const Communicator& block) {
    const VectorXd own = solve(block);
    EXPECT_TRUE(block.is_replicated(reference::span_of(own)));
    if (block.is_root()) x = own;
  });
  auto size = static_cast<double>(x.size());
  communicator.broadcast(std::span(&size, 1));
  x.conservativeResize(static_cast<Index>(size));
  communicator.broadcast({x.data(), static_cast<std::size_t>(x.size())});
  return x;
}

void expect_the_same_bits(const Solve& solve) {
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const VectorXd expected = of_block_0(Communicator(MPI_COMM_SELF), {kBlocks}, solve);
  ASSERT_TRUE(expected.allFinite() && expected.size() > 0);
  const auto ranks = static_cast<std::size_t>(world().size());
  std::vector<int> even(ranks, 0), last(ranks, 1), rising(ranks, 0);
  for (int block = 0; block < kBlocks; ++block) ++even[static_cast<std::size_t>(block) % ranks];
  last.back() += kBlocks - std::accumulate(last.begin(), last.end(), 0);
  for (int block = 0; block < kBlocks; ++block)
    ++rising[std::min(static_cast<std::size_t>(block * block / 4), ranks - 1)];
  for (const auto& deal : {even, last, rising})
    for (const int count : {1, 2}) {
      omp_set_num_threads(count);
      const VectorXd found = of_block_0(world(), deal, solve);
      // Signs of 0 and NaN too.
      EXPECT_TRUE(found.size() == expected.size() &&
                  std::equal(found.begin(), found.end(), expected.begin(),
                             [](double a, double b) { return std::memcmp(&a, &b, sizeof a) == 0; }))
          << count << " threads, rank 0 with " << deal[0] << " blocks: off by " << (found - expected).norm();
    }
  omp_set_num_threads(threads);
}

/// A block of so much work that passes have several parts, on rank 0 by itself.
void expect_the_same_bits_of_parts(const Solve& solve) {
  if (world().size() > 2 || !world().is_root()) return;  // others wait, and would slow down its threads
  const Communicator self(MPI_COMM_SELF);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const VectorXd expected = of_block_0(self, {1}, solve);
  omp_set_num_threads(2);
  EXPECT_TRUE(of_block_0(self, {1}, solve) == expected);
  omp_set_num_threads(threads);
}

Solve regression(const reference::Problem& problem, const RegressionOptions& options, Holding holding) {
  return [=](const Communicator& block) {
    const auto data = reference::distribute(block, problem, reference::Layout::tiled, holding);
    return solve_regression(data.A, data.b, data.w, options).x;
  };
}

TEST(Reproducible, Methods) {
  const auto problem = reference::random_problem(9000, 40, 0.2, 1e-4, 1);
  for (const Method method :
       {Method::automatic, Method::newton, Method::newton_cg, Method::surrogate, Method::sketched_newton}) {
    SCOPED_TRACE(method_name(method));
    RegressionOptions options;
    options.method = method;
    options.sampling.oversampling = 10;
    options.newton.max_iterations = 12;
    expect_the_same_bits(regression(problem, options, Holding::float64));
  }
}

TEST(Reproducible, PartsOfLongBlocks) {
  reference::Problem problem = reference::random_problem(15000, 40, 0.2, 1e-4, 9);
  problem.A.array() *= (problem.A.array().abs() > 0.01).cast<double>();
  for (const Holding holding : {Holding::float64, Holding::sparse64})
    for (const Method method : {Method::newton, Method::surrogate}) {
      SCOPED_TRACE(std::string(method_name(method)) + (holding == Holding::sparse64 ? " of sparse rows" : ""));
      RegressionOptions options;
      options.method = method;
      options.newton.max_iterations = 3;
      expect_the_same_bits_of_parts([&](const Communicator& block) {
        const auto data = reference::distribute(block, problem, reference::Layout::tiled, holding);
        EXPECT_GT(RowPasses::parts(static_cast<double>(data.A.entries_local())), 1);
        return solve_regression(data.A, data.b, data.w, options).x;
      });
    }
}

TEST(Reproducible, HoldingsAndLosses) {
  reference::Problem problem = reference::random_problem(6000, 12, 0.3, 1e-3, 2);
  for (Index k = 0; k < problem.A.size(); k += 3) problem.A.data()[k] = 0;
  RegressionOptions options;
  options.certificate = CertificateLevel::full;
  for (const Holding holding : {Holding::float32, Holding::bfloat16, Holding::sparse64, Holding::sparse32}) {
    SCOPED_TRACE(static_cast<int>(holding));
    expect_the_same_bits(regression(problem, options, holding));
  }
  for (const char* const loss : {"cross-entropy", "exp", "cosh", "rescaled-sinh"})
    for (const Method method : {Method::newton, Method::newton_cg}) {
      SCOPED_TRACE(std::string(loss) + " by " + std::string(method_name(method)));
      options.loss = loss;
      options.method = method;
      expect_the_same_bits(regression(problem, options, Holding::float64));
      expect_the_same_bits(regression(problem, options, Holding::sparse64));
    }
}

TEST(Reproducible, StartsPathsAndTargets) {
  const auto problem = reference::random_problem(3000, 6, 1, 1e-3, 3);
  RegressionOptions options;
  options.random_starts = 2;
  expect_the_same_bits(regression(problem, options, Holding::float64));
  options.random_starts = 0;
  expect_the_same_bits([&](const Communicator& block) {
    const auto data = reference::distribute(block, problem);
    VectorXd all(18);
    const auto path = solve_path(data.A, data.b, {1e-2, 1e-3, 1e-4}, options);
    for (Index k = 0; k < 3; ++k) all.segment(6 * k, 6) = path[static_cast<std::size_t>(k)].x;
    return all;
  });
  expect_the_same_bits([&](const Communicator& block) {
    const auto data = reference::distribute(block, problem);
    MatrixXd B(data.b.size(), 5);
    B << data.b, 0.5 * data.b, data.b.cwiseSqrt() / 60, 0.7 * data.b, data.b.cwiseAbs2() * 900;
    VectorXd all(30);
    const auto results = solve_targets(data.A, B, data.w, options);
    for (Index k = 0; k < 5; ++k) all.segment(6 * k, 6) = results[static_cast<std::size_t>(k)].x;
    return all;
  });
}

TEST(Reproducible, WideAndTinyMatrices) {
  for (const auto& [rows, columns] : {std::pair<Index, Index>{12, 40}, {1, 1}, {3, 2}, {700, 1}}) {
    SCOPED_TRACE(rows);
    expect_the_same_bits(regression(reference::random_problem(rows, columns, 1, 1e-2, 4), {}, Holding::float64));
  }
}

TEST(Reproducible, LeverageScores) {
  const RowMajorMatrix A = reference::random_matrix(5000, 30, 5);
  for (const int columns : {0, 16})
    expect_the_same_bits([&](const Communicator& block) {
      LeverageOptions options;
      options.jl_columns = columns;
      const RowMatrix rows = reference::distribute(block, A, reference::Layout::tiled);
      return reference::gather(block, leverage_scores(rows, {}, options).scores);
    });
  for (const ExactRoute route : {ExactRoute::qr, ExactRoute::gram})
    expect_the_same_bits([&](const Communicator& block) {
      const RowMatrix rows = reference::distribute(block, A, reference::Layout::tiled);
      return reference::gather(block, exact_leverage_scores(rows, {}, route).scores);
    });
}

TEST(Reproducible, Attention) {
  using namespace attention_problems;
  for (const Index d3 : {Index{0}, Index{4}}) {
    auto planted = plant({300, 24, 4, 3, d3, d3 > 0 ? Index{3} : Index{0}}, 2, 1, 2, 6);
    for (auto& whole : planted.sequences) whole.target.array() *= 1 + 0.1 * (31 * whole.target.array()).sin();
    for (const AttentionModel model : {AttentionModel::dense, AttentionModel::kronecker}) {
      SCOPED_TRACE(std::string(model_name(model)) + (d3 > 0 ? " with values" : ""));
      expect_the_same_bits([&](const Communicator& block) {
        std::vector<AttentionSequence> sequences;
        for (const auto& whole : planted.sequences)
          sequences.push_back(distributed(block, whole, reference::Layout::even));
        AttentionOptions options;
        options.model = model;
        options.newton.max_iterations = 8;
        options.certificate = CertificateLevel::full;
        const auto found = solve_attention(block, sequences, options).unknowns;
        VectorXd all(found.X.size() + found.Y.size());
        all << found.X.reshaped(), found.Y.reshaped();
        return all;
      });
    }
  }
}

TEST(Reproducible, PartsOfLongAttention) {
  using namespace attention_problems;
  auto planted = plant({1100, 1000, 5, 4, 0, 0}, 2, 1, 1, 6);
  for (auto& whole : planted.sequences) whole.target.array() *= 1 + 0.1 * (31 * whole.target.array()).sin();
  expect_the_same_bits_of_parts([&](const Communicator& block) {
    const std::vector sequences{distributed(block, planted.sequences.front(), reference::Layout::even)};
    AttentionOptions options;
    options.newton.max_iterations = 1;
    return VectorXd(solve_attention(block, sequences, options).unknowns.X.reshaped());
  });
}

TEST(Reproducible, Heads) {
  using namespace attention_problems;
  const auto planted = plant({300, 50, 8, 7}, 2, 1.5, 3, 7);
  for (const Index rank : {Index{2}, HeadOptions::rank_from_data})
    expect_the_same_bits([&](const Communicator& block) {
      std::vector<AttentionSequence> sequences;
      for (const auto& whole : planted.sequences)
        sequences.push_back(distributed(block, whole, reference::Layout::even));
      HeadOptions options;
      options.rank = rank;
      return VectorXd(recover_heads(block, sequences, {}, options).at(0).X.reshaped());
    });
}

/// From whatever the journal has at any checkpoint, on ranks of another number.
void expect_no_trace_of_interruptions(const reference::Problem& problem, RegressionOptions options,
                                      Journal::Cadence cadence, std::size_t fewest) {
  std::vector<Journal::Parts> left;
  const auto with = [&](const std::shared_ptr<Journal>& journal) {
    options.newton.journal = journal;
    return regression(problem, options, Holding::float64);
  };
  const VectorXd expected = of_block_0(Communicator(MPI_COMM_SELF), {kBlocks}, [&](const Communicator& block) {
    std::shared_ptr<Journal> journal;
    const auto keep = [&, is_root = block.is_root()] {
      if (is_root) left.push_back(journal->kept());
    };
    journal = std::make_shared<Journal>(0, keep, cadence);
    return with(journal)(block);
  });
  EXPECT_GE(left.size(), fewest);
  std::vector<int> deal(static_cast<std::size_t>(world().size()), 1);
  deal[0] += kBlocks - world().size();
  for (std::size_t k = 0; k < left.size(); ++k) {
    SCOPED_TRACE("checkpoint " + std::to_string(k));
    const VectorXd found = of_block_0(world(), deal, [&](const Communicator& block) {
      const auto journal = std::make_shared<Journal>(
          0, [] {}, cadence);
      journal->resume(left[k]);
      return with(journal)(block);
    });
    EXPECT_TRUE(found == expected);
  }
}

TEST(Reproducible, InterruptionsLeaveNoTrace) {
  const auto problem = reference::random_problem(1200, 5, 1, 1e-4, 8);
  for (const Method method : {Method::newton, Method::newton_cg, Method::surrogate})
    for (const Start start : {Start::cross_entropy, Start::automatic}) {
      SCOPED_TRACE(std::string(method_name(method)) + " from " + std::string(start_name(start)));
      RegressionOptions options;
      options.method = method;
      options.start = start;
      expect_no_trace_of_interruptions(problem, options, {.iterations = 3, .at_ends = false}, 0);
      options.random_starts = 1;
      expect_no_trace_of_interruptions(problem, options, {.iterations = 2, .at_ends = true}, 2);
    }
}

}  // namespace attnreg::test_reproducible
